"""Jobs: rectangles of pixels that were found in the bytes and are not yet drawn.

Between the two lies what is better done for many at once: inflating, one call a stream and
batch; decoding pictures. `_kernel.pyx` knows the same numbers and the same fields.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FAULTS",
    "JOB",
    "LARGE_INFLATED",
    "MOST_COVERED",
    "PICTURES",
    "RESETS_SHIFT",
    "STREAMS",
    "WIRE",
    "ZLIB_STREAM",
    "ZRLE_STREAM",
    "DrawError",
    "Fault",
    "Job",
    "Jobs",
    "Kind",
    "compressed_at_most",
]


class Kind(enum.IntEnum):
    """What the bytes of a job are."""

    PIXELS = 0
    COPY = 1
    RRE = 2
    CORRE = 3
    HEXTILE = 4
    TRLE = 5
    ZRLE = 6
    ZYWRLE = 7
    FILL = 8
    TPIXELS = 9
    BITS = 10
    INDICES = 11
    GRADIENT = 12
    JPEG = 13
    PNG = 14
    IMAGE = 15


WIRE = -1
"""The source of a job whose bytes are in the server's bytes as they are."""

ZRLE_STREAM = 4
"""The zlib stream of ZRLE and ZYWRLE; 0 to 3 are Tight's."""

ZLIB_STREAM = 5
"""The zlib stream of the encoding Zlib."""

STREAMS = 6

LARGE_INFLATED = 1 << 20
"""A rectangle that may inflate to more bytes is no job: it is inflated, and drawn, bit by bit."""

PICTURES = 1 << STREAMS
"""Beside a bit for each stream, in what is to be done before jobs are drawn: pictures."""

RESETS_SHIFT = STREAMS + 1
"""Above it a bit for each stream that begins anew."""


class Job(NamedTuple):
    """A job; ``start`` and ``palette`` count from the rectangle's body, later from the data.

    ``length`` bytes at ``start`` end the rectangle. With a stream as ``source`` they inflate to
    ``size`` bytes (ZRLE: at most). ``colours`` is the palette's size, and ``resets`` has a bit
    for each of Tight's streams that begin anew before. ``header`` is where errors point at.
    """

    header: int
    start: int
    length: int
    size: int
    palette: int
    x: int
    y: int
    width: int
    height: int
    colours: int
    kind: Kind
    source: int
    resets: int

    @property
    def work(self) -> int:
        """What is to be done before it is drawn: a bit for its stream, or PICTURES, and resets."""
        work = self.resets << RESETS_SHIFT
        if self.source != WIRE:
            work |= 1 << self.source
        elif self.kind in {Kind.JPEG, Kind.PNG}:
            work |= PICTURES
        return work

    def moved(self, offset: int) -> Job:
        """Return the job with its places counted from ``offset`` bytes before."""
        return self._replace(
            header=self.header + offset, start=self.start + offset, palette=self.palette + offset
        )


JOB = np.dtype(
    [
        *((name, np.int64) for name in ("header", "start", "length", "size", "palette")),
        *((name, np.uint16) for name in ("x", "y", "width", "height", "colours")),
        ("kind", np.uint8),
        ("source", np.int8),
        ("resets", np.uint8),
        ("spare", np.uint8, 3),
    ]
)
"""A row of `Jobs`: the fields of `Job`, and some bytes to make it round."""

Jobs = NDArray[np.void]
"""A table with rows of JOB."""


MOST_COVERED = 16
"""How often RRE's subrectangles may cover their rectangle in all; those of servers do it once.

Without a bound, each 12 bytes could cost the time to fill the screen.
"""


class Fault(enum.IntEnum):
    """What can be wrong with a rectangle when it is drawn."""

    FINE = 0
    SHORT = 1
    OUTSIDE = 2
    BAD_KIND = 3
    BAD_INDEX = 4
    BAD_RUN = 5
    LEFT_OVER = 6
    TOO_MUCH = 7


FAULTS: dict[Fault, str] = {
    Fault.SHORT: "its data end too soon",
    Fault.OUTSIDE: "a part of it lies outside",
    Fault.BAD_KIND: "a tile of it is of a kind that does not exist",
    Fault.BAD_INDEX: "a colour is not in its palette",
    Fault.BAD_RUN: "a run of pixels goes past the end of a tile",
    Fault.LEFT_OVER: "its data go on past its end",
    Fault.TOO_MUCH: f"its parts cover it more than {MOST_COVERED} times over",
}


class DrawError(Exception):
    """A rectangle cannot be drawn; within `vmconnect.vnc` only."""

    def __init__(self, fault: Fault):
        super().__init__(FAULTS[fault])
        self.fault = fault


def compressed_at_most(size: int) -> int:
    """Return how many bytes zlib may make of ``size``, more than the worst that it does."""
    return size + size // 8 + 1024
