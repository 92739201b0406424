"""What must hold of every execution, and of two that saw the same bytes."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import UnidentifiedImageError

from fuzz.room import FORM_NAMES, HEIGHT, WIDTH, Room, new_engine
from tests.vnc.reference import Bytes, Reference
from tests.vnc.writer import FORMATS
from vmconnect.errors import AuthenticationError, ConnectError, ResourceError, RfbError, TrustError
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.events import Event
from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.numpy_kernel import NumpyKernel

__all__ = ["Said", "check", "check_bounds", "run"]

ALLOWED = RfbError, AuthenticationError, ConnectError, ResourceError, TrustError
"""All that `Engine.receive` says it raises."""

MOST_WAITING = 40 * 1024 * 1024
"""Bytes that may wait to be read or to be sent, whatever a server claims."""

_ROOM = Room()
_NUMPY = NumpyKernel()

# One of so many executions is compared with the others: in other pieces, by the other kernel,
# by the plain decoder.
OFTEN, SELDOM = 64, 512


@dataclass(frozen=True, slots=True)
class Said:
    """What a server says after ServerInit, in a pixel format and for a wavelet level.

    ``rectangles`` are those of pixels alone, for the plain decoder.
    """

    data: bytes
    form: int = 0
    level: int = 0
    rectangles: tuple[bytes, ...] = ()

    @property
    def form_name(self) -> str:
        """The pixel format's name."""
        return FORM_NAMES[self.form % len(FORM_NAMES)]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: the pixels mean nothing after an error."""

    error: str | None
    events: list[Event]
    sent: bytes
    pixels: Pixels


def check_bounds(engine: Engine) -> None:
    """Compare what an engine holds with what it may."""
    view, start, stop = engine.inbox.window()
    assert 0 <= start <= stop <= len(view)
    assert len(view) <= MOST_WAITING, f"{len(view)} bytes to be read"
    assert len(engine._out) <= MOST_WAITING, f"{len(engine._out)} bytes to be sent"
    assert engine.damage.used <= len(engine.damage.boxes)


def run(engine: Engine, pieces: Iterable[bytes]) -> Outcome:
    """Let an engine read all, to the end of the stream, and compare it with its bounds."""
    events: list[Event] = []
    error = None
    try:
        for piece in pieces:
            if piece:
                events += engine.receive(piece)
        check_bounds(engine)
        error = str(engine.receive_end())
    except ALLOWED as broken:
        assert not isinstance(broken, RfbError) or broken.offset is not None, str(broken)
        error = str(broken)
        events += engine.events()
    check_bounds(engine)
    return Outcome(error, events, engine.data_to_send(), engine.framebuffer.pixels)


def _cut(data: bytes, chance: int) -> Iterable[bytes]:
    """Cut bytes in pieces, all of one byte or of other sizes."""
    sizes = ((1,), (3, 1), (2, 64, 5), (13, 4, 200, 1))[chance % 4]
    place = 0
    for size in itertools.cycle(sizes):
        if place >= len(data):
            return
        yield data[place : place + size]
        place += size


# What the plain decoder does not know of Tight: JPEG, of which decoders may round as they like,
# and pixels that are not compressed.
_TIGHT, _NOT_KNOWN = (7).to_bytes(4, "big"), {9, 10, 14}

# How an error begins that means no more than the end of the bytes.
_END = "the VNC server closed"

# Rectangles of one stream are inflated together. If the first lacks what the second has too much
# of, they are drawn together, and refused one by one; no server compresses such.
_ALONE = "end too soon", "go on past", "more than it should", "stream", "kind", "run", "palette"


def _joined(engine: Engine, one: Outcome, other: Outcome) -> bool:
    """Return whether an engine took together what the other was right to refuse alone."""
    together = any(batch.count > 1 for batch in engine.walk._batches)
    refused = other.error is not None and any(part in other.error for part in _ALONE)
    return together and refused and one.error != other.error


def _compare(engine: Engine, one: Outcome, other: Outcome, how: str) -> None:
    """Compare what came of the same bytes; ``engine`` is the one that had them at once."""
    if _joined(engine, one, other):
        return
    assert one.error == other.error, f"{how}: {one.error!r} and {other.error!r}"
    assert one.events == other.events, f"{how}: other events"
    assert one.sent == other.sent, f"{how}: other bytes are sent"
    assert one.pixels.shape == other.pixels.shape, f"{how}: another size"
    if one.error is None or one.error.startswith(_END):
        assert (one.pixels == other.pixels).all(), f"{how}: other pixels"


def check(said: Said, *, always: bool = False) -> None:
    """Let the engine read what a server says, and now and then the others, and compare."""
    chance = zlib.crc32(said.data)
    engine = _ROOM.engine(said.form_name, said.level)
    outcome = run(engine, (said.data,))
    if not always and chance % OFTEN:
        return
    in_pieces = new_engine(said.form_name, said.level)
    _compare(engine, outcome, run(in_pieces, _cut(said.data, chance >> 8)), "in pieces")
    if not always and chance % SELDOM:
        return
    by_numpy = new_engine(said.form_name, said.level, _NUMPY)
    _compare(engine, outcome, run(by_numpy, (said.data,)), "by numpy")
    threaded = new_engine(said.form_name, said.level, threads=2)
    _compare(threaded, outcome, run(threaded, (said.data,)), "by two threads")
    threaded.walk.close()
    if said.rectangles and said.data.endswith(said.rectangles[-1]):
        _compare_reference(said, engine, outcome)


def _compare_reference(said: Said, engine: Engine, outcome: Outcome) -> None:
    """Compare with the plain decoder, which reads only what is valid."""
    whole = outcome.error == "the VNC server closed the connection while message type was awaited"
    if not whole or engine.layout.form != FORMATS[said.form_name]:
        return
    if outcome.pixels.shape != (HEIGHT, WIDTH) or len(said.rectangles) > 1:
        return
    if said.rectangles[0][8:12] == _TIGHT and said.rectangles[0][12] >> 4 in _NOT_KNOWN:
        return
    reference = Reference(WIDTH, HEIGHT, FORMATS[said.form_name])
    reference.level = said.level
    for rectangle in said.rectangles:
        source = Bytes(rectangle)
        try:
            reference.rectangle(source)
        except (UnidentifiedImageError, OSError, SyntaxError):
            # Pillow is stricter: a PNG may lack its end.
            return
        if not source.done():
            # What follows was read as other messages.
            return
    expected = np.array(reference.screen, np.uint8).reshape(HEIGHT, WIDTH, 3)
    assert (engine.framebuffer.rgb() == expected).all(), "the plain decoder draws something else"
