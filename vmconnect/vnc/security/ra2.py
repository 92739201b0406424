"""Security types RA2: RSA keys, then AES (rfbproto, "RSA-AES Security Type" and its kin).

The server proves its RSA key, which the policy checks. With RA2 and RA2-256 all that follows is
encrypted; with the "ne" kinds, only the password is.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import secrets
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmconnect.errors import AuthenticationError, TrustError
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.policy import ServerKey
from vmconnect.vnc.security.base import Asks, Login

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from vmconnect.vnc.engine import Engine
    from vmconnect.vnc.security.eax import EaxCipher

__all__ = ["RA2", "RA2NE", "RA2NE_256", "RA2_256"]

_BITS = struct.Struct(">I")
_LENGTH = struct.Struct(">H")
# What TigerVNC takes.
_LEAST_KEY_BITS = 1024
_MOST_KEY_BITS = 8192
_OUR_KEY_BITS = 2048
_EXPONENT = 65537
_MOST_FIELD_BYTES = 255


@dataclass(frozen=True, slots=True)
class _Kind:
    """A key's size in bytes, and the hash that goes with it."""

    key_bytes: int
    digest: Callable[[bytes], bytes]


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


_AES_128 = _Kind(16, _sha1)
_AES_256 = _Kind(32, _sha256)


def _packed(bits: int, modulus: int, exponent: int) -> bytes:
    size = (bits + 7) // 8
    return _BITS.pack(bits) + modulus.to_bytes(size) + exponent.to_bytes(size)


def _server_key(engine: Engine) -> Reading[tuple[bytes, int, int, int]]:
    """Read the server's key: as it came, its bits, modulus and exponent."""
    (bits,) = _BITS.unpack((yield from engine.inbox.read(_BITS.size)))
    if not _LEAST_KEY_BITS <= bits <= _MOST_KEY_BITS:
        raise engine.error(f"an RSA key of {bits} bits")
    size = (bits + 7) // 8
    modulus = int.from_bytes((yield from engine.inbox.read(size)))
    exponent = int.from_bytes((yield from engine.inbox.read(size)))
    return _packed(bits, modulus, exponent), bits, modulus, exponent


def _check(engine: Engine, blob: bytes) -> None:
    check = engine.policy.check_key
    if check is None:
        raise TrustError(
            "nobody can tell whether the VNC server's RSA key is its own",
            hint="give the console a way to check it",
        )
    check(ServerKey("rsa", blob))


def _random(engine: Engine, key: RSAPrivateKey, kind: _Kind) -> Reading[bytes]:
    """Read the server's random bytes."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

    (length,) = _LENGTH.unpack((yield from engine.inbox.read(_LENGTH.size)))
    if length != _OUR_KEY_BITS // 8:
        raise engine.error(f"{length} bytes under our key of {_OUR_KEY_BITS} bits")
    secret = bytes((yield from engine.inbox.read(length)))
    try:
        data = key.decrypt(secret, PKCS1v15())
    except ValueError as error:
        raise engine.error("what our key does not open") from error
    if len(data) != kind.key_bytes:
        raise engine.error(f"{len(data)} random bytes")
    return data


def _message(engine: Engine, cipher: EaxCipher, size: int) -> Reading[bytes]:
    """Read one encrypted message of a known size."""
    from vmconnect.vnc.security.eax import MAC_BYTES

    (length,) = _LENGTH.unpack((yield from engine.inbox.read(_LENGTH.size)))
    if length != size:
        raise engine.error(f"a message of {length} bytes, not {size}")
    data = bytes((yield from engine.inbox.read(length)))
    mac = bytes((yield from engine.inbox.read(MAC_BYTES)))
    return cipher.open(data, mac)


def _text(text: str, what: str) -> bytes:
    data = text.encode()
    if len(data) > _MOST_FIELD_BYTES:
        raise AuthenticationError(f"RA2 takes {what} of at most {_MOST_FIELD_BYTES} bytes")
    return bytes((len(data),)) + data


def _keys(engine: Engine, kind: _Kind) -> Reading[tuple[EaxCipher, EaxCipher]]:
    """Exchange keys and prove them; return the ciphers of what is sent and what comes."""
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

    from vmconnect.vnc.security.eax import EaxCipher

    blob, _, modulus, exponent = yield from _server_key(engine)
    ours = secrets.token_bytes(kind.key_bytes)
    try:
        theirs = rsa.RSAPublicNumbers(exponent, modulus).public_key()
        # Some numbers that cannot be a key are only found out when it is used.
        secret = theirs.encrypt(ours, PKCS1v15())
    except ValueError as error:
        raise engine.error("numbers that are no RSA key") from error
    _check(engine, blob)
    key = rsa.generate_private_key(_EXPONENT, _OUR_KEY_BITS)
    our_blob = _packed(_OUR_KEY_BITS, key.public_key().public_numbers().n, _EXPONENT)
    engine.send(our_blob + _LENGTH.pack(len(secret)) + secret)
    random = yield from _random(engine, key, kind)
    sending = EaxCipher(kind.digest(random + ours)[: kind.key_bytes])
    receiving = EaxCipher(kind.digest(ours + random)[: kind.key_bytes])
    engine.send(sending.seal(kind.digest(our_blob + blob)))
    expected = kind.digest(blob + our_blob)
    proof = yield from _message(engine, receiving, len(expected))
    if not hmac.compare_digest(proof, expected):
        raise TrustError(
            "the VNC server has seen other keys than were sent",
            hint="somebody may be in between",
        )
    return sending, receiving


def _speak(kind: _Kind, whole: bool, engine: Engine) -> Reading[None]:
    from vmconnect.vnc.security.eax_tunnel import EaxTunnel

    sending, receiving = yield from _keys(engine, kind)
    (wanted,) = yield from _message(engine, receiving, 1)
    if wanted not in {1, 2}:
        raise engine.error(f"kind {wanted} of credentials")
    user = _text(engine.credentials.user() if wanted == 1 else "", "a user's name")
    password = _text(engine.credentials.password(), "a password")
    engine.send(sending.seal(user + password))
    engine.proved = True
    if whole:
        engine.enter_tunnel(EaxTunnel(sending, receiving))


def _login(number: int, name: str, kind: _Kind, *, whole: bool) -> Login:
    speak = functools.partial(_speak, kind, whole)
    return Login(number, name, speak, Asks.DEPENDS, encrypts=whole, proves=True)


RA2 = _login(5, "RA2", _AES_128, whole=True)
RA2NE = _login(6, "RA2ne", _AES_128, whole=False)
RA2_256 = _login(129, "RA2-256", _AES_256, whole=True)
RA2NE_256 = _login(130, "RA2ne-256", _AES_256, whole=False)
