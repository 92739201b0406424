"""Questions that come up in other threads, asked by the one that has the terminal.

So Ctrl-C reaches who asks, and the terminal is as it was.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from vmconnect.cli.screen import Screen
from vmconnect.errors import ClosedError

__all__ = ["Questions"]

T = TypeVar("T")


class Questions:
    """Those that wait to be asked."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._waiting: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = (
            queue.SimpleQueue()
        )

    def put(self, question: Callable[[], T]) -> T:
        """Have ``question`` called by who has the terminal, and return what it returns."""
        answer: Future[T] = Future()
        self._waiting.put((question, answer))
        return answer.result()

    def ask(self) -> None:
        """Ask those that wait; for the one thread that has the terminal."""
        while not self._waiting.empty():
            question, answer = self._waiting.get()
            try:
                with self._screen.hidden():
                    answer.set_result(question())
            except KeyboardInterrupt:
                answer.set_exception(ClosedError("interrupted"))
                raise
            except Exception as error:  # noqa: BLE001 (the caller's to raise)
                answer.set_exception(error)
