"""A receiver in a guest that breaks the protocol, played at the other end of a socket."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from vmconnect.direct.copy.exchange import tree_to_far
from vmconnect.direct.copy.frames import HELD, RESUME_BYTES, FrameError, Kind
from vmconnect.direct.copy.pipe import Pipe
from vmconnect.direct.copy.process import FarEnd
from vmconnect.direct.copy.reader import FrameReader
from vmconnect.direct.copy.sender import Sender
from vmconnect.direct.copy.trees import LocalTree
from vmconnect.errors import ConnectionLostError


class PlayedEnd:
    """What a copy uses of a `FarEnd`."""

    def __init__(self, wire: socket.socket):
        self.pipe = Pipe(
            FrameReader(wire.recv_into).take, lambda *buffers: wire.sendall(b"".join(buffers))
        )

    def ended(self) -> ConnectionLostError:
        return ConnectionLostError("it has gone")


class Calm:
    """One who looks on, and says nothing."""

    def moved(self, *_: object) -> None: ...
    def total(self, *_: object) -> None: ...
    def failed_there(self, *_: object) -> None: ...
    def failed_here(self, *_: object) -> None: ...
    def check(self) -> None: ...


@contextlib.contextmanager
def receiver(script: Callable[[Pipe], None]) -> Iterator[FarEnd]:
    """Give a far end whose receiver is ``script``."""
    ours, theirs = socket.socketpair()

    def run() -> None:
        with contextlib.suppress(EOFError, ConnectionError):
            script(
                Pipe(
                    FrameReader(theirs.recv_into).take,
                    lambda *buffers: theirs.sendall(b"".join(buffers)),
                )
            )

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield cast("FarEnd", PlayedEnd(ours))
    finally:
        ours.shutdown(socket.SHUT_RDWR)
        thread.join()
        ours.close()
        theirs.close()


@pytest.mark.parametrize("answers", [2, 1000])
def test_answers_that_were_not_asked_for_end_the_copy(tmp_path: Path, answers: int) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(RESUME_BYTES)

    def script(pipe: Pipe) -> None:
        for _ in range(answers):
            pipe.put(Kind.HELD, HELD.pack(0, 0))
        pipe.flush()
        while True:
            pipe.take()

    with receiver(script) as far, pytest.raises(FrameError, match="not asked for"):
        tree_to_far(LocalTree(), [os.fsencode(source)], far, Sender, Calm())
