"""How far a machine's vsock has come."""

from __future__ import annotations

import enum

__all__ = ["VsockState"]


class VsockState(enum.Enum):
    """What there is of a machine's vsock, as its hypervisor sees it."""

    NO_DEVICE = "no vsock device"
    NO_DRIVER = "a vsock device, and no driver of the guest's on it"
    UP = "a vsock device, and the guest's driver on it"
