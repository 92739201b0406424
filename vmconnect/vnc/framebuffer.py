"""The framebuffer: one array of pixels that decoders write and others read."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vmconnect.deadline import Deadline
from vmconnect.errors import DeadlineError, ResourceError
from vmconnect.vnc.pixel_format import OURS, PixelFormat

__all__ = ["MAX_PIXELS", "MAX_SIDE", "Framebuffer", "Pixels", "ours", "rgb"]

MAX_SIDE = 16384
MAX_PIXELS = 1 << 28
"""A server that claims a larger screen is refused before anything is allocated."""

Pixels = NDArray[np.uint32]
"""(height, width) words of 0x00RRGGBB, or as the framebuffer's ``pixel_format`` says.

The top byte is whatever the server sent in it.
"""


_COLOURS = np.uint32(0xFFFFFF)
_NOTHING: Pixels = np.zeros((0, 0), np.uint32)


def _allocate(width: int, height: int) -> Pixels:
    # Zeroed pages cost nothing until a server has really sent pixels for them.
    return np.zeros((height, width), np.uint32)


def rgb(pixels: Pixels, pixel_format: PixelFormat = OURS) -> NDArray[np.uint8]:
    """Return ``pixels`` as an array (height, width, 3) of red, green, blue bytes.

    ``pixel_format`` is that of the words: one with a byte for each colour.
    """
    height, width = pixels.shape
    channels = np.ascontiguousarray(pixels, "<u4").view(np.uint8).reshape(height, width, 4)
    return np.ascontiguousarray(channels[:, :, [shift // 8 for shift in pixel_format.shifts]])


def ours(pixels: Pixels, pixel_format: PixelFormat) -> Pixels:
    """Return a copy of ``pixels`` as words of 0x00RRGGBB.

    ``pixel_format`` is that of the words: one with a byte for each colour.
    """
    if pixel_format.shifts == OURS.shifts:
        return pixels & _COLOURS
    words: Pixels = np.zeros(pixels.shape, np.uint32)
    for shift, to in zip(pixel_format.shifts, OURS.shifts, strict=True):
        words |= (pixels >> np.uint32(shift) & np.uint32(255)) << np.uint32(to)
    return words


class Framebuffer:
    """The screen as far as it is drawn.

    One thread decodes into it; any thread may read. ``pixels`` may be looked at any time, and may
    then show an update half drawn; `snapshot` waits for the end of the update. The array is
    replaced, not resized, when the screen's size changes.

    ``allocate(width, height)`` gives the array to draw into: (height, width) uint32 words with
    contiguous rows, for example the pixels of a window's surface. It is called in the decoding
    thread.
    """

    def __init__(self, allocate: Callable[[int, int], Pixels] = _allocate):
        self._allocate = allocate
        self.pixels = _NOTHING
        self.pixel_format = OURS
        self.generation = 0
        """How many updates were drawn."""
        self.drawn = False
        """Whether an update was drawn since the screen has this size."""
        # Held for a moment at the boundaries between updates and for as long as a snapshot is
        # copied between two: never while bytes are decoded or awaited.
        self._boundary = threading.Condition()
        self._updating = False
        self._abandoned = False
        self._waiting = 0
        self._served = 0
        self._copy = _NOTHING

    @property
    def width(self) -> int:
        """The screen's width in pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """The screen's height in pixels."""
        return int(self.pixels.shape[0])

    def resize(self, width: int, height: int) -> None:
        """Take another size and be blank; nothing happens if it has that size.

        The caller has compared the size with MAX_SIDE and MAX_PIXELS. Raises ResourceError when
        memory is short.
        """
        with self._boundary:
            if (width, height) == (self.width, self.height):
                return
            try:
                self.pixels = self._allocate(width, height)
            except MemoryError as error:
                raise ResourceError(f"no memory for a screen of {width}x{height}") from error
            self.drawn = False

    def begin_update(self) -> None:
        """Note that from here on the pixels are half old, half new."""
        with self._boundary:
            self._updating = True
            self._abandoned = False

    def end_update(self, drawn: bool) -> None:
        """Note that the pixels are whole again, and serve who waits for that."""
        with self._boundary:
            self._updating = False
            if drawn:
                self.generation += 1
                self.drawn = True
            if self.drawn:
                self._serve()

    def abandon(self) -> None:
        """Note that no more bytes will come: what is there is all there will be."""
        with self._boundary:
            self._updating = False
            self._abandoned = True
            self._serve()

    def begin_anew(self) -> None:
        """Note that another connection will draw: until it does, what is there is old."""
        with self._boundary:
            self._updating = self._abandoned = self.drawn = False

    def snapshot(self, timeout: Deadline | float | None = None) -> Pixels:
        """Return a copy of the pixels as they are between two updates, with the top byte 0.

        Waits for the first update of a screen of which nothing is drawn yet, unless the
        connection is over. Raises DeadlineError if the time does not suffice.
        """
        deadline = Deadline.of(timeout)
        with self._boundary:
            if self._abandoned or (self.drawn and not self._updating):
                return self.pixels & _COLOURS
            served = self._served
            self._waiting += 1
            try:
                if not self._boundary.wait_for(
                    lambda: self._served != served, deadline.remaining()
                ):
                    what = "an update of the screen" if self.drawn else "the screen"
                    raise DeadlineError(f"{what} did not come in time")
                return self._copy.copy() if self._waiting > 1 else self._copy
            finally:
                self._waiting -= 1
                if not self._waiting:
                    self._copy = _NOTHING

    def rgb(self) -> NDArray[np.uint8]:
        """Return the present pixels, whatever is drawn of them, as `rgb` does."""
        return rgb(self.pixels, self.pixel_format)

    def _serve(self) -> None:
        # The copy is made here and not by those who wait: when updates follow each other
        # closely they would never find a moment between two.
        if self._waiting:
            self._copy = self.pixels & _COLOURS
            self._served += 1
            self._boundary.notify_all()
