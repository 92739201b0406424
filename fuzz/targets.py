"""All that can be fuzzed: a name, and a function of bytes that raises if something is wrong."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import Protocol

from fuzz.guests import GUESTS
from fuzz.kernel import kernel
from fuzz.oracle import ALLOWED, OFTEN, check, check_bounds
from fuzz.wrap import QUICK, WRAPS, Wrap
from vmconnect.vnc.credentials import Credentials
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.policy import Policy, ServerKey
from vmconnect.vnc.security import LOGINS

__all__ = ["TARGETS", "Target", "handshake_bytes"]


class Target(Protocol):
    """What is fuzzed: raises AssertionError, or whatever the engine should not have raised.

    With ``always`` it makes all comparisons, which else are made for one of many inputs.
    """

    def __call__(self, data: bytes, *, always: bool = False) -> None:
        """Let the engine read what is made of ``data``."""


_VERSIONS = b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.008\n"


def handshake_bytes(data: bytes) -> bytes:
    """Return what a server says from the beginning: the version and one of our logins first.

    The logins are those of the registry, whichever there are.
    """
    option, data = (data[0], data[1:]) if data else (0, b"")
    if option & 3 == 3:
        return data
    version, number = _VERSIONS[option & 3], LOGINS[(option >> 2) % len(LOGINS)].number
    chosen = number.to_bytes(4, "big") if not option & 3 else bytes((1, number))
    return version + chosen + data


def _trusted(_key: ServerKey) -> None:
    """Let the server be whoever it is: the login goes on."""


_POLICY = Policy(private=True, check_key=_trusted)
"""Every login is made, whatever it shows."""


def _outcome(data: bytes, pieces: list[bytes]) -> tuple[str, bytes, object]:
    engine = Engine(Credentials("secret", "somebody"), policy=_POLICY)
    events: object = None
    try:
        for piece in pieces:
            events = engine.receive(piece) or events
        check_bounds(engine)
        error = str(engine.receive_end())
    except ALLOWED as broken:
        error = str(broken)
    check_bounds(engine)
    return error, engine.data_to_send(), events


def handshake(data: bytes, *, always: bool = False) -> None:
    """Log in to a server that says anything."""
    said = handshake_bytes(data)
    outcome = _outcome(said, [said])
    # Answers by chance, a client's half of a key exchange say, differ: only errors are compared.
    if always or not zlib.crc32(said) % OFTEN:
        bytewise = [said[i : i + 1] for i in range(len(said))]
        other = _outcome(said, bytewise)
        # What a stranger says is shown as far as it has come.
        assert outcome[0].partition("it says")[0] == other[0].partition("it says")[0]


def _wrapped(wrap: Wrap, data: bytes, *, always: bool = False) -> None:
    check(wrap(data), always=always)


def _plain(read: Callable[[bytes], None], data: bytes, *, always: bool = False) -> None:
    """Read what is no RFB: every execution makes all comparisons."""
    del always
    read(data)


_NAMES = tuple(QUICK)


def _differential(data: bytes, *, always: bool = True) -> None:
    """Compare every execution with all others, not only one of many."""
    if data and always:
        check(WRAPS[_NAMES[data[0] % len(_NAMES)]](data[1:]), always=True)


TARGETS: dict[str, Target] = {
    **{name: partial(_wrapped, wrap) for name, wrap in WRAPS.items()},
    "handshake": handshake,
    "differential": _differential,
    "kernel": kernel,
    **{name: partial(_plain, read) for name, read in GUESTS.items()},
}
"""By name; ``differential`` takes a byte more, which chooses one of the encodings' targets."""
