"""AES in EAX mode, as RA2 frames what it encrypts (rfbproto, "RSA-AES Security Type").

EAX (Bellare, Rogaway and Wagner, 2004) is CTR for secrecy with CMAC for authenticity; the
library has both, and not their sum.
"""

from __future__ import annotations

import hmac
import struct

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

from vmconnect.errors import RfbError

__all__ = ["MAC_BYTES", "EaxCipher"]

MAC_BYTES = 16
_BLOCK_BYTES = 16
_LENGTH = struct.Struct(">H")


class EaxCipher:
    """One direction of a connection: a key, and the number of the next message."""

    def __init__(self, key: bytes):
        self._algorithm = algorithms.AES(key)
        # CMAC over a block that says what is hashed; a copy costs less than to begin anew.
        self._prefixes = tuple(self._prefix(number) for number in range(3))
        self._count = 0

    def _prefix(self, number: int) -> CMAC:
        cmac = CMAC(self._algorithm)
        cmac.update(number.to_bytes(_BLOCK_BYTES))
        return cmac

    def _mac(self, number: int, data: bytes) -> bytes:
        cmac = self._prefixes[number].copy()
        cmac.update(data)
        return cmac.finalize()

    def _begin(self) -> bytes:
        """Return the hash of the next message's nonce, which is its number."""
        nonce = self._count.to_bytes(_BLOCK_BYTES, "little")
        self._count += 1
        return self._mac(0, nonce)

    def _tag(self, start: bytes, header: bytes, encrypted: bytes) -> bytes:
        parts = (start, self._mac(1, header), self._mac(2, encrypted))
        number = 0
        for part in parts:
            number ^= int.from_bytes(part)
        return number.to_bytes(MAC_BYTES)

    def seal(self, data: bytes) -> bytes:
        """Return at most 65,535 bytes as one message: length, secret, MAC."""
        header = _LENGTH.pack(len(data))
        start = self._begin()
        encryptor = Cipher(self._algorithm, modes.CTR(start)).encryptor()
        encrypted = encryptor.update(data) + encryptor.finalize()
        return header + encrypted + self._tag(start, header, encrypted)

    def open(self, encrypted: bytes, mac: bytes) -> bytes:
        """Return what a message says; raises RfbError if it is not the far end's."""
        start = self._begin()
        tag = self._tag(start, _LENGTH.pack(len(encrypted)), encrypted)
        if not hmac.compare_digest(tag, mac):
            raise RfbError("a message of the VNC server is not as it was sent")
        decryptor = Cipher(self._algorithm, modes.CTR(start)).decryptor()
        return decryptor.update(encrypted) + decryptor.finalize()
