"""WebSocket over any stream (RFC 6455), by wsproto: RFB as websockify and QEMU serve it.

wsproto does no I/O and hands on a frame's bytes as they come, so neither a frame's length nor a
message's makes it hold more than was read at once. (websockify's own client class holds whole
frames, of whatever length they claim, and opens its socket itself, with no deadline; it also
imports numpy.)
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from h11 import LocalProtocolError  # What wsproto lets through of it.
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError as WsprotoError

from vmconnect.errors import (
    ConnectError,
    ConnectionLostError,
    TargetError,
    VmconnectError,
    WebSocketError,
)

if TYPE_CHECKING:
    from vmconnect.streams.overlay import WebSocket

__all__ = ["WebSocketLayer"]

# RFC 6455, section 7.4.1: done, going away, no code given.
_PROPER_ENDS = frozenset({1000, 1001, 1005})
_REASON_CHARACTERS = 200


class WebSocketLayer:
    """The client's side of a WebSocket whose messages are one stream of bytes.

    See `vmconnect.streams.layered.Layer`. A text message is an error, and so is all that the RFC
    forbids a server: a masked frame, a long or broken control frame, a reserved bit. There is one
    close for both directions: a server that gets ours may send the rest of what it has, and most
    send nothing more.
    """

    def __init__(self, endpoint: WebSocket):
        self.finished = False
        self._endpoint = endpoint
        self._established = False
        self._plain: deque[memoryview] = deque()
        # What went wrong after what is in `_plain`.
        self._failure: VmconnectError | None = None
        # wsproto's own bound on the server's headers is 16 KiB.
        self._connection = WSConnection(ConnectionType.CLIENT)
        request = Request(
            host=endpoint.host,
            target=endpoint.resource,
            subprotocols=list(endpoint.subprotocols),
            extra_headers=[(name.encode(), value.encode()) for name, value in endpoint.headers],
        )
        try:
            self._owed = bytearray(self._connection.send(request))
        except (ValueError, LocalProtocolError) as error:
            raise TargetError(f"no request can be made to {endpoint}: {error}") from error

    def handshake(self) -> bool:
        """Tell whether the server has accepted us."""
        return self._established

    def feed(self, data: memoryview) -> None:
        """Take bytes from the wire; raises ConnectError while shaking hands."""
        if self.finished or self._failure:
            return  # The server's close is its last word.
        try:
            try:
                self._connection.receive_data(bytes(data))
                for event in self._connection.events():
                    self._take(event)
            except (WsprotoError, ValueError) as error:  # ValueError: headers that are no ASCII
                raise self._broken(str(error)) from error
        except VmconnectError as error:
            if not self._established:
                raise
            self._failure = error

    def feed_end(self) -> None:
        """Take the wire's end, which should follow the server's close."""
        if not self._established:
            raise ConnectError(
                f"{self._endpoint} hung up instead of answering", hint="is it a WebSocket server?"
            )
        if not self.finished:
            raise ConnectionLostError(f"the connection to {self._endpoint} broke off")

    def read_into(self, target: memoryview) -> int:
        """Write plain bytes to ``target``; return how many, 0 when more must be fed first.

        Raises WebSocketError, and ConnectionLostError if the server has closed with an error.
        """
        if not self._plain:
            if self._failure is not None:
                raise self._failure
            return 0
        first = self._plain[0]
        count = min(len(first), len(target))
        target[:count] = first[:count]
        if count == len(first):
            self._plain.popleft()
        else:
            self._plain[0] = first[count:]
        return count

    def seal(self, data: memoryview) -> bytes:
        """Return ``data`` as a message."""
        return self._send(BytesMessage(data=bytes(data)))

    def owed(self) -> bytes:
        """Return what the protocol itself has to send, and forget it."""
        owed = bytes(self._owed)
        self._owed.clear()
        return owed

    def finish(self) -> bytes:
        """Return the close frame, unless one went already or is of no use."""
        if self._connection.state is not ConnectionState.OPEN:
            return b""
        return self._send(CloseConnection(code=1000))

    def _take(self, event: Event) -> None:
        match event:
            case AcceptConnection():
                self._established = True
            case RejectConnection(status_code=status):
                raise ConnectError(
                    f"{self._endpoint} refuses the connection: status {status}",
                    hint="are the path and the port a WebSocket's?",
                )
            case BytesMessage(data=data):
                if data:
                    self._plain.append(memoryview(data))
            case TextMessage():
                raise self._broken("text, where only bytes belong")
            case Ping():
                if self._connection.state is ConnectionState.OPEN:
                    self._owed += self._send(event.response())
            case CloseConnection(code=code, reason=reason):
                self._take_close(event, code, reason or "")

    def _take_close(self, event: CloseConnection, code: int, reason: str) -> None:
        state = self._connection.state
        if state in {ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING}:
            raise self._broken(reason)  # It is wsproto that closes: a frame was bad.
        if state is ConnectionState.REMOTE_CLOSING:
            self._owed += self._send(event.response())
        self.finished = code in _PROPER_ENDS
        if not self.finished:
            shown = "".join(c if c.isprintable() else "?" for c in reason[:_REASON_CHARACTERS])
            raise ConnectionLostError(
                f"{self._endpoint} ended the connection: {shown or 'it gives no reason'} ({code})"
            )

    def _send(self, event: Event) -> bytes:
        try:
            return self._connection.send(event)
        except WsprotoError as error:
            raise ConnectionLostError(
                f"the connection to {self._endpoint} is closing: {error}"
            ) from error

    def _broken(self, what: str) -> ConnectError | WebSocketError:
        if not self._established:
            return ConnectError(f"{self._endpoint} does not speak WebSocket: {what}")
        return WebSocketError(f"{self._endpoint} breaks the WebSocket protocol: {what}")
