"""Security type VncAuth: a DES challenge (RFC 6143, section 7.2.2).

Weak: eight characters, and whoever listens can try passwords at leisure. Servers have it, so we
do; it protects nothing on a network that others hear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmconnect.errors import AuthenticationError
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.security.base import Asks, Login

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["VNC_AUTH", "response", "reversed_bits", "speak"]

_CHALLENGE_BYTES = 16
_KEY_BYTES = 8


def response(challenge: bytes, password: str) -> bytes:
    """Return the 16-byte challenge, encrypted with the password.

    The key is the password's first 8 bytes, each with its bits reversed: RFC 6143 does not say
    so, every implementation does. Raises AuthenticationError for characters past Latin-1.
    """
    # The import takes 15 ms, and most consoles have no password.
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
    from cryptography.hazmat.primitives.ciphers import Cipher, modes

    # A UnicodeEncodeError would have the password in it.
    if any(ord(char) > 0xFF for char in password):
        raise AuthenticationError("a VNC password has only Latin-1 characters")
    key = password.encode("latin-1")[:_KEY_BYTES].ljust(_KEY_BYTES, b"\0")
    # DES is triple DES with one key thrice; the mode is what the protocol has.
    cipher = Cipher(TripleDES(reversed_bits(key) * 3), modes.ECB())  # noqa: S305 (the protocol's)
    encryptor = cipher.encryptor()
    return encryptor.update(challenge) + encryptor.finalize()


def reversed_bits(key: bytes) -> bytes:
    """Return a DES key as VNC has it: each byte with its lowest bit first."""
    return bytes(int(f"{byte:08b}"[::-1], 2) for byte in key)


def speak(engine: Engine) -> Reading[None]:
    """Answer the challenge."""
    challenge = yield from engine.inbox.read(_CHALLENGE_BYTES)
    engine.send(response(bytes(challenge), engine.credentials.password()))


VNC_AUTH = Login(2, "VncAuth", speak, Asks.PASSWORD)
