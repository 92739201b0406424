"""The tunnel of RA2: messages in AES-EAX."""

from __future__ import annotations

import struct

from vmconnect.vnc.security.eax import MAC_BYTES, EaxCipher

__all__ = ["EaxTunnel"]

_LENGTH = struct.Struct(">H")
_BUFFER_BYTES = 64 * 1024
# What TigerVNC sends at most in one; it takes no more than that either.
_MOST_SENT_BYTES = 8192


class EaxTunnel:
    """Messages of up to 65,535 bytes both ways; see `vmconnect.vnc.tunnel.Tunnel`."""

    established = True
    encrypts = True

    def __init__(self, sending: EaxCipher, receiving: EaxCipher):
        self._sending = sending
        self._receiving = receiving
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        # What came and was not opened yet: less than a message, after all that was read.
        self._sealed = bytearray()
        self._plain = memoryview(b"")

    def next_buffer(self) -> memoryview:
        """Return where the next bytes from the server may be written, for `feed`."""
        return self._buffer

    def feed(self, data: memoryview) -> None:
        """Take bytes from the server."""
        self._sealed += data

    def read_into(self, target: memoryview) -> int:
        """Write plain bytes to ``target``; return how many, 0 when more must be fed first.

        Raises RfbError for a message that is not the server's.
        """
        while not self._plain:
            message = self._next()
            if message is None:
                return 0
            self._plain = memoryview(message)
        count = min(len(target), len(self._plain))
        target[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count

    def seal(self, data: bytes) -> bytes:
        """Return ``data`` as messages."""
        pieces = (data[at : at + _MOST_SENT_BYTES] for at in range(0, len(data), _MOST_SENT_BYTES))
        return b"".join(map(self._sending.seal, pieces))

    def _next(self) -> bytes | None:
        """Open the next message; None while it is not whole."""
        if len(self._sealed) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._sealed)
        end = _LENGTH.size + length
        if len(self._sealed) < end + MAC_BYTES:
            return None
        with memoryview(self._sealed) as view:
            message = self._receiving.open(
                bytes(view[_LENGTH.size : end]), bytes(view[end : end + MAC_BYTES])
            )
        del self._sealed[: end + MAC_BYTES]
        return message
