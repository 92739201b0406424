"""The guest's file tree, from unpacked packages and our own files to an initramfs.

Chosen are a few programs, and then, through what each ELF file says it needs, every library down
to libc; all from the packages. `guest/` holds the files of our own, in their places.
"""

from __future__ import annotations

import importlib.resources
import subprocess
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

from vmconnect.demo.cpio import CpioWriter
from vmconnect.demo.elf import dynamic, is_elf
from vmconnect.demo.modules import Module
from vmconnect.demo.stdlib import python_files
from vmconnect.errors import ProtocolError, ResourceError

__all__ = ["Rootfs", "guest_files"]

# What is run in the guest. Newer OpenSSH splits sshd in three; what a release does not have, it
# does not need.
PROGRAMS = (
    "usr/bin/busybox",
    "usr/sbin/sshd",
    "usr/bin/socat",
    "usr/sbin/qemu-ga",
    "usr/lib/openssh/sftp-server",
)
OPTIONAL_PROGRAMS = ("usr/lib/openssh/sshd-session", "usr/lib/openssh/sshd-auth")
LIBRARIES = "usr/lib/x86_64-linux-gnu"
LOADER = "ld-linux-x86-64.so.2"
_LIBRARY_DIRECTORIES = (LIBRARIES, "usr/lib64", "usr/lib")
# glibc loads this by name when a thread is cancelled.
_LOADED_BY_NAME = ("libgcc_s.so.1",)

# fmt: off
_DIRECTORIES = (
    "dev", "etc", "home", "mnt", "opt", "proc", "run", "srv", "sys", "tmp", "usr", "usr/local",
    "var",
)
# fmt: on
_LINKS = {
    "bin": "usr/bin",
    "sbin": "usr/sbin",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "var/run": "../run",
    "etc/mtab": "../proc/self/mounts",
}
_MAX_LINKS = 16
_MERGED = frozenset({"bin", "sbin", "lib", "lib64"})


@dataclass(frozen=True, slots=True)
class _File:
    data: bytes
    mode: int
    owner: int = 0


def guest_files() -> dict[str, bytes]:
    """Return our own files of the guest, by their path in it."""
    found: dict[str, bytes] = {}

    def walk(directory: Traversable, prefix: str) -> None:
        for entry in directory.iterdir():
            if entry.is_dir():
                walk(entry, f"{prefix}{entry.name}/")
            else:
                found[f"{prefix}{entry.name}"] = entry.read_bytes()

    walk(importlib.resources.files("vmconnect.demo") / "guest", "")
    return dict(sorted(found.items()))


