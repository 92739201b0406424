"""A user-space vsock device for QEMU."""
