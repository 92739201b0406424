"""The screen of a recording at times: no update half done, but at the end of one that is cut."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from vmconnect.replay.replay import Replay
from vmconnect.vnc.framebuffer import Pixels

__all__ = ["Frame", "frame_at", "frames"]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """The screen ``at`` so many seconds: (height, width) words of 0x00RRGGBB.

    ``number`` is how many frames could have been before.
    """

    number: int
    at: float
    pixels: Pixels


def frame_at(replay: Replay, at: float | None = None) -> Frame:
    """Return the screen at a time, or at the end, of a replay at its beginning.

    Where nothing is drawn by then, it is the first that is. Raises `Replay.nothing` if none is.
    """
    replay.read(math.inf if at is None else at)
    while not replay.updates and not replay.ended:
        replay.read(replay.next_at)
    if not replay.drawn:
        raise replay.nothing()
    return Frame(0, replay.at if at is None else max(at, replay.at), replay.pixels())


def frames(replay: Replay, every: float) -> Iterator[Frame]:
    """Yield the screen at each multiple of ``every`` at which it is not what it was before.

    The last frame is as the recording ends. Raises `Replay.nothing` if nothing is drawn in it.
    """
    number, shown = -1, 0
    while not replay.ended:
        number = max(number + 1, math.ceil(replay.next_at / every))
        replay.read(max(number * every, replay.next_at))
        if replay.updates > shown or replay.half:
            yield Frame(number, number * every, replay.pixels())
            shown = replay.updates
    if not replay.drawn:
        raise replay.nothing()
