"""The demo's image: a kernel and an initramfs, built from packages and kept in the cache.

::

    CACHE/demo/lock            held while building
    CACHE/demo/current.json    which image is right for apt's lists as they were last read
    CACHE/demo/packages/       the .deb files of the newest image, so that it can be rebuilt offline
    CACHE/demo/images/KEY/     kernel, initrd, client_key, image.json

KEY hashes what goes in: the packages with their digests, our own files of the guest, and the
code that puts them together. A build appears by one rename, or not at all; what is found later
is checked against the digests in ``image.json``, and built again if it differs.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.resources
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmconnect.demo.cpio import CpioWriter
from vmconnect.demo.disk import disk_errors
from vmconnect.demo.modules import select_modules
from vmconnect.demo.packages import Package, fetch, lists_signature, resolve, unpack
from vmconnect.demo.rootfs import Rootfs, guest_files
from vmconnect.errors import MissingDependencyError, ResourceError
from vmconnect.paths import cache_directory, private_directory
from vmconnect.progress import Progress, Silent

__all__ = ["DemoImage", "build"]

# What of this package decides what is in an image.
_BUILDERS = ("cpio", "disk", "elf", "image", "modules", "packages", "rootfs", "stdlib")
_USERS = {"root": ("root", 0), "guest": ("home/guest", 1000)}
# The newest, and the one before for whoever has just looked it up and is about to start it.
_IMAGES_KEPT = 2
_KEY_DIGITS = 20
_FILES = frozenset({"kernel", "initrd", "client_key", "host_key.pub"})


@dataclass(frozen=True, slots=True)
class DemoImage:
    """What a demo machine is started from.

    ``client_key`` is an OpenSSH private key that logs in as any of ``users``; ``host_key`` is
    the guest's public one, as a line for known_hosts without the name; ``version`` is the
    kernel's release.
    """

    kernel: Path
    initrd: Path
    client_key: Path
    host_key: str
    version: str
    users: tuple[str, ...] = tuple(_USERS)


def build(progress: Progress | None = None) -> DemoImage:
    """Return the image, from the cache if nothing that goes into it has changed.

    The keys are fresh with each build. Safe to call from any number of processes at once.
    Without apt, or with empty lists, the last image built by this version serves. Raises
    MissingDependencyError, UnsupportedError or ResourceError with a hint on what to do.
    """
    progress = progress or Silent()
    room = private_directory(cache_directory() / "demo")
    recipe = _recipe()
    stamp = hashlib.sha256(f"{recipe} {lists_signature()}".encode()).hexdigest()
    with disk_errors(room):
        if image := _current(room, stamp):
            return image
        with _locked(room / "lock", progress):
            # Another process may have built it while we waited.
            return _current(room, stamp) or _renew(room, recipe, stamp, progress)


def _renew(room: Path, recipe: str, stamp: str, progress: Progress) -> DemoImage:
    """Find or make the image that apt's lists now ask for; the lock is held."""
    images = room / "images"
    images.mkdir(mode=0o700, exist_ok=True)
    for left in (*images.glob(".new-*"), *(room / "packages").glob(".fetch-*")):
        shutil.rmtree(left, ignore_errors=True)  # of a build that was killed
    progress.step("Asking apt for the packages")
    try:
        packages = resolve()
    except (MissingDependencyError, ResourceError):
        if image := _last(room, recipe):
            progress.step("Using the last image built, as apt does not answer")
            return image
        raise
    described = "\n".join(f"{each.filename} {each.digest}" for each in packages)
    key = hashlib.sha256(f"{recipe}\n{described}".encode()).hexdigest()[:_KEY_DIGITS]
    image = _load(images / key)
    if image is None:
        shutil.rmtree(images / key, ignore_errors=True)
        image = _make(room, key, packages, progress)
    current = {"stamp": stamp, "recipe": recipe, "key": key}
    _write_atomically(room / "current.json", json.dumps(current).encode())
    _prune(room, key, packages)
    return image


def _make(room: Path, key: str, packages: tuple[Package, ...], progress: Progress) -> DemoImage:
    archives = fetch(packages, room / "packages", progress)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=room / "images") as name:
        work = Path(name)
        tree = work / "tree"
        tree.mkdir()
        unpack(archives, tree, progress)
        progress.step("Writing the image")
        new = work / "image"
        new.mkdir(mode=0o700)
        version = _write_image(tree, new)
        description = {
            "version": version,
            "packages": [each.filename for each in packages],
            "files": {path.name: _digest(path) for path in sorted(new.iterdir())},
        }
        _write_private(new / "image.json", json.dumps(description, indent=1).encode())
        new.replace(room / "images" / key)
    image = _load(room / "images" / key)
    if image is None:
        raise ResourceError(
            f"the image written to {room} reads back differently", hint="is the disk sound?"
        )
    return image


