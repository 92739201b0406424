"""The other ends of streams: a socket, a TLS server, a WebSocket server, each with one client."""

from __future__ import annotations

import contextlib
import functools
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Request

from vmconnect.streams import Endpoint, Stream, dial

__all__ = ["FarEnd", "Pipe", "PlainEnd", "TlsEnd", "WebSocketEnd", "connected", "listening"]

SECONDS = 60.0
T = TypeVar("T")
_LINGER_NOT = struct.pack("ii", 1, 0)


class FarEnd(Protocol):
    """What a test can do at the other end."""

    def recv(self, size: int) -> bytes:
        """Return up to ``size`` bytes, none at the end."""

    def sendall(self, data: bytes) -> None:
        """Send all."""

    def finish(self) -> None:
        """Say that nothing more will be sent."""

    def vanish(self) -> None:
        """Be gone, without a word."""

    def close(self) -> None:
        """Clear up."""


class PlainEnd:
    """A socket."""

    def __init__(self, sock: socket.socket):
        sock.settimeout(SECONDS)
        self.sock = sock
        self.recv = sock.recv
        self.sendall = sock.sendall

    def finish(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def vanish(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


class TlsEnd:
    """A TLS server's socket; Python's own is not for two threads at a time."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext):
        sock.settimeout(SECONDS)
        self._tls = context.wrap_socket(sock, server_side=True)
        self._tls.settimeout(0)
        self._lock = threading.Lock()

    def recv(self, size: int) -> bytes:
        return self._when_ready(lambda: self._tls.recv(size))

    def sendall(self, data: bytes) -> None:
        sent = 0
        while sent < len(data):
            part = data[sent : sent + (1 << 14)]
            sent += self._when_ready(functools.partial(self._tls.send, part))

    def finish(self) -> None:
        with self._lock, contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()  # The close_notify goes; the other one is not waited for.

    def vanish(self) -> None:
        self._tls.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._tls.close()

    def _when_ready(self, call: Callable[[], T]) -> T:
        while True:
            try:
                with self._lock:
                    return call()
            except ssl.SSLWantReadError:
                event = select.POLLIN
            except ssl.SSLWantWriteError:
                event = select.POLLOUT
            poller = select.poll()
            poller.register(self._tls, event)
            assert poller.poll(SECONDS * 1000), "the stream stands still"


class WebSocketEnd:
    """A WebSocket server over another far end.

    Frames to the client are made by hand: wsproto would not send all that a server may.
    """

    def __init__(self, under: FarEnd):
        self.under = under
        self._connection = WSConnection(ConnectionType.SERVER)
        self._data = bytearray()
        self._ended = False
        self.request: Request | None = None
        while self.request is None:
            self._pull()

    def recv(self, size: int) -> bytes:
        while not self._data and not self._ended:
            self._pull()
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken

    def sendall(self, data: bytes) -> None:
        self.frame(0x82, data)

    def frame(self, first: int, data: bytes) -> None:
        """Send a frame with that first byte: FIN, the reserved bits and the opcode."""
        if len(data) < 126:
            head = struct.pack(">BB", first, len(data))
        elif len(data) < 1 << 16:
            head = struct.pack(">BBH", first, 126, len(data))
        else:
            head = struct.pack(">BBQ", first, 127, len(data))
        self.under.sendall(head + data)

    def finish(self) -> None:
        self.frame(0x88, struct.pack(">H", 1000))

    def vanish(self) -> None:
        self.under.vanish()

    def close(self) -> None:
        self.under.close()

    def _pull(self) -> None:
        data = self.under.recv(1 << 16)
        if not data:
            self._ended = True
            return
        self._connection.receive_data(data)
        for event in self._connection.events():
            match event:
                case Request():
                    self.request = event
                    offered = event.subprotocols
                    accept = AcceptConnection(subprotocol=offered[0] if offered else None)
                    self.under.sendall(self._connection.send(accept))
                case BytesMessage(data=payload):
                    self._data += payload
                case Ping():
                    self.under.sendall(self._connection.send(event.response()))
                case CloseConnection():
                    self._ended = True


@dataclass
class Pipe:
    """A stream and its other end."""

    stream: Stream
    far: FarEnd


@contextlib.contextmanager
def listening(path: Path | None = None) -> Iterator[socket.socket]:
    """Give a listening socket, at a path or on a port of loopback."""
    with socket.socket(socket.AF_UNIX if path else socket.AF_INET) as listener:
        listener.settimeout(SECONDS)
        listener.bind(str(path) if path else ("127.0.0.1", 0))
        listener.listen()
        yield listener


@contextlib.contextmanager
def connected(
    listener: socket.socket, endpoint: Endpoint, accept: Callable[[socket.socket], FarEnd]
) -> Iterator[Pipe]:
    """Dial, and let ``accept`` make a far end of the listener's side."""
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(lambda: accept(listener.accept()[0]))
        stream = dial(endpoint, SECONDS)
        far = accepted.result(SECONDS)
    try:
        yield Pipe(stream, far)
    finally:
        stream.close()
        far.close()
