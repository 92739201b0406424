"""Tight, 7, and TightPNG, -260: one colour, a picture, or filtered pixels (rfbproto, "Tight").

Filtered pixels go through one of four zlib streams, unless they are less than 12 bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmconnect.vnc.encodings.base import Encoding, Rectangle, Source
from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.jobs import WIRE, DrawError, Fault, Kind, compressed_at_most
from vmconnect.vnc.layout import Layout

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = [
    "TIGHT",
    "TIGHT_PNG",
    "draw_bits",
    "draw_fill",
    "draw_gradient",
    "draw_indices",
    "draw_tpixels",
]

_FILL = 8
_JPEG = 9
_PNG = 10
_HAS_FILTER = 4
# libvncserver's: filtered pixels that are not compressed. In TightPNG the first is _PNG.
_NOT_COMPRESSED = (10, 14)
_FILTER_COPY = 0
_FILTER_PALETTE = 1
_FILTER_GRADIENT = 2

_LEAST_COMPRESSED = 12


def _compact(engine: Engine, at: int) -> Reading[tuple[int, int]]:
    """Read a length of one to three bytes at ``at`` in the body; return it and where it ends."""
    length = 0
    for i in range(3):
        yield from engine.inbox.need(at + 1)
        byte = engine.inbox.peek(at + 1)[-1]
        length |= (byte if i == 2 else byte & 127) << (7 * i)
        at += 1
        if byte < 128:
            break
    return length, at


def _decode(engine: Engine, rectangle: Rectangle, *, png: bool) -> Reading[None]:
    inbox = engine.inbox
    yield from inbox.need(1)
    control = inbox.peek(1)[0]
    chosen, resets = control >> 4, control & 15
    if chosen == _FILL:
        length = engine.layout.tpixel_bytes
        yield from inbox.need(1 + length)
        engine.walk.one(rectangle.job(Kind.FILL, length, start=1, resets=resets))
    elif chosen == _JPEG or (chosen == _PNG and png):
        length, start = yield from _compact(engine, 1)
        yield from inbox.need(start + length)
        kind = Kind.JPEG if chosen == _JPEG else Kind.PNG
        engine.walk.one(rectangle.job(kind, length, start=start, resets=resets))
    elif chosen < _FILL or chosen in _NOT_COMPRESSED:
        yield from _decode_filtered(engine, rectangle, chosen, resets)
    else:
        raise engine.error(f"Tight compression {chosen} of a rectangle {rectangle}")


def _decode_filtered(
    engine: Engine, rectangle: Rectangle, chosen: int, resets: int
) -> Reading[None]:
    inbox = engine.inbox
    tpixel_bytes = engine.layout.tpixel_bytes
    start, kind, colours, palette = 1, Kind.TPIXELS, 0, 0
    row_bytes = rectangle.width * tpixel_bytes
    if chosen & _HAS_FILTER:
        yield from inbox.need(2)
        number = inbox.peek(2)[1]
        start = 2
        if number == _FILTER_PALETTE:
            yield from inbox.need(3)
            colours = inbox.peek(3)[2] + 1
            palette, start = 3, 3 + colours * tpixel_bytes
            yield from inbox.need(start)
            kind = Kind.BITS if colours <= 2 else Kind.INDICES
            row_bytes = -(-rectangle.width // 8) if colours <= 2 else rectangle.width
        elif number == _FILTER_GRADIENT:
            kind = Kind.GRADIENT
        elif number != _FILTER_COPY:
            raise engine.error(f"Tight filter {number} of a rectangle {rectangle}")
    size = length = row_bytes * rectangle.height
    source = WIRE
    if size >= _LEAST_COMPRESSED:
        length, start = yield from _compact(engine, start)
        if chosen in _NOT_COMPRESSED:
            if length != size:
                raise engine.error(f"{length} bytes of Tight data for {size}")
        else:
            source = chosen & 3
        if length > compressed_at_most(size):
            raise engine.error(f"{length} bytes of Tight data, for {size} when inflated")
    yield from inbox.need(start + length)
    job = rectangle.job(
        kind, length, source, size, start, colours=colours, palette=palette, resets=resets
    )
    engine.walk.one(job)


def _decode_tight(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    return _decode(engine, rectangle, png=False)


def _decode_tight_png(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    return _decode(engine, rectangle, png=True)


def draw_fill(area: Pixels, source: Source, layout: Layout) -> None:
    """Draw one colour."""
    area[:] = layout.tpixels(source.take(layout.tpixel_bytes))[0]


def draw_tpixels(area: Pixels, source: Source, layout: Layout) -> None:
    """Draw what the copy filter gives: pixels."""
    data = source.take(area.size * layout.tpixel_bytes)
    area[:] = layout.tpixels(data).reshape(area.shape)


def draw_bits(area: Pixels, source: Source, palette: Pixels) -> None:
    """Draw one of two colours for each bit; each row begins with a byte of its own."""
    height, width = area.shape
    row_bytes = -(-width // 8)
    data = np.frombuffer(source.take(row_bytes * height), np.uint8).reshape(height, row_bytes)
    area[:] = palette[[0, -1]][np.unpackbits(data, axis=1)[:, :width]]


def draw_indices(area: Pixels, source: Source, palette: Pixels) -> None:
    """Draw a colour of the palette for each byte."""
    indices = np.frombuffer(source.take(area.size), np.uint8).reshape(area.shape)
    if int(indices.max()) >= len(palette):
        raise DrawError(Fault.BAD_INDEX)
    area[:] = palette[indices]


def draw_gradient(area: Pixels, source: Source, layout: Layout) -> None:
    """Draw what differs from the prediction: left and above less the corner between."""
    height, width = area.shape
    data = source.take(area.size * layout.tpixel_bytes)
    maxima = np.array(layout.wire_maxima, np.int32)
    if layout.tpixel_bytes == 3:
        differences = np.frombuffer(data, np.uint8).reshape(height, width, 3).astype(np.int32)
    else:
        values = layout.values(data, layout.pixel_bytes)
        channels = [(values >> np.uint32(shift)) for shift in layout.wire_shifts]
        differences = np.stack(channels, -1).astype(np.int32).reshape(height, width, 3) & maxima
    # Along a column all depends on what is left of it; the rows of a diagonal do not depend on
    # each other, but rows are short and pixels are few: plainly, pixel by pixel.
    drawn = np.zeros((height + 1, width + 1, 3), np.int32)
    for y in range(height):
        for x in range(width):
            guess = drawn[y + 1, x] + drawn[y, x + 1] - drawn[y, x]
            guess = np.minimum(np.maximum(guess, 0), maxima)
            drawn[y + 1, x + 1] = (guess + differences[y, x]) & maxima
    result = drawn[1:, 1:].astype(np.uint32)
    if layout.tpixel_bytes == 3:
        area[:] = layout.rgb_words(result.astype(np.uint8))
        return
    values = np.zeros((height, width), np.uint32)
    for i, shift in enumerate(layout.wire_shifts):
        values |= result[:, :, i] << np.uint32(shift)
    area[:] = layout.words(values)


TIGHT = Encoding(7, "Tight", _decode_tight, draws=True)
TIGHT_PNG = Encoding(-260, "TightPNG", _decode_tight_png, draws=True)
