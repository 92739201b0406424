"""The layer of a SASL mechanism: messages that Cyrus SASL encrypts and decrypts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmconnect.vnc.security.cyrus import CyrusClient

__all__ = ["SaslTunnel"]

_BUFFER_BYTES = 64 * 1024

# What rfbproto tells servers to ask for at least.
_LEAST_STRENGTH = 56


class SaslTunnel:
    """Messages of up to 64 KiB both ways; see `vmconnect.vnc.tunnel.Tunnel`.

    ``mechanism`` has made the login, and has a layer.
    """

    established = True

    def __init__(self, mechanism: CyrusClient):
        self.encrypts = mechanism.strength >= _LEAST_STRENGTH
        self._mechanism = mechanism
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._sealed = b""
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
        if not self._plain and self._sealed:
            # The library keeps what is not yet a message.
            sealed, self._sealed = self._sealed, b""
            self._plain = memoryview(self._mechanism.decode(sealed))
        count = min(len(target), len(self._plain))
        target[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count

    def seal(self, data: bytes) -> bytes:
        """Return ``data`` as messages."""
        return self._mechanism.encode(data)
