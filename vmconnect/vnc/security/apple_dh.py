"""Security type 30, Apple's: a name and a password under a Diffie-Hellman key (rfbproto)."""

from __future__ import annotations

import hashlib
import secrets
import struct
from typing import TYPE_CHECKING

from vmconnect.errors import AuthenticationError
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.security.base import Asks, Login
from vmconnect.vnc.security.diffie_hellman import exchange

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["APPLE_DH"]

_PARAMETERS = struct.Struct(">HH")
_LEAST_BYTES = 16
_MOST_BYTES = 1024
_FIELD_BYTES = 64


def _field(text: str, what: str) -> bytes:
    """Return a text, ended by a NUL and filled with noise."""
    data = text.encode()
    if len(data) >= _FIELD_BYTES or b"\0" in data:
        raise AuthenticationError(f"this server takes {what} of at most {_FIELD_BYTES - 1} bytes")
    return data + b"\0" + secrets.token_bytes(_FIELD_BYTES - 1 - len(data))


def _speak(engine: Engine) -> Reading[None]:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    inbox = engine.inbox
    generator, size = _PARAMETERS.unpack((yield from inbox.read(_PARAMETERS.size)))
    if not _LEAST_BYTES <= size <= _MOST_BYTES:
        raise engine.error(f"a key of {size} bytes")
    modulus = int.from_bytes((yield from inbox.read(size)))
    theirs = int.from_bytes((yield from inbox.read(size)))
    try:
        ours, secret = exchange(generator, modulus, theirs)
    except ValueError as error:
        raise engine.error(str(error)) from error
    plain = _field(engine.credentials.user(), "a user's name")
    plain += _field(engine.credentials.password(), "a password")
    # The hash and the mode are the protocol's.
    key = hashlib.md5(secret.to_bytes(size), usedforsecurity=False).digest()
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305
    engine.send(encryptor.update(plain) + encryptor.finalize() + ours.to_bytes(size))


APPLE_DH = Login(30, "Apple DH", _speak, Asks.USER)
