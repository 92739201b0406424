"""Security type 113, MSLogonII: UltraVNC's login with a Windows account (rfbproto).

Its key has 64 bits: who listens and cares will have the password. It is taken on private
connections alone.
"""

from __future__ import annotations

import secrets
import struct
from typing import TYPE_CHECKING

from vmconnect.errors import AuthenticationError
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.security.base import Asks, Login
from vmconnect.vnc.security.diffie_hellman import exchange
from vmconnect.vnc.security.vncauth import reversed_bits

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["MSLOGON_II"]

_PARAMETERS = struct.Struct(">QQQ")
_KEY_BYTES = 8
_USER_BYTES = 256
_PASSWORD_BYTES = 64


def _encrypted(key: bytes, text: str, size: int) -> bytes:
    """Return a text, ended by a NUL, filled with noise and encrypted."""
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
    from cryptography.hazmat.primitives.ciphers import Cipher, modes

    data = text.encode()
    if len(data) >= size or b"\0" in data:
        raise AuthenticationError(f"this server takes {size - 1} bytes at most: {len(data)}")
    data += b"\0" + secrets.token_bytes(size - 1 - len(data))
    # DES is triple DES with one key thrice; the initial vector is the key, as it was shared.
    encryptor = Cipher(TripleDES(reversed_bits(key) * 3), modes.CBC(key)).encryptor()
    return encryptor.update(data) + encryptor.finalize()


def _speak(engine: Engine) -> Reading[None]:
    generator, modulus, theirs = _PARAMETERS.unpack(
        (yield from engine.inbox.read(_PARAMETERS.size))
    )
    try:
        ours, secret = exchange(generator, modulus, theirs)
    except ValueError as error:
        raise engine.error(str(error)) from error
    key = secret.to_bytes(_KEY_BYTES)
    user = _encrypted(key, engine.credentials.user(), _USER_BYTES)
    password = _encrypted(key, engine.credentials.password(), _PASSWORD_BYTES)
    engine.send(ours.to_bytes(_KEY_BYTES) + user + password)


MSLOGON_II = Login(113, "MSLogonII", _speak, Asks.USER, hides=False)
