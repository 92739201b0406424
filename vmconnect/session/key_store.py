"""Stores of keys that machines have shown, so that another machine's is noticed.

A key is pinned to the machine's identity (its UUID where it has one), not to an address: vsock
context ids, ports and socket paths are handed from machine to machine.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar

from vmconnect.errors import HostKeyChangedError, HostKeyUnknownError, ResourceError
from vmconnect.paths import private_directory

__all__ = ["KeyStore", "PublicKey"]

_STORE_BYTES = 16 << 20


class PublicKey(Protocol):
    """What a server shows: the kind's name, and the bytes by which it is known."""

    @property
    def kind(self) -> str:
        """The kind's name, without blanks."""

    @property
    def blob(self) -> bytes:
        """The key itself."""

    @property
    def fingerprint(self) -> str:
        """What a person compares."""


K = TypeVar("K", bound=PublicKey)


class KeyStore(Generic[K]):
    """The pinned keys of one kind of server, in one file.

    Each line is ``IDENTITY KIND BASE64``; ``form`` makes a key of its kind and its bytes.
    """

    noun: ClassVar[str]
    """What a key is called."""
    remedy: ClassVar[str]
    """What to do about one that was never seen."""

    def __init__(self, path: Path, form: Callable[[str, bytes], K]):
        self.path = path
        self._form = form

    def pinned(self, identity: str) -> list[K]:
        """Return the keys pinned to ``identity``; raises ResourceError if unreadable."""
        return [key for name, key in self._entries() if name == _name(identity)]

    def pin(self, identity: str, key: K) -> None:
        """Trust ``key`` as the machine's from now on."""
        with self._locked():
            lines = self._lines()
            line = f"{_name(identity)} {key.kind} {base64.b64encode(key.blob).decode()}"
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
        key: K,
        machine: str,
        accept: Callable[[K], bool],
        *,
        provisioned: K | None = None,
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
                f"the {self.noun} has changed: it shows {key.fingerprint}, pinned is {known}",
                machine=machine,
                hint="another machine may be answering; if it was made anew, delete its "
                f"line ({_name(identity)}) from {self.path}",
            )
        if not accept(key):
            raise HostKeyUnknownError(
                f"its {self.noun} {key.fingerprint} ({key.kind}) is not known yet",
                machine=machine,
                hint=self.remedy,
            )
        self.pin(identity, key)

    def _entries(self) -> Iterator[tuple[str, K]]:
        for line in self._lines():
            name, kind, data = [*line.split()[:3], "", ""][:3]
            if not data or name.startswith(("#", "@")):
                continue
            try:
                blob = base64.b64decode(data, validate=True)
            except ValueError:
                continue
            yield name, self._form(kind, blob)

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
