"""A recording that is gone through without waiting, as far as one wants."""

from __future__ import annotations

import math
import os

import numpy as np

from vmconnect.errors import RfbError, VmconnectError
from vmconnect.progress import Progress, Silent
from vmconnect.vnc.events import Event
from vmconnect.vnc.framebuffer import Framebuffer, Pixels, ours
from vmconnect.vnc.pixel_format import PixelFormat
from vmconnect.vnc.recording import Player

__all__ = ["Replay"]


class Replay:
    """A recording from its beginning on; times are in seconds since then.

    ``at`` is the time of what was read last, ``bytes`` counts what was read of the server's bytes.
    ``trouble`` is why the recording ends where it does, if it is cut or damaged, or holds what
    the server was not allowed to send: what came before counts.

    Raises ResourceError if the file cannot be read, RfbError if it is no recording.
    """

    def __init__(self, path: str | os.PathLike[str], progress: Progress | None = None):
        self.player = Player(path)
        self._framebuffer = Framebuffer(self._allocate)
        # The last picture of the size before, if there was one: the next may never come.
        self._before: tuple[Pixels, PixelFormat] | None = None
        self.engine = self.player.engine(framebuffer=self._framebuffer)
        self.at = 0.0
        self.bytes = 0
        self.trouble: VmconnectError | None = None
        self._progress = progress or Silent()
        self._pieces = self.player.pieces()
        self._next: tuple[float, bytes] | None = None
        self._fetch()

    @property
    def next_at(self) -> float:
        """When the next bytes came; never, if there are no more."""
        return math.inf if self._next is None else self._next[0]

    @property
    def ended(self) -> bool:
        """Whether all is read."""
        return self._next is None

    @property
    def whole(self) -> bool:
        """Whether the screen is drawn, and no update of it is half done."""
        return self._framebuffer.drawn and not self.engine.rectangles_left

    @property
    def drawn(self) -> bool:
        """Whether there is anything for `pixels` to show, and be it a part of the first update."""
        return self._drawn or self._before is not None

    def pixels(self) -> Pixels:
        """Return a copy of the screen as it is: (height, width) words of 0x00RRGGBB.

        As long as nothing is drawn of a new size, it is the last one of the size before.
        """
        if self._before is not None and not self._drawn:
            return ours(*self._before)
        return ours(self._framebuffer.pixels, self._framebuffer.pixel_format)

    def read(self, until: float = math.inf) -> list[Event]:
        """Read all that came up to a time and return what happened."""
        events: list[Event] = []
        while self._next is not None and self._next[0] <= until:
            self.at, data = self._next
            try:
                events += self.engine.receive(data)
            except VmconnectError as error:
                events += self.engine.events()
                self._stop(error)
                break
            self.engine.data_to_send()
            self.bytes += len(data)
            self._progress.advance(self.bytes, self.player.size)
            self._fetch()
        return events

    @property
    def _drawn(self) -> bool:
        return self._framebuffer.drawn or bool(self.engine.damage.used)

    def _allocate(self, width: int, height: int) -> Pixels:
        framebuffer = self._framebuffer
        if framebuffer.drawn:
            self._before = framebuffer.pixels, framebuffer.pixel_format
        return np.zeros((height, width), np.uint32)

    def _fetch(self) -> None:
        try:
            self._next = next(self._pieces, None)
        except VmconnectError as error:
            self._stop(error)
            return
        if self._next is None and self.player.cut:
            self._stop(RfbError("the recording ends in the midst of what the server said"))

    def _stop(self, error: VmconnectError) -> None:
        self._next = None
        self.trouble = error.with_machine(self.player.path.name)
