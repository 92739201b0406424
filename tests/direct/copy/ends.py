"""Both ends of a copy in this process, and a sender that says what a test wants."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vmconnect.direct.copy.directory import Directory
from vmconnect.direct.copy.ends import named, open_destination, send_sources
from vmconnect.direct.copy.frames import Fault, Kind
from vmconnect.direct.copy.receiver import Named, Receiver
from vmconnect.direct.copy.sender import Sender

__all__ = ["Here", "copied", "receiver_at"]


def receiver_at(
    path: Path, names: Sequence[Named], faults: list[Fault], **options: Any
) -> Receiver:
    """Return a receiver that writes into a directory that is there."""
    root = Directory.open(os.fsencode(path))
    return Receiver(root, os.fsencode(path), names, faults.append, lost=faults.append, **options)


class Here:
    """A sender and a receiver, one frame after the other; ``tap`` sees each, and may raise."""

    def __init__(self, tap: Callable[[int, bytes], object] | None = None):
        self.faults: list[Fault] = []
        self.moved = 0
        self._tap = tap or (lambda _kind, _payload: None)

    def copy(
        self, sources: Sequence[Path | bytes], destination: Path, **options: Any
    ) -> tuple[int, int]:
        paths = [os.fsencode(each) for each in sources]
        root, names, path = open_destination(
            os.fsencode(destination), [named(each) for each in paths]
        )
        receiver = Receiver(
            root,
            path,
            names,
            self.faults.append,
            lost=self.faults.append,
            special=options.get("special", False),
            durable=options.pop("durable", False),
        )

        def put(kind: int, payload: Any = b"") -> Any:
            self._tap(kind, bytes(payload))
            if kind == Kind.DATA:
                self.moved += len(payload) - 8
            return receiver.take(kind, bytes(payload))

        def ask(kind: int, payload: Any) -> tuple[int, memoryview]:
            answer = put(kind, payload)
            assert answer is not None
            return answer[0], memoryview(answer[1])

        try:
            sender = Sender(put, ask, **options)
            send_sources(sender, paths)
            return sender.done()
        finally:
            receiver.close()


def copied(sources: Sequence[Path | bytes], destination: Path, **options: Any) -> list[str]:
    """Copy within this process, and return what went wrong."""
    here = Here()
    here.copy(sources, destination, **options)
    return [f"{os.fsdecode(fault.path)}: {fault.text}" for fault in here.faults]
