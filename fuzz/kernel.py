"""The compiled kernel alone: find rectangles in bytes, draw them, look at what is round them.

Nothing is inflated: what streams hold is given as it comes, so that executions are cheap and the
bytes go straight to the loops. The framebuffer is a part of larger rows, and what is outside of
it must stay as it was.
"""

from __future__ import annotations

import numpy as np

from fuzz.room import FORM_NAMES
from tests.vnc.writer import FORMATS
from vmconnect.vnc import _kernel
from vmconnect.vnc.damage import CAPACITY
from vmconnect.vnc.jobs import JOB, STREAMS, Fault, Kind
from vmconnect.vnc.layout import Layout

__all__ = ["kernel"]

_WIDTH, _HEIGHT, _MARGIN = 70, 40, 3
_CANARY = 0xDEADBEEF

_SURFACE = np.full((_HEIGHT + 2 * _MARGIN, _WIDTH + 2 * _MARGIN), _CANARY, np.uint32)
_PIXELS = _SURFACE[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
_OUTSIDE = np.ones(_SURFACE.shape, bool)
_OUTSIDE[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN] = False
_JOBS = np.zeros(64, JOB)
_TABLE = _kernel.Table(_JOBS)
_BOXES = np.zeros((CAPACITY, 4), np.int32)
_FAULTS = set(Fault)
_IMAGES = np.zeros(0, np.uint32)
_FORMATS = [_kernel.Format(Layout.of(FORMATS[name])) for name in FORM_NAMES]


def kernel(data: bytes, *, always: bool = False) -> None:
    """Find and draw: format, level, how much of ``data`` the streams hold, and the bytes."""
    head, body = data[:4].ljust(4, b"\0"), data[4:]
    form = _FORMATS[head[0] % len(_FORMATS)]
    held = min(head[2] * 4, len(body))
    inflated, wire = (body[:held],) * STREAMS, memoryview(body)[held:]
    stop, count, _ = _kernel.scan(
        wire, 0, len(wire), form, _WIDTH, _HEIGHT, _TABLE, 1 + head[3] % 64, 1 << 17
    )
    assert 0 <= stop <= len(wire)
    assert 0 <= count <= 1 + head[3] % 64
    pictures = (_JOBS["kind"][:count] == Kind.JPEG) | (_JOBS["kind"][:count] == Kind.PNG)
    if pictures.any():
        count = int(pictures.argmax())
    used, last, fault = _kernel.draw(
        wire, form, _TABLE, 0, count, inflated, _IMAGES, _PIXELS, _BOXES, 0, head[1] & 3
    )
    assert 0 <= used <= CAPACITY
    assert last <= count
    assert fault in _FAULTS
    if always or not sum(head) % 16:
        assert (_SURFACE[_OUTSIDE] == _CANARY).all(), "pixels outside of the screen"
