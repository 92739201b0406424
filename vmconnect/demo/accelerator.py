"""What runs the guest's code: the host's virtualisation where it truly works, else emulation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Accelerator", "choose_accelerator"]

_DEVICE = Path("/dev/kvm")
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Accelerator:
    """QEMU's arguments, and the words of the guest's kernel command line that go with them."""

    arguments: tuple[str, ...]
    kernel_words: tuple[str, ...]


# A processor that is good at copying by the byte makes kernel and libc do so, and the emulator
# takes the bytes one by one: each copy of memory is four to six times as fast without.
_EMULATED_CPU = "max,-erms,-fsrm"
_EMULATION = ("-accel", "tcg,thread=multi", "-cpu")


def choose_accelerator() -> Accelerator:
    """Return how to run a guest on this host."""
    if kvm_works():
        # QEMU tries accelerators in order: emulation stands behind, should KVM refuse.
        return Accelerator(("-accel", "kvm", *_EMULATION, "max"), ())
    # Programs at the same addresses each time: the emulator keeps the code it has translated,
    # and sshd starts nearly three times as fast.
    return Accelerator((*_EMULATION, _EMULATED_CPU), ("norandmaps",))


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
