"""What a recording consists of."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

from vmconnect.errors import VmconnectError
from vmconnect.progress import Progress
from vmconnect.replay.replay import Replay
from vmconnect.vnc.encodings import ENCODINGS
from vmconnect.vnc.events import Connected, Resized, UpdateDone

__all__ = ["Summary", "summarize"]


@dataclass(frozen=True, slots=True)
class Summary:
    """How long a recording is, and what was sent in it.

    ``bytes`` are the server's, after its login. ``rectangles`` counts by encoding, the commonest
    first, ``sizes`` are those of the screen that something was drawn in, in their order; ``name``
    is what the server calls the desktop at the end. ``trouble`` is why it ends there, if it is
    not whole.
    """

    seconds: float
    bytes: int
    updates: int
    rectangles: dict[str, int]
    sizes: tuple[tuple[int, int], ...]
    name: str
    trouble: VmconnectError | None

    @property
    def largest(self) -> tuple[int, int]:
        """The least size that all screens have room in."""
        return (
            max((width for width, _ in self.sizes), default=0),
            max((height for _, height in self.sizes), default=0),
        )


def summarize(path: str | os.PathLike[str], progress: Progress | None = None) -> Summary:
    """Go through a recording and return what is in it. Raises as `Replay` does."""
    replay = Replay(path, progress)
    tally: Counter[int] = Counter()
    replay.engine.tally = tally
    size = 0, 0
    sizes: dict[tuple[int, int], None] = {}
    while not replay.ended:
        for event in replay.read(replay.next_at):
            if isinstance(event, Connected | Resized):
                size = event.width, event.height
            elif isinstance(event, UpdateDone):
                sizes[size] = None
    if replay.half:
        sizes[size] = None
    return Summary(
        replay.at,
        replay.bytes,
        replay.updates,
        {_name(number): count for number, count in tally.most_common()},
        tuple(sizes),
        replay.engine.name,
        replay.trouble,
    )


def _name(number: int) -> str:
    return ENCODINGS[number].name if number in ENCODINGS else f"encoding {number}"
