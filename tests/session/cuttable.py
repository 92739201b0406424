"""A link that is cut, or goes silent: what lies between a viewer and a server somewhere else."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Link", "link"]

_PIECE = 1 << 16


class Link:
    """Forwards connections to a TCP port of ours to a UNIX socket, until it is told not to.

    What is on its way when it is cut is lost, as in a network.
    """

    def __init__(self, server: Path):
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._silent = threading.Event()
        self._dead = False
        self._wake, self._waker = socket.socketpair()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="link")
        self._thread.start()

    @property
    def target(self) -> str:
        return f"vnc://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        return len(self._pairs)

    def cut(self) -> None:
        """Drop every connection, with what is on its way; new ones are welcome."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for each in pair:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        self._poke()

    def freeze(self) -> None:
        """Take all that is sent, and let nothing through, without a word; also new connections."""
        self._silent.set()
        self._poke()

    def thaw(self) -> None:
        """Be a link again; what was sent meanwhile is lost, and so are the old connections."""
        self._silent.clear()
        self.cut()

    def break_(self) -> None:
        """Drop every connection, and take no new one."""
        self._dead = True
        self.cut()

    def mend(self) -> None:
        self._dead = False

    def close(self) -> None:
        self._over = True
        self._poke()
        self._thread.join()

    def _poke(self) -> None:
        self._waker.send(b"x")

    def _run(self) -> None:
        """Forward, one piece at a time."""
        sockets: dict[socket.socket, socket.socket] = {}
        with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
            for each in (self._listener, self._wake, self._waker):
                stack.enter_context(each)
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)

            def drop(one: socket.socket) -> None:
                other = sockets.pop(one)
                del sockets[other]
                for each in (one, other):
                    selector.unregister(each)
                    each.close()

            while not self._over:
                for key, _ in selector.select():
                    ready = key.fileobj
                    assert isinstance(ready, socket.socket)
                    if ready is self._wake:
                        ready.recv(_PIECE)
                    elif ready is self._listener:
                        pair = self._accept()
                        for one, other in (pair, pair[::-1]) if pair else ():
                            sockets[one] = other
                            selector.register(one, selectors.EVENT_READ)
                    elif ready in sockets and not self._forward(ready, sockets[ready]):
                        drop(ready)
            for each in list(sockets):
                if each in sockets:
                    drop(each)

    def _accept(self) -> tuple[socket.socket, socket.socket] | None:
        ours, _ = self._listener.accept()
        theirs = socket.socket(socket.AF_UNIX)
        try:
            if self._dead:
                raise OSError("dead")
            theirs.connect(str(self._server))
        except OSError:
            ours.close()
            theirs.close()
            return None
        with self._lock:
            self._pairs.append((ours, theirs))
        return ours, theirs

    def _forward(self, one: socket.socket, other: socket.socket) -> bool:
        try:
            data = one.recv(_PIECE)
            if data and not self._silent.is_set():
                other.sendall(data)
        except OSError:
            return False
        return bool(data)


@contextlib.contextmanager
def link(server: Path) -> Iterator[Link]:
    """Give a link to the server at a UNIX socket."""
    made = Link(server)
    try:
        yield made
    finally:
        made.close()
