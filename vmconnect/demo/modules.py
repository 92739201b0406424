"""Which kernel modules the guest loads, and in which order.

A kernel package brings no ``modules.dep``: depmod writes that where the package is installed. So
the order comes from where depmod has it from, the ``depends=`` that every module carries.
"""

from __future__ import annotations

import gzip
import lzma
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

from vmconnect.demo.elf import module_info
from vmconnect.errors import MissingDependencyError, ProtocolError, ResourceError

__all__ = ["FEATURES", "Module", "select_modules"]

# What the guest's features need, the quickest wanted first.
FEATURES = (
    "virtio_pci",
    "vmw_vsock_virtio_transport",
    "vsock_loopback",  # AF_VSOCK client code can be tried inside the guest, against CID 1
    "virtio_console",  # the guest agent's channel
    "evdev",  # how acpid reads the power button
    "button",  # the ACPI power button
    "virtio_input",  # the absolute pointer
    "virtio_rng",
)
# Not every kernel has these as modules or at all; a guest without them is still a guest.
_OPTIONAL = frozenset({"vsock_loopback", "virtio_input", "virtio_rng"})


@dataclass(frozen=True, slots=True)
class Module:
    """A module as it goes into the guest: its file's name, and the plain ELF bytes."""

    name: str
    filename: str
    data: bytes


def select_modules(tree: Path, features: tuple[str, ...] = FEATURES) -> list[Module]:
    """Return the modules for ``features`` under ``tree`` (``lib/modules/VERSION``), in load order.

    What is built into the kernel is left out. Raises ResourceError when a module is nowhere, or
    MissingDependencyError when unpacking one needs a program.
    """
    files = _module_files(tree)
    builtin = _builtin(tree)
    order: dict[str, Module] = {}

    def load(name: str, wanted_by: str, pending: tuple[str, ...]) -> None:
        if name in order or name in builtin:
            return
        if name in pending:
            raise ResourceError(f"the kernel modules {' and '.join(pending)} need each other")
        if name not in files:
            if name in _OPTIONAL and not pending:
                return
            raise ResourceError(
                f"the kernel package has no module {name}, which {wanted_by} needs",
                hint="another kernel package may: apt-get update",
            )
        data = _plain(files[name])
        for depends in _module_info(name, data).get("depends", ()):
            for needed in depends.split(","):
                if needed:
                    load(_canonical(needed), name, (*pending, name))
        order[name] = Module(name, f"{name}.ko", data)

    for feature in features:
        load(feature, "the demo", ())
    return list(order.values())


def _module_info(name: str, data: bytes) -> dict[str, tuple[str, ...]]:
    try:
        return module_info(data)
    except ProtocolError as error:
        raise ResourceError(f"cannot read the kernel module {name}: {error}") from error


def _canonical(name: str) -> str:
    """Spell a module's name as the kernel does: its files may have hyphens."""
    return name.replace("-", "_")


def _module_files(tree: Path) -> dict[str, Path]:
    return {
        _canonical(path.name.partition(".ko")[0]): path
        for path in tree.rglob("*.ko*")
        if path.is_file()
    }


def _builtin(tree: Path) -> frozenset[str]:
    listing = tree / "modules.builtin"
    try:
        lines = listing.read_text().splitlines()
    except OSError as error:
        raise ResourceError(f"cannot read {listing.name} of the kernel: {error}") from error
    return frozenset(_canonical(Path(line.strip()).stem) for line in lines if line.strip())


def _plain(path: Path) -> bytes:
    """Return a module's bytes, unpacked: distributions pack with gzip, xz or zstd."""
    try:
        data = path.read_bytes()
        match path.suffix:
            case ".gz":
                return gzip.decompress(data)
            case ".xz":
                return lzma.decompress(data)
            case ".zst":
                return _unzstd(path)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ResourceError(f"cannot read the kernel module {path.name}: {error}") from error
    return data


def _unzstd(path: Path) -> bytes:
    try:
        done = subprocess.run(
            ["zstd", "-dcq", "--", str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise MissingDependencyError(
            "this kernel's modules are packed with zstd, which is not installed",
            hint="apt install zstd",
        ) from error
    if done.returncode:
        raise ResourceError(f"zstd cannot unpack the kernel module {path.name}")
    return done.stdout
