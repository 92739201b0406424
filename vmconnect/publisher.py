"""Telling subscribers what happens."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Publisher"]

E = TypeVar("E")

_LOG = logging.getLogger(__name__)


class Publisher(Generic[E]):
    """Tells every subscriber of every event, in order, one after the other; for any thread.

    Whoever publishes tells. If another thread is just telling, that one tells this too, and the
    publisher goes on: nobody waits for a subscriber that he did not call himself, so subscribers
    may do what they like, closing included. What one of them raises is logged.
    """

    def __init__(self, noun: str) -> None:
        self._noun = noun
        self._lock = threading.Lock()
        self._subscribers: list[Callable[[E], object]] = []
        self._pending: deque[E] = deque()
        self._telling = False

    def subscribe(self, subscriber: Callable[[E], object]) -> None:
        """Call ``subscriber`` with every later event."""
        with self._lock:
            self._subscribers.append(subscriber)

    def unsubscribe(self, subscriber: Callable[[E], object]) -> None:
        """Call ``subscriber`` no more; nothing happens if it is none."""
        with self._lock, contextlib.suppress(ValueError):
            self._subscribers.remove(subscriber)

    @property
    def heard(self) -> bool:
        """Whether anybody subscribes."""
        return bool(self._subscribers)

    def publish(self, event: E) -> None:
        """Tell of an event."""
        self.put(event)
        self.tell()

    def put(self, event: E) -> None:
        """Let `tell` tell of an event: what decides on the order need not wait for it."""
        with self._lock:
            self._pending.append(event)

    def tell(self) -> None:
        """Tell of what was put, unless another thread is at it, which then tells it too."""
        with self._lock:
            if self._telling:
                return
            self._telling = True
        while True:
            with self._lock:
                if not self._pending:
                    self._telling = False
                    return
                told = self._pending.popleft()
                subscribers = tuple(self._subscribers)
            for subscriber in subscribers:
                try:
                    subscriber(told)
                except Exception:  # noqa: BLE001 (its mistake is not ours)
                    _LOG.exception("a subscriber of %s failed at %s", self._noun, told)
                except BaseException:
                    self._telling = False
                    raise
