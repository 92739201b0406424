"""A recording that is gone through without waiting, as far as one wants."""

from __future__ import annotations

import math
import os

import numpy as np

from vmconnect.errors import ResourceError, RfbError, VmconnectError
from vmconnect.progress import Progress, Silent
from vmconnect.vnc.events import Event, UpdateDone
from vmconnect.vnc.framebuffer import Pixels, ours
from vmconnect.vnc.pixel_format import OURS
from vmconnect.vnc.recording import Player
from vmconnect.vnc.states import State

__all__ = ["Replay"]


class Replay:
    """A recording from its beginning on; times are in seconds since then.

    ``at`` is the time of what was read last; ``bytes`` and ``updates`` count what was read.
    ``trouble`` is why the recording ends where it does, if it is cut or damaged, or holds what
    the server was not allowed to send: what came before counts.

    Raises ResourceError if the file cannot be read, RfbError if it is no recording.
    """

    def __init__(self, path: str | os.PathLike[str], progress: Progress | None = None):
        self.player = Player(path)
        self.engine = self.player.engine(tell=self._note)
        self.updates = 0
        # The screen as it was when its last update was whole.
        self._whole: Pixels = np.zeros((0, 0), np.uint32)
        # What it is a copy of.
        self._live = self._whole
        self._format = OURS
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
    def half(self) -> bool:
        """Whether the recording has ended, in the midst of an update of which there is a part."""
        engine = self.engine
        return self.ended and engine.rectangles_left > 0 and bool(engine.framebuffer.pixels.any())

    @property
    def drawn(self) -> bool:
        """Whether there is anything for `pixels` to show."""
        return self.updates > 0 or self.half

    def pixels(self) -> Pixels:
        """Return a copy of the screen after the last whole update, or half of one at the end.

        It is (height, width) words of 0x00RRGGBB.
        """
        if self.half:
            return ours(self.engine.framebuffer.pixels, self.engine.framebuffer.pixel_format)
        return ours(self._whole, self._format)

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

    def nothing(self) -> VmconnectError:
        """Return the error that there is nothing to show."""
        name = self.player.path.name
        return self.trouble or ResourceError("nothing is drawn in this recording", machine=name)

    def _note(self, event: Event) -> None:
        """Keep the screen at the end of an update: the next one begins at once."""
        if not isinstance(event, UpdateDone):
            return
        self.updates += 1
        pixels, self._format = self.engine.framebuffer.pixels, self.engine.framebuffer.pixel_format
        if self._live is not pixels:
            self._live, self._whole = pixels, pixels.copy()
            return
        for area in event.damage:
            rows = slice(area.y, area.y + area.height)
            columns = slice(area.x, area.x + area.width)
            self._whole[rows, columns] = pixels[rows, columns]

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
        if self.engine.state is not State.CLOSED:
            # What has come of a rectangle is drawn.
            self.engine.receive_end()
