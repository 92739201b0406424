"""Stores of keys that machines have shown, so that another machine's is noticed.

A key is pinned to the machine's identity (its UUID where it has one), not to an address: vsock
context ids, ports and socket paths are handed from machine to machine.
"""

from __future__ import annotations

import base64
import enum
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeVar

from vmconnect.errors import HostKeyChangedError, HostKeyUnknownError
from vmconnect.session.line_file import LineFile

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["KeyStore", "Origin", "Pin", "PublicKey", "identity_of"]

_WHEN = "%Y-%m-%dT%H:%M:%SZ"


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
KeyOf_co = TypeVar("KeyOf_co", bound=PublicKey, covariant=True)


class Origin(enum.Enum):
    """Who vouched for a key when it was pinned."""

    ACCEPTED = "accepted"
    """Whoever used it first said that it is the machine's."""
    ADDED = "added"
    """It was fetched, shown and pinned by ``vmconnect trust add``."""
    AGENT = "guest-agent"
    """The machine's guest agent told it."""
    LOCAL = "local"
    """It was met on a socket of this host, where nobody can step in between."""


@dataclass(frozen=True, slots=True)
class Pin(Generic[KeyOf_co]):
    """A key, and the machine that it is pinned to.

    ``machine`` is what it was called then, ``since`` when that was; as ``origin``, they are None
    in lines that others have written.
    """

    identity: str
    key: KeyOf_co
    machine: str | None = None
    origin: Origin | None = None
    since: datetime | None = None


class KeyStore(Generic[K]):
    """The pinned keys of one kind of server, in one file.

    Each line is ``IDENTITY KIND BASE64 MACHINE ORIGIN TIME``, of which the last three are a
    comment to other readers; ``form`` makes a key of its kind and its bytes.
    """

    noun: ClassVar[str]
    """What a key is called."""
    remedy: ClassVar[str]
    """What to do about one that was never seen."""

    def __init__(self, path: Path, form: Callable[[str, bytes], K]):
        self.path = path
        self._file = LineFile(path)
        self._form = form

    def pins(self) -> list[Pin[K]]:
        """Return everything that is pinned; raises ResourceError if unreadable."""
        return [pin for _, pin in self._read(self._file.read())]

    def pinned(self, identity: str) -> list[K]:
        """Return the keys pinned to ``identity``; raises ResourceError if unreadable."""
        return [pin.key for _, pin in self._read(_of(identity, self._file.read()))]

    def pin(
        self,
        identity: str,
        *keys: K,
        machine: str | None = None,
        origin: Origin = Origin.ACCEPTED,
    ) -> None:
        """Trust ``keys`` as the machine's from now on."""
        with self._file.changing() as lines:
            known = [pin.key for _, pin in self._read(_of(identity, lines))]
            for key in keys:
                if key not in known:
                    when = time.strftime(_WHEN, time.gmtime())
                    data = base64.b64encode(key.blob).decode()
                    comment = f"{_name(machine or identity)} {origin.value} {when}"
                    lines.append(f"{_name(identity)} {key.kind} {data} {comment}")

    def forget(self, identity: str) -> int:
        """Unpin every key of the machine and return how many there were."""
        return len(self.forget_all(lambda pin: pin.identity == identity))

    def forget_all(self, which: Callable[[Pin[K]], bool]) -> list[Pin[K]]:
        """Unpin the keys for which ``which`` says so, and return them."""
        with self._file.changing() as lines:
            gone = [(line, pin) for line, pin in self._read(lines) if which(pin)]
            left = {line for line, _ in gone}
            lines[:] = [line for line in lines if line not in left]
        return [pin for _, pin in gone]

    def check(
        self,
        identity: str,
        key: K,
        machine: str,
        accept: Callable[[K], bool],
        *,
        provisioned: K | None = None,
        vouched: Callable[[], Sequence[K]] | None = None,
        origin: Origin = Origin.ACCEPTED,
    ) -> None:
        """Return if ``key`` is the machine's; on first contact somebody vouches, and pins it.

        ``provisioned`` is the key that whoever made the machine put into it: it is trusted
        with no question, and no other. Otherwise, on first contact, ``vouched`` returns the keys
        that the machine itself tells in a way that nobody can step into: they are pinned. Where
        there are none, ``accept`` decides. Raises HostKeyChangedError with both fingerprints, or
        HostKeyUnknownError.
        """
        if provisioned is not None:
            self._compare(key, [provisioned], machine, "whoever started the machine wrote down")
            return
        if pinned := self.pinned(identity):
            self._compare(key, pinned, machine, "pinned is", identity)
            return
        if vouched is not None and (told := vouched()):
            self._compare(key, told, machine, "the guest agent tells")
            self.pin(identity, *told, machine=machine, origin=Origin.AGENT)
            return
        if not accept(key):
            raise HostKeyUnknownError(
                f"its {self.noun} {key.fingerprint} ({key.kind}) is not known yet",
                machine=machine,
                hint=self.remedy,
            )
        self.pin(identity, key, machine=machine, origin=origin)

    def _compare(
        self, key: K, known: Sequence[K], machine: str, whose: str, identity: str | None = None
    ) -> None:
        if key in known:
            return
        hint = "another machine may be answering"
        if identity is not None:
            hint += f"; if it was made anew: vmconnect trust forget {_name(identity)}"
        fingerprints = ", ".join(each.fingerprint for each in known)
        raise HostKeyChangedError(
            f"the {self.noun} has changed: it shows {key.fingerprint}, {whose} {fingerprints}",
            machine=machine,
            hint=hint,
        )

    def _read(self, lines: list[str]) -> Iterator[tuple[str, Pin[K]]]:
        """Yield each line that is a key's, and what it says; others' lines are left alone."""
        for line in lines:
            name, kind, data, *comment = [*line.split(), "", ""]
            if not data or name.startswith(("#", "@")):
                continue
            try:
                blob = base64.b64decode(data, validate=True)
            except ValueError:
                continue
            machine, origin, since = _commented(comment)
            yield line, Pin(identity_of(name), self._form(kind, blob), machine, origin, since)


def _of(identity: str, lines: list[str]) -> list[str]:
    """Return the lines of one machine: to read all that others say takes long."""
    return [line for line in lines if identity_of(line.split(None, 1)[0]) == identity]


def _commented(words: list[str]) -> tuple[str | None, Origin | None, datetime | None]:
    """Return what a comment of ours says; nothing if it is somebody else's."""
    if len(words) < 3:
        return None, None, None
    from datetime import UTC, datetime

    try:
        since = datetime.strptime(words[2], _WHEN).replace(tzinfo=UTC)
        return identity_of(words[0]), Origin(words[1]), since
    except ValueError:
        return None, None, None


def _name(identity: str) -> str:
    """Return an identity as a host name in known_hosts: no blanks, commas or wildcards."""
    return urllib.parse.quote(identity, safe="/:-._~", errors="surrogateescape")


def identity_of(name: str) -> str:
    """Return the identity that a name in the store stands for."""
    return urllib.parse.unquote(name, errors="surrogateescape")
