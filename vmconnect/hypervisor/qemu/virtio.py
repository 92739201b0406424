"""What QEMU tells of its virtio devices (x-query-virtio, QEMU docs/interop, since 7.2)."""

from __future__ import annotations

from vmconnect.deadline import Deadline
from vmconnect.hypervisor.qmp import QmpClient
from vmconnect.hypervisor.vsock_state import VsockState

__all__ = ["vsock_state"]

_DEVICE = "vhost-vsock"  # of vhost-user's too
_DRIVER_OK = "VIRTIO_CONFIG_S_DRIVER_OK"


def vsock_state(monitor: QmpClient, deadline: Deadline) -> VsockState:
    """Return how far the machine's vsock has come; UnsupportedError from an older QEMU."""
    for device in monitor.execute("x-query-virtio", timeout=deadline):
        if device["name"] == _DEVICE:
            told = monitor.execute("x-query-virtio-status", path=device["path"], timeout=deadline)
            ready = any(str(each).startswith(_DRIVER_OK) for each in told["status"]["statuses"])
            return VsockState.UP if ready else VsockState.NO_DRIVER
    return VsockState.NO_DEVICE
