"""The distribution's packages: which the guest is made of, fetched by apt, installed nowhere.

Nothing here needs root: ``apt-cache`` and ``apt-get download`` only read apt's lists, and
``dpkg-deb -x`` only unpacks. The host's own files are never used, so host and guest need not be
of the same age.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from vmconnect.demo.disk import check_output
from vmconnect.errors import MissingDependencyError, ResourceError, UnsupportedError
from vmconnect.progress import Progress

__all__ = ["Package", "fetch", "lists_signature", "resolve", "unpack"]

# The first that apt knows is taken: Debian's small kernel, Ubuntu's small one, the full ones.
KERNELS = (
    "linux-image-cloud-amd64",
    "linux-image-virtual",
    "linux-image-generic",
    "linux-image-amd64",
)
PROGRAMS = (
    "busybox-static",
    "openssh-server",
    "openssh-sftp-server",
    "socat",
    "qemu-guest-agent",
    "python3-minimal",
    "libpython3-stdlib",
)
# Of what these depend on, only libraries, Python and the kernel go into the guest: what runs at
# installation (adduser, debconf, ...) has no work here. A library's package carries its soname's
# number.
_FOLLOWED = re.compile(r"(z?lib[^:]*\d[^:]*|python3\.\d+-minimal|linux-(image|modules)-\d[^:]*)")

_APT_STATE = tuple(
    Path(each)
    for each in (
        "/var/lib/apt/lists",
        "/etc/apt",
        "/etc/apt/apt.conf.d",
        "/etc/apt/preferences.d",
        "/etc/apt/sources.list.d",
    )
)
_URI_LINE = re.compile(r"'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+) (?P<hash>\S*)")
# name_version_architecture.deb; apt writes an epoch's colon as %3a.
_PACKAGE_FILE = re.compile(r"[a-z0-9][a-z0-9.+-]*_[A-Za-z0-9.+~%-]+_[a-z0-9-]+\.deb")
# A package's size is apt's word; the largest real one here, a kernel's modules, is 120 MB.
MAX_PACKAGE_BYTES = 1 << 30
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Package:
    """One ``.deb``: its file's name (with the version in it), size in bytes and digest.

    ``digest`` is apt's form, such as ``SHA256:0123...``.
    """

    filename: str
    size: int
    digest: str

    def intact(self, path: Path) -> bool:
        """Tell whether the file at ``path`` is this package, whole and unchanged."""
        kind, _, expected = self.digest.partition(":")
        try:
            if path.stat().st_size != self.size:
                return False
            with path.open("rb") as file:
                return hashlib.file_digest(file, kind.lower()).hexdigest() == expected
        except FileNotFoundError:
            return False
        except OSError as error:
            raise ResourceError(f"cannot read {path}: {error.strerror}") from error


def lists_signature() -> str:
    """Return a digest that changes when apt might answer differently: its lists and settings.

    It costs a few stats where asking apt costs seconds.
    """
    digest = hashlib.sha256()
    for directory in _APT_STATE:
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                with contextlib.suppress(OSError):
                    if entry.is_file():
                        info = entry.stat()
                        line = f"{entry.path} {info.st_size} {info.st_mtime_ns}\n"
                        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def resolve() -> tuple[Package, ...]:
    """Ask apt which packages, in which versions, a guest would be made of today.

    Raises MissingDependencyError without apt, UnsupportedError on another architecture,
    ResourceError when apt's lists do not have what is needed.
    """
    if os.uname().machine != "x86_64":
        raise UnsupportedError(f"the demo machine is for x86_64, not {os.uname().machine}")
    depends = _depends((*KERNELS, *PROGRAMS))
    missing = [name for name in PROGRAMS if name not in depends]
    kernel = next((name for name in KERNELS if name in depends), None)
    if kernel is None:
        missing.insert(0, KERNELS[0])
    if missing:
        raise ResourceError(
            f"apt's lists have no package {', '.join(missing)}", hint="sudo apt-get update"
        )
    assert kernel is not None  # noqa: S101 (else it would be among the missing)
    names = _closure(depends, (kernel, *PROGRAMS))
    # Meta-packages have no files.
    names -= {kernel, "python3-minimal", "libpython3-stdlib"}
    if not any(name.startswith("linux-image-") for name in names):
        raise ResourceError(f"{kernel} leads to no kernel package", hint="sudo apt-get update")
    output = _run(["apt-get", "--print-uris", "download", *sorted(names)])
    return tuple(sorted(_parse_uris(output), key=lambda each: each.filename))


def fetch(packages: Iterable[Package], directory: Path, progress: Progress) -> list[Path]:
    """Bring the packages into ``directory``, those only that are not there yet, whole.

    Returns their paths. Raises ResourceError when apt cannot fetch them, OSError when the disk
    is full; nothing half-written stays.
    """
    wanted = list(packages)
    directory.mkdir(parents=True, exist_ok=True)
    lacking = [each for each in wanted if not each.intact(directory / each.filename)]
    if lacking:
        total = sum(each.size for each in lacking)
        progress.step(f"Fetching {len(lacking)} packages")
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=directory) as name:
            staging = Path(name)
            _download(lacking, staging, total, progress)
            for each in lacking:
                if not each.intact(staging / each.filename):
                    raise ResourceError(
                        f"apt did not fetch {each.filename} as its lists describe it",
                        hint="sudo apt-get update",
                    )
                (staging / each.filename).replace(directory / each.filename)
    return [directory / each.filename for each in wanted]


def unpack(archives: Iterable[Path], tree: Path, progress: Progress) -> None:
    """Unpack each ``.deb`` into ``tree``.

    Raises ResourceError if one cannot be, OSError when the disk is full.
    """
    sizes = {path: path.stat().st_size for path in archives}
    total, done = sum(sizes.values()), 0
    progress.step(f"Unpacking {len(sizes)} packages")
    for path, size in sizes.items():
        progress.advance(done, total)
        _run(["dpkg-deb", "-x", str(path), str(tree)])
        done += size
    progress.advance(done, total)


def _depends(names: Iterable[str]) -> dict[str, list[str]]:
    """Return what each package reachable from ``names`` depends on.

    Of alternatives the first that apt has counts.

    One call of apt-cache, since each costs most of a second where apt keeps no binary cache.
    """
    output = _run(["apt-cache", "depends", "--recurse", "--important", *names])
    depends: dict[str, list[str]] = {}
    direct: list[str] = []
    chosen = False  # one of the alternatives that this line is among
    for line in output.splitlines():
        if line and not line[0].isspace():
            direct, chosen = depends.setdefault(line.strip(), []), False
            continue
        # "  Depends: name", " |PreDepends: name" with more alternatives following, either with
        # <name> if no package is called so, or, deeper indented, a provider of the name before.
        kind, colon, name = line.strip(" |").partition(": ")
        if colon and kind in {"Depends", "PreDepends"}:
            if not chosen and not name.startswith("<"):
                direct.append(name.strip())
                chosen = True
            chosen = chosen and line.startswith(" |")
    return depends


def _closure(depends: dict[str, list[str]], roots: Iterable[str]) -> set[str]:
    found: set[str] = set()
    pending = list(roots)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += [each for each in depends.get(name, ()) if _FOLLOWED.fullmatch(each)]
    return found


def _parse_uris(output: str) -> Iterator[Package]:
    for line in output.splitlines():
        if not line.startswith("'"):
            continue
        match = _URI_LINE.fullmatch(line.strip())
        if match is None:
            raise ResourceError(f"apt-get prints what cannot be read: {line[:200]!r}")
        filename, size, digest = match["file"], int(match["size"]), match["hash"]
        kind = digest.partition(":")[0].lower()
        if not _PACKAGE_FILE.fullmatch(filename) or size > MAX_PACKAGE_BYTES:
            raise ResourceError(f"apt-get offers a strange package: {line[:200]!r}")
        if kind not in {"sha256", "sha512"}:
            raise ResourceError(f"apt-get has no checksum for {filename}")
        yield Package(filename, size, digest)


def _download(packages: list[Package], staging: Path, total: int, progress: Progress) -> None:
    """Run ``apt-get download`` in ``staging`` and tell how far it is by what lies there."""
    wanted = []
    for each in packages:
        name, version, _ = each.filename.split("_", 2)
        wanted.append(f"{name}={version.replace('%3a', ':')}")
    # Without a sandbox user: the directory is private to this user, so _apt could not enter it.
    argv = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *wanted]
    output = bytearray()  # not a file: the disk may be what is full
    process = _start(argv, cwd=staging, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with process:
        assert process.stdout is not None  # noqa: S101 (a pipe, as asked for)
        os.set_blocking(process.stdout.fileno(), False)
        try:
            while process.poll() is None:
                progress.advance(min(_bytes_in(staging), total), total)
                time.sleep(_POLL_SECONDS)
                output += process.stdout.read() or b""
        except BaseException:
            process.kill()
            raise
        output += process.stdout.read() or b""
    progress.advance(_bytes_in(staging), total)
    if process.returncode:
        _refuse(argv, output.decode(errors="replace"))


def _bytes_in(directory: Path) -> int:
    done = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):  # apt renames while we look
            done += path.stat().st_size if path.is_file() else 0
    return done


def _run(argv: list[str]) -> str:
    process = _start(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        try:
            output, errors = process.communicate()
        except BaseException:
            process.kill()
            raise
    # apt-cache and apt-get fail for one unknown name among many; what is missing shows later.
    if process.returncode and argv[0] != "apt-cache":
        _refuse(argv, errors.decode(errors="replace"))
    return output.decode(errors="replace")


def _start(
    argv: list[str], *, stdout: int | IO[bytes], stderr: int, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        package = "dpkg" if argv[0] == "dpkg-deb" else "apt"
        raise MissingDependencyError(
            f"{argv[0]} is not installed: the demo is built from Debian's or Ubuntu's packages",
            hint=f"apt install {package}, or build the demo on Debian or Ubuntu",
        ) from error


def _refuse(argv: list[str], output: str) -> NoReturn:
    """Raise what a failed run of apt or dpkg means."""
    check_output(output)
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("E:", "Err:", "dpkg-deb: error"))]
    reason = (errors or lines or ["no reason given"])[0]
    hint = "is there a network? and are apt's lists fresh: sudo apt-get update"
    if argv[0] == "dpkg-deb":
        hint = "does the dpkg of this host know how the package is compressed?"
    raise ResourceError(f"{argv[0]} failed: {reason[:300]}", hint=hint)