@dataclass(slots=True)
class Rootfs:
    """A tree in the making; ``tree`` is where the packages are unpacked."""

    tree: Path
    _files: dict[str, _File] = field(default_factory=dict)
    _links: dict[str, str] = field(default_factory=lambda: dict(_LINKS))
    _owned: dict[str, tuple[int, int]] = field(default_factory=dict)  # path: mode, owner

    def add(self, path: str, data: bytes, mode: int = 0o644, owner: int = 0) -> None:
        """Add a file of given bytes; ``owner`` is both user and group."""
        self._files[path] = _File(data, mode, owner)

    def add_directory(self, path: str, mode: int, owner: int = 0) -> None:
        """Add a directory that is not simply root's and 0755."""
        self._owned[path] = (mode, owner)

    def add_programs(self) -> None:
        """Add the programs, Python, and every library that they need."""
        chosen = {name: self._unpacked(name) for name in PROGRAMS}
        for name in OPTIONAL_PROGRAMS:
            if path := self._find(name):
                chosen[name] = path
        directories = [self.tree / each for each in _LIBRARY_DIRECTORIES]
        directories += [self.tree / each.removeprefix("usr/") for each in _LIBRARY_DIRECTORIES]
        chosen |= dict(python_files(self.tree, self._library(LOADER), directories))
        for name in _LOADED_BY_NAME:
            chosen[f"{LIBRARIES}/{name}"] = self._library(name)
        while chosen:
            name, path = chosen.popitem()
            data = _read(path)
            self.add(name, data, 0o755 if path.stat().st_mode & 0o111 else 0o644)
            for needed in _needs(name, data):
                where = f"{LIBRARIES}/{needed}"
                if where not in self._files and where not in chosen:
                    chosen[where] = self._library(needed)
        loader = f"{LIBRARIES}/{LOADER}"
        self._links[f"usr/lib64/{LOADER}"] = f"/{loader}"
        python = next(name for name in self._files if name.startswith("usr/bin/python3."))
        self._links["usr/bin/python3"] = python.rpartition("/")[2]

    def add_applets(self) -> None:
        """Link every applet of busybox that is no program of its own here."""
        busybox = self._unpacked("usr/bin/busybox")
        try:
            # The package's own static program tells; only its machine code must fit ours.
            listing = subprocess.run(
                [str(busybox), "--list-full"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
                timeout=30,
            ).stdout.decode()
        except (OSError, subprocess.SubprocessError) as error:
            raise ResourceError(
                f"cannot run the unpacked busybox: {error}",
                hint="is the cache directory on a file system mounted noexec?",
            ) from error
        for line in listing.split():
            path = _merged(line)
            if path not in self._files:
                self._links.setdefault(path, "/usr/bin/busybox")

    def add_modules(self, modules: list[Module]) -> None:
        """Add kernel modules and the order in which /init loads them."""
        for module in modules:
            self.add(f"usr/lib/modules/{module.filename}", module.data)
        order = "".join(f"{module.filename}\n" for module in modules)
        self.add("usr/lib/modules/order", order.encode())

    def add_guest_files(self) -> None:
        """Add our own files; a script is executable, the shadow file is root's alone."""
        for name, data in guest_files().items():
            mode = 0o755 if data.startswith(b"#!") else 0o644
            self.add(name, data, 0o600 if name == "etc/shadow" else mode)

    def write(self, archive: CpioWriter) -> None:
        """Write the tree, directories first."""
        names = {*self._files, *self._links, *self._owned}
        directories = {*_DIRECTORIES, *self._owned}
        for name in names:
            directories |= {str(parent) for parent in PurePosixPath(name).parents}
        directories -= {".", *self._links}
        for name in sorted(directories):
            mode, owner = self._owned.get(name, (0o755, 0))
            archive.directory(name, mode, uid=owner, gid=owner)
        # Before /init mounts /dev, the kernel wants these two.
        archive.character_device("dev/console", 5, 1)
        archive.character_device("dev/null", 1, 3, 0o666)
        for name, target in sorted(self._links.items()):
            archive.symlink(name, target)
        for name, file in sorted(self._files.items()):
            archive.file(name, file.data, file.mode, uid=file.owner, gid=file.owner)

    def _find(self, name: str) -> Path | None:
        """Return the unpacked file that the guest calls ``name``, None if no package has it."""
        short = name.removeprefix("usr/")
        for candidate in (name, short):
            path = _followed(self.tree, candidate)
            if path is not None:
                return path
        return None

    def _unpacked(self, name: str) -> Path:
        path = self._find(name)
        if path is None:
            raise ResourceError(
                f"none of the packages has {name}", hint="this release is not known to the demo"
            )
        return path

    def _library(self, name: str) -> Path:
        if "/" not in name:
            for directory in _LIBRARY_DIRECTORIES:
                if path := self._find(f"{directory}/{name}"):
                    return path
        raise ResourceError(
            f"none of the packages has the library {name}",
            hint="this release is not known to the demo",
        )


def _followed(tree: Path, name: str) -> Path | None:
    """Follow links inside ``tree``, where / means the tree: never to a file of the host."""
    place, links = tree, 0
    pending = [*reversed(PurePosixPath(name).parts)]
    while pending:
        part = pending.pop()
        if part == "/":
            place = tree
        elif part == "..":
            place = tree if place == tree else place.parent
        else:
            place /= part
            try:
                target = PurePosixPath(place.readlink())
            except FileNotFoundError:
                return None
            except OSError:
                continue  # no link
            links += 1
            if links > _MAX_LINKS:
                return None
            place = place.parent
            pending += reversed(target.parts)
    return place if place.is_file() else None


def _merged(path: str) -> str:
    """Return where a path of the classic layout lies with /usr merged."""
    path = path.lstrip("/")
    return f"usr/{path}" if path.split("/")[0] in _MERGED else path


def _needs(name: str, data: bytes) -> tuple[str, ...]:
    if not is_elf(data):
        return ()
    try:
        return dynamic(data).needed
    except ProtocolError as error:
        raise ResourceError(f"cannot read {name} of the packages: {error}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ResourceError(f"cannot read {path}: {error.strerror}") from error
