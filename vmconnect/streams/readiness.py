"""A descriptor to poll for streams that may hold bytes which their socket no longer has."""

from __future__ import annotations

import os
import select

from vmconnect.errors import ResourceError

__all__ = ["Readiness"]


class Readiness:
    """Readable when the descriptor below it is, or when it is marked (epoll(7), eventfd(2))."""

    def __init__(self, descriptor: int):
        self._marked = False
        try:
            self._epoll = select.epoll()
            self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._epoll.register(descriptor, select.EPOLLIN)
            self._epoll.register(self._event, select.EPOLLIN)
        except OSError as error:
            raise ResourceError(f"no descriptor to poll: {error.strerror}") from error

    def mark(self, marked: bool) -> None:
        """Say whether there may be more than the descriptor below tells."""
        if marked != self._marked:
            self._marked = marked
            if marked:
                os.eventfd_write(self._event, 1)
            else:
                os.eventfd_read(self._event)

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._epoll.fileno()

    def close(self) -> None:
        """Close both descriptors that are ours."""
        self._epoll.close()
        os.close(self._event)
