"""The event loop's core: descriptors and who is called for them."""

from __future__ import annotations

import select
from collections.abc import Callable
from socket import socket
from typing import Final

__all__ = ["EDGE", "ENDED", "HUNG_UP", "READABLE", "WRITABLE", "Handler", "Poller"]

READABLE: Final = select.EPOLLIN
WRITABLE: Final = select.EPOLLOUT
ENDED: Final = select.EPOLLRDHUP  # the far end will send no more
HUNG_UP: Final = select.EPOLLHUP | select.EPOLLERR  # nor receive
EDGE: Final = select.EPOLLET

Handler = Callable[[int], None]
"""Called with the events that came, as a mask."""

_MAX_EVENTS: Final = 256


class Poller:
    """Waits for many descriptors and calls their handlers."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._closing: list[socket] = []

    def add(self, fd: int, events: int, handler: Handler) -> None:
        """Call ``handler`` when any of ``events`` happens on ``fd``."""
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def change(self, fd: int, events: int) -> None:
        """Wait for other events on ``fd``; what is true already counts as new."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Wait for ``fd`` no more."""
        del self._handlers[fd]
        self._epoll.unregister(fd)

    def retire(self, sock: socket) -> None:
        """Wait for ``sock`` no more, and close it before the next wait.

        Closed at once, its number could be given to a new socket, which would then be taken for
        the old one by events that are already read.
        """
        if self._handlers.pop(sock.fileno(), None) is not None:
            self._epoll.unregister(sock.fileno())
        self._closing.append(sock)

    def poll(self, seconds: float) -> None:
        """Wait at most ``seconds`` (-1 for ever) and call the handlers of what happened."""
        self._bury()
        for fd, events in self._epoll.poll(seconds, _MAX_EVENTS):
            handler = self._handlers.get(fd)
            if handler is not None:
                handler(events)

    def close(self) -> None:
        """Close the poller and what was retired."""
        self._handlers.clear()
        self._bury()
        self._epoll.close()

    def _bury(self) -> None:
        for sock in self._closing:
            sock.close()
        self._closing.clear()
