"""SOCKS, the server's side, without I/O: bytes in, replies and at last a request out.

Version 4 (the protocol as NEC published it), 4a (names instead of addresses) and 5 (RFC 1928),
with no login: whoever can connect is let in, as at any forwarded port. Only CONNECT is served.
"""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass

from vmconnect.errors import ProtocolError
from vmconnect.streams import Tcp

__all__ = ["SocksNegotiation", "SocksOutcome"]

_TEXT_BYTES = 255
"""The most that a user's name or a host's may have."""


class SocksOutcome(enum.Enum):
    """How a request ended, as version 5 numbers it (RFC 1928, section 6)."""

    GRANTED = 0
    FAILED = 1
    NOT_PERMITTED = 2
    REFUSED = 5
    NO_SUCH_COMMAND = 7
    NO_SUCH_ADDRESS = 8


@dataclass(slots=True)
class SocksNegotiation:
    """What one client says until it is connected.

    ``feed`` takes what it sends; then ``replies`` is what is to be sent to it, ``request`` what it
    wants to be connected to once it has said so, and ``early`` what it has sent after that.
    """

    request: Tcp | None = None
    _buffer: bytes = b""
    _replies: bytes = b""
    _version: int = 0
    _greeted: bool = False

    def feed(self, data: bytes) -> None:
        """Take bytes from the client; none of it is taken after the request.

        Raises ProtocolError for what is no SOCKS, or is not served; the replies then say so to
        the client.
        """
        self._buffer += data
        while self.request is None and self._step():
            pass

    @property
    def replies(self) -> bytes:
        """What is to be sent to the client; it is given once."""
        replies, self._replies = self._replies, b""
        return replies

    @property
    def early(self) -> bytes:
        """What the client has sent after its request; it is given once."""
        early, self._buffer = self._buffer, b""
        return early

    def conclude(self, outcome: SocksOutcome) -> bytes:
        """Return what tells the client how its request ended."""
        if self._version == 4:
            # A code, and the port and address that are of use to BIND alone.
            code = 0x5A if outcome is SocksOutcome.GRANTED else 0x5B
            return bytes((0, code)) + bytes(6)
        return bytes((5, outcome.value, 0, 1)) + bytes(6)

    def _step(self) -> bool:
        """Read one message; return False when more must come first."""
        if not self._buffer:
            return False
        version = self._buffer[0]
        if not self._version:
            if version not in {4, 5}:
                raise ProtocolError("the client does not speak SOCKS")
            self._version = version
        elif version != self._version:
            raise ProtocolError("the client changes its version of SOCKS")
        if self._version == 4:
            return self._request_4()
        return self._request_5() if self._greeted else self._greeting_5()

    def _request_4(self) -> bool:
        """Read ``4 COMMAND PORT(2) ADDRESS(4) USER 0``, and with 4a ``NAME 0`` after it."""
        if len(self._buffer) < 8:
            return False
        command, address = self._buffer[1], self._buffer[4:8]
        end = self._zero(8)
        if end is None:
            return False
        host = str(ipaddress.IPv4Address(address))
        if address[:3] == b"\0\0\0" and address[3]:
            start, name_end = end + 1, self._zero(end + 1)
            if name_end is None:
                return False
            host = self._name(self._buffer[start:name_end])
            end = name_end
        return self._wanted(command, host, self._buffer[2:4], end + 1)

    def _greeting_5(self) -> bool:
        """Read ``5 COUNT METHODS(COUNT)`` and choose: no login, or nothing."""
        if len(self._buffer) < 2 or len(self._buffer) < 2 + self._buffer[1]:
            return False
        end = 2 + self._buffer[1]
        methods, self._buffer = self._buffer[2:end], self._buffer[end:]
        if 0 not in methods:
            self._replies += b"\5\xff"
            raise ProtocolError("the SOCKS client wants to log in, and there is no login")
        self._replies += b"\5\0"
        self._greeted = True
        return True

    def _request_5(self) -> bool:
        """Read ``5 COMMAND 0 KIND ADDRESS PORT(2)``."""
        if len(self._buffer) < 5:
            return False
        command, kind, size = self._buffer[1], self._buffer[3], self._buffer[4]
        start, end = 4, {1: 8, 3: 5 + size, 4: 20}.get(kind, 0)
        if not end:
            self._replies += self.conclude(SocksOutcome.NO_SUCH_ADDRESS)
            raise ProtocolError("the SOCKS client names its target in an unknown way")
        if len(self._buffer) < end + 2:
            return False
        address = self._buffer[start:end]
        host = self._name(address[1:]) if kind == 3 else str(ipaddress.ip_address(address))
        return self._wanted(command, host, self._buffer[end : end + 2], end + 2)

    def _wanted(self, command: int, host: str, port: bytes, end: int) -> bool:
        if command != 1:
            self._replies += self.conclude(SocksOutcome.NO_SUCH_COMMAND)
            raise ProtocolError("the SOCKS client wants more than to connect")
        self._buffer = self._buffer[end:]
        self.request = Tcp(host, int.from_bytes(port))
        return True

    def _zero(self, start: int) -> int | None:
        """Return where the text from ``start`` ends; None if its end has not come."""
        end = self._buffer.find(b"\0", start, start + _TEXT_BYTES + 1)
        if end < 0 and len(self._buffer) > start + _TEXT_BYTES:
            self._replies += self.conclude(SocksOutcome.FAILED)
            raise ProtocolError("the SOCKS client's name has no end")
        return None if end < 0 else end

    def _name(self, name: bytes) -> str:
        try:
            host = name.decode("ascii")
        except UnicodeDecodeError:
            host = ""
        if not host or not host.isprintable() or set(host) & set(" /\\"):
            self._replies += self.conclude(SocksOutcome.FAILED)
            raise ProtocolError("the SOCKS client names no host")
        return host
