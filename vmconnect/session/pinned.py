"""All that is trusted: the pinned keys of guests and of VNC servers together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vmconnect.hypervisor.lookup import is_pattern, uuid_digits
from vmconnect.session.key_store import KeyStore, Pin, PublicKey, identity_of
from vmconnect.session.purpose import Purpose
from vmconnect.session.server_keys import ServerKeyStore
from vmconnect.session.trust import TrustStore

__all__ = ["Pinned", "forget_pinned", "list_pinned", "named_by", "store_of"]


@dataclass(frozen=True, slots=True)
class Pinned:
    """A key that is trusted, and for which channel of its machine."""

    purpose: Purpose
    pin: Pin[PublicKey]


def store_of(purpose: Purpose) -> KeyStore[Any]:
    """Return the user's store of the keys of one kind of channel."""
    return TrustStore() if purpose is Purpose.GUEST else ServerKeyStore()


def list_pinned() -> list[Pinned]:
    """Return every trusted key, by the name of its machine."""
    found = [
        Pinned(purpose, pin)
        for purpose in (Purpose.GUEST, Purpose.CONSOLE)
        for pin in store_of(purpose).pins()
    ]
    return sorted(found, key=lambda each: each.pin.machine or each.pin.identity)


def forget_pinned(which: Callable[[Pin[PublicKey]], bool]) -> list[Pinned]:
    """Trust the keys for which ``which`` says so no more, and return them."""
    return [
        Pinned(purpose, pin)
        for purpose in (Purpose.GUEST, Purpose.CONSOLE)
        for pin in store_of(purpose).forget_all(which)
    ]


def named_by(text: str) -> Callable[[Pin[PublicKey]], bool]:
    """Return what tells whether a key is of a machine that ``text`` means.

    It is an identity (a UUID in any spelling, an address), what the machine was called when the
    key was pinned, or a shell pattern of either.
    """
    import fnmatch
    import re

    identity, digits = identity_of(text), uuid_digits(text)
    pattern = re.compile(fnmatch.translate(text)) if is_pattern(text) else None

    def named(pin: Pin[PublicKey]) -> bool:
        names = (pin.identity, pin.machine or pin.identity)
        return (
            text in names
            or identity == pin.identity
            or (bool(digits) and digits == uuid_digits(pin.identity))
            or (pattern is not None and any(map(pattern.match, names)))
        )

    return named
