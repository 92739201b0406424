"""What an update has drawn, in a bounded number of boxes.

A server may send tens of thousands of rectangles in one update; whoever shows them wants a few.
`_kernel.pyx` has the same rule in C; the tests run both on the same rectangles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vmconnect.vnc.events import Damage

__all__ = ["CAPACITY", "Boxes", "DamageList", "add_box"]

CAPACITY = 64
"""The most areas that one update is told in."""

Boxes = NDArray[np.int32]
"""(CAPACITY, 4): left, top, right, bottom of each box, right and bottom outside."""


def add_box(  # noqa: PLR0917 (called per rectangle: keywords would cost)
    boxes: Boxes, used: int, x: int, y: int, width: int, height: int
) -> int:
    """Add an area to the first ``used`` rows of ``boxes`` and return how many are used then.

    It is dropped if empty or inside the first or last box, melted into the last box if it
    continues that one's columns or rows, else appended; a full list first shrinks to the one
    box around all.
    """
    if not width or not height:
        return used
    right, bottom = x + width, y + height
    if used:
        # As lists: reading an array's elements one by one costs ten times as much.
        first, last = boxes[0].tolist(), boxes[used - 1].tolist()
        for box in (first, last):
            if x >= box[0] and y >= box[1] and right <= box[2] and bottom <= box[3]:
                return used
        if x == last[0] and right == last[2] and y <= last[3] and bottom >= last[1]:
            boxes[used - 1, 1::2] = min(last[1], y), max(last[3], bottom)
            return used
        if y == last[1] and bottom == last[3] and x <= last[2] and right >= last[0]:
            boxes[used - 1, ::2] = min(last[0], x), max(last[2], right)
            return used
    if used == len(boxes):
        boxes[0, :2] = boxes[:, :2].min(axis=0)
        boxes[0, 2:] = boxes[:, 2:].max(axis=0)
        return add_box(boxes, 1, x, y, width, height)
    boxes[used] = x, y, right, bottom
    return used + 1


class DamageList:
    """The boxes of the update that is being read."""

    def __init__(self) -> None:
        self.boxes: Boxes = np.zeros((CAPACITY, 4), np.int32)
        self.used = 0

    def add(self, x: int, y: int, width: int, height: int) -> None:
        """Add an area, in pixels."""
        self.used = add_box(self.boxes, self.used, x, y, width, height)

    def take(self) -> tuple[Damage, ...]:
        """Return the areas and begin anew."""
        areas = tuple(
            Damage(left, top, right - left, bottom - top)
            for left, top, right, bottom in self.boxes[: self.used].tolist()
        )
        self.used = 0
        return areas