def _write_image(tree: Path, new: Path) -> str:
    """Write kernel, initrd and keys into ``new`` and return the kernel's release."""
    kernels = sorted((tree / "boot").glob("vmlinuz-*"))
    if len(kernels) != 1:
        raise ResourceError(f"the packages have {len(kernels)} kernels, not one")
    version = kernels[0].name.removeprefix("vmlinuz-")
    trees = [each / version for each in (tree / "lib/modules", tree / "usr/lib/modules")]
    modules = next((each for each in trees if each.is_dir()), None)
    if modules is None:
        raise ResourceError(f"the packages have no modules for the kernel {version}")
    rootfs = Rootfs(tree)
    rootfs.add_programs()
    rootfs.add_applets()
    rootfs.add_modules(select_modules(modules))
    rootfs.add_guest_files()
    host_private, host_public = _new_key("root@demo")
    client_private, client_public = _new_key("vmconnect demo")
    rootfs.add("etc/ssh/ssh_host_ed25519_key", host_private, 0o600)
    rootfs.add("etc/ssh/ssh_host_ed25519_key.pub", host_public)
    for home, owner in _USERS.values():
        rootfs.add_directory(home, 0o700, owner)
        rootfs.add_directory(f"{home}/.ssh", 0o700, owner)
        rootfs.add(f"{home}/.ssh/authorized_keys", client_public, 0o600, owner)
    _write_private(new / "client_key", client_private)
    _write_private(new / "host_key.pub", host_public)
    shutil.copyfile(kernels[0], new / "kernel")
    # Not compressed: an emulated guest takes longer to inflate it than QEMU to load it.
    with (
        open(new / "initrd", "wb", opener=_private_opener) as file,
        CpioWriter(file) as archive,
    ):
        rootfs.write(archive)
    return version


def _new_key(comment: str) -> tuple[bytes, bytes]:
    """Return a fresh Ed25519 key: OpenSSH's private form, and the public line."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    return private, public + f" {comment}\n".encode()


def _recipe() -> str:
    """Hash what of an image comes from vmconnect: the guest's files and the building code."""
    digest = hashlib.sha256()
    code = importlib.resources.files("vmconnect.demo")
    parts = {name: (code / f"{name}.py").read_bytes() for name in _BUILDERS} | guest_files()
    for name, data in parts.items():
        digest.update(f"{name} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def _current(room: Path, stamp: str) -> DemoImage | None:
    current = _read_json(room / "current.json")
    return _named(room, current) if current.get("stamp") == stamp else None


def _last(room: Path, recipe: str) -> DemoImage | None:
    current = _read_json(room / "current.json")
    return _named(room, current) if current.get("recipe") == recipe else None


def _named(room: Path, current: dict[str, Any]) -> DemoImage | None:
    """Return the image that ``current.json`` names, None if it names none that is whole."""
    key = str(current.get("key"))
    good = re.fullmatch(rf"[0-9a-f]{{{_KEY_DIGITS}}}", key)
    return _load(room / "images" / key) if good else None


def _load(directory: Path) -> DemoImage | None:
    """Return the image in ``directory`` if it is whole, None if it must be built again."""
    description = _read_json(directory / "image.json")
    files = description.get("files")
    if not isinstance(files, dict) or set(files) != _FILES:
        return None
    for name, digest in files.items():
        try:
            if _digest(directory / name) != digest:
                return None
        except OSError:
            return None
    host_key = (directory / "host_key.pub").read_text()
    # ssh refuses a key that others may read.
    (directory / "client_key").chmod(0o600)
    return DemoImage(
        kernel=directory / "kernel",
        initrd=directory / "initrd",
        client_key=directory / "client_key",
        # Without the comment, so that it compares with what a server shows.
        host_key=" ".join(host_key.split()[:2]),
        version=str(description.get("version", "")),
    )


def _prune(room: Path, key: str, packages: tuple[Package, ...]) -> None:
    """Remove images and packages that are no longer wanted."""
    images = sorted(
        (path for path in (room / "images").iterdir() if path.name != key),
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    for path in images[_IMAGES_KEPT - 1 :]:
        shutil.rmtree(path, ignore_errors=True)
    wanted = {each.filename for each in packages}
    for path in (room / "packages").iterdir():
        if path.name not in wanted and path.is_file():
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.step("Waiting for another process that builds the image")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    """Return what a file of ours says, nothing if it is missing or damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _private_opener(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write_private(path: Path, data: bytes) -> None:
    with open(path, "wb", opener=_private_opener) as file:
        file.write(data)


def _write_atomically(path: Path, data: bytes) -> None:
    new = path.with_name(f".{path.name}.new")
    try:
        _write_private(new, data)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
