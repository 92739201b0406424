"""Trust: which SSH host key belongs to which machine.

A key is pinned to the machine's identity (its UUID where it has one), not to an address: vsock
context ids and socket paths are handed from machine to machine. The store is a known_hosts file
(sshd(8), SSH_KNOWN_HOSTS FILE FORMAT) whose host names are identities, so OpenSSH reads it too::

    ssh -o UserKnownHostsFile=~/.local/state/vmconnect/known_hosts -o HostKeyAlias=UUID ...
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vmconnect.errors import HostKeyChangedError, HostKeyUnknownError, ResourceError
from vmconnect.paths import private_directory, state_directory

__all__ = ["HostKey", "TrustStore"]

_STORE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class HostKey:
    """An SSH public key: its type's name and its wire form (RFC 4253, section 6.6)."""

    kind: str
    blob: bytes

    @classmethod
    def from_line(cls, line: str) -> HostKey | None:
        """Read ``TYPE BASE64 [COMMENT]``; None if it is no key."""
        words = line.split()
        if len(words) < 2:
            return None
        try:
            return cls(words[0], base64.b64decode(words[1], validate=True))
        except ValueError:
            return None

    @property
    def fingerprint(self) -> str:
        """The SHA-256 fingerprint as OpenSSH prints it."""
        digest = hashlib.sha256(self.blob).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def __str__(self) -> str:
        return f"{self.kind} {base64.b64encode(self.blob).decode()}"


class TrustStore:
    """The pinned host keys, in one file."""

    def __init__(self, path: Path | None = None):
        self.path = path or state_directory() / "known_hosts"

    def pinned(self, identity: str) -> list[HostKey]:
        """Return the keys pinned to ``identity``; raises ResourceError if unreadable."""
        return [key for name, key in self._entries() if name == _name(identity)]

    def pin(self, identity: str, key: HostKey) -> None:
        """Trust ``key`` as the machine's from now on."""
        with self._locked():
            lines = self._lines()
            line = f"{_name(identity)} {key}"
            if line not in lines:
                self._write([*lines, line])

    def forget(self, identity: str) -> int:
        """Unpin every key of the machine and return how many there were."""
        with self._locked():
            lines = self._lines()
            kept = [line for line in lines if line.split(" ", 1)[0] != _name(identity)]
            if len(kept) != len(lines):
                self._write(kept)
            return len(lines) - len(kept)

    def check(
        self,
        identity: str,
        key: HostKey,
        machine: str,
        accept: Callable[[HostKey], bool],
        *,
        provisioned: HostKey | None = None,
    ) -> None:
        """Return if ``key`` is the machine's; on first contact ``accept`` decides, and pins it.

        ``provisioned`` is the key that whoever made the machine put into it: it is trusted
        with no question, and no other. Raises HostKeyChangedError with both fingerprints, or
        HostKeyUnknownError.
        """
        pinned = [provisioned] if provisioned else self.pinned(identity)
        if key in pinned:
            return
        if pinned:
            known = ", ".join(known.fingerprint for known in pinned)
            raise HostKeyChangedError(
                f"the host key has changed: it shows {key.fingerprint}, pinned is {known}",
                machine=machine,
                hint="another machine may be answering; if the guest was made anew, delete its "
                f"line ({_name(identity)}) from {self.path}",
            )
        if not accept(key):
            raise HostKeyUnknownError(
                f"its host key {key.fingerprint} ({key.kind}) is not known yet",
                machine=machine,
                hint="compare it with the guest's and add --accept-new-host-key",
            )
        self.pin(identity, key)

    def _entries(self) -> Iterator[tuple[str, HostKey]]:
        for line in self._lines():
            name, _, rest = line.partition(" ")
            key = HostKey.from_line(rest)
            if key is not None and not name.startswith(("#", "@")):
                yield name, key

    def _lines(self) -> list[str]:
        try:
            with self.path.open("rb") as file:
                data = file.read(_STORE_BYTES)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ResourceError(f"cannot read {self.path}: {error.strerror}") from error
        return [line for line in data.decode("ascii", "replace").splitlines() if line.strip()]

    def _write(self, lines: list[str]) -> None:
        """Replace the file as a whole: a reader never sees half of it."""
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            fresh.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
            fresh.chmod(0o600)
            fresh.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise ResourceError(f"cannot write {self.path}: {error.strerror}") from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        private_directory(self.path.parent)
        try:
            handle = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ResourceError(f"cannot lock {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _name(identity: str) -> str:
    """Return an identity as a host name in known_hosts: no blanks, commas or wildcards."""
    return urllib.parse.quote(identity, safe="/:-._~")
