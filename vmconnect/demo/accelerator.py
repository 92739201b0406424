"""What runs the guest's code: the host's virtualisation where it truly works, else emulation."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["accelerator_arguments"]

_DEVICE = Path("/dev/kvm")
_CPUINFO = Path("/proc/cpuinfo")


def accelerator_arguments() -> list[str]:
    """Return QEMU's ``-accel`` and ``-cpu`` arguments for this host.

    QEMU tries accelerators in order, so emulation stands behind KVM should that refuse.
    """
    emulation = ["-accel", "tcg,thread=multi", "-cpu", "max"]
    return ["-accel", "kvm", *emulation] if kvm_works() else emulation


def kvm_works() -> bool:
    """Tell whether KVM can run a guest here.

    The device alone does not say: without the processor's support it may open, even create a
    machine, and never run it.
    """
    try:
        words = _CPUINFO.read_text().split()
    except OSError:
        return False
    if "vmx" not in words and "svm" not in words:
        return False
    return os.access(_DEVICE, os.R_OK | os.W_OK)
