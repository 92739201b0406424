"""Questions that come up in other threads, asked by the one that has the terminal.

So Ctrl-C reaches who asks, and the terminal is as it was.
"""

from __future__ import annotations

import contextlib
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
        self._closed = False

    def put(self, question: Callable[[], T]) -> T:
        """Have ``question`` called by who has the terminal, and return what it returns.

        Raises what it raises, ClosedError if there is nobody to ask any more.
        """
        answer: Future[T] = Future()
        self._waiting.put((question, answer))
        if self._closed:
            self.close()
        return answer.result()

    def ask(self) -> None:
        """Ask those that wait; for the one thread that has the terminal.

        Ctrl-C is raised, and ends all questions.
        """
        while (waiting := self._take()) is not None:
            question, answer = waiting
            try:
                with self._screen.hidden():
                    answer.set_result(question())
            except KeyboardInterrupt:
                answer.set_exception(ClosedError("interrupted"))
                self.close()
                raise
            except Exception as error:  # noqa: BLE001 (the caller's to raise)
                answer.set_exception(error)

    def close(self) -> None:
        """Let nobody wait for an answer any more."""
        self._closed = True
        while (waiting := self._take()) is not None:
            waiting[1].set_exception(ClosedError("interrupted"))

    def _take(self) -> tuple[Callable[[], Any], Future[Any]] | None:
        with contextlib.suppress(queue.Empty):
            return self._waiting.get_nowait()
        return None
