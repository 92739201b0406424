"""The walk over an update's plain rectangles, in Python; `_kernel.pyx` is the same in C.

Plain is a Raw or CopyRect rectangle that lies in the screen and is wholly in the buffer. QEMU's
text console sends tens of thousands of rectangles 16 pixels wide in one update, so the walk
decides how fast an update is; everything else may be readable Python.
"""

from __future__ import annotations

import struct
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vmconnect.vnc.damage import Boxes, add_box

__all__ = ["BUDGET", "Walk", "best_walk", "walk"]

BUDGET = 1 << 24
"""How many pixels one call draws, and at most one rectangle beyond."""

_HEADER = struct.Struct(">HHHHi")
_SOURCE = struct.Struct(">HH")
_RAW = 0
_COPYRECT = 1


class Walk(Protocol):
    """The contract of a walk."""

    def __call__(  # noqa: PLR0917 (as compiled: positions are cheaper than names)
        self,
        data: memoryview,
        start: int,
        stop: int,
        pixels: NDArray[np.uint32],
        boxes: Boxes,
        used: int,
        count: int,
    ) -> tuple[int, int, int]:
        """Draw at most ``count`` rectangles from ``data[start:stop]`` into ``pixels``.

        ``data[start]`` is the first byte of a rectangle's header; ``pixels`` has (height, width)
        words in our format, each row contiguous. Stops before the first rectangle that is not
        plain, having drawn all before it and nothing of it; and, plain or not, once it has drawn
        BUDGET pixels: a few hundred bytes of CopyRect can mean minutes of work, and the caller
        wants to be asked in between whether it should go on.

        Returns the position reached, how many rectangles were drawn, and how many of ``boxes``
        (see `vmconnect.vnc.damage`) are used then.
        """


def walk(  # noqa: PLR0917 (the contract of the compiled one)
    data: memoryview,
    start: int,
    stop: int,
    pixels: NDArray[np.uint32],
    boxes: Boxes,
    used: int,
    count: int,
) -> tuple[int, int, int]:
    """Draw plain rectangles, as `Walk` says."""
    screen_height, screen_width = pixels.shape
    done = drawn_pixels = 0
    position = start
    while done < count and drawn_pixels < BUDGET and stop - position >= _HEADER.size:
        x, y, width, height, encoding = _HEADER.unpack_from(data, position)
        body = position + _HEADER.size
        if x + width > screen_width or y + height > screen_height:
            break
        if encoding == _RAW:
            after = body + width * height * 4
            if after > stop:
                break
            drawn = np.frombuffer(data, "<u4", width * height, body).reshape(height, width)
        elif encoding == _COPYRECT:
            after = body + _SOURCE.size
            if after > stop:
                break
            from_x, from_y = _SOURCE.unpack_from(data, body)
            if from_x + width > screen_width or from_y + height > screen_height:
                break
            # numpy minds the overlap of source and destination.
            drawn = pixels[from_y : from_y + height, from_x : from_x + width]
        else:
            break
        pixels[y : y + height, x : x + width] = drawn
        used = add_box(boxes, used, x, y, width, height)
        drawn_pixels += width * height
        position = after
        done += 1
    return position, done, used


def best_walk() -> Walk:
    """Return the compiled walk, or the one above where it was not compiled."""
    try:
        from vmconnect.vnc import _kernel
    except ImportError:
        return walk
    return _kernel.walk
