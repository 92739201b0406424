"""Rectangles that are pictures of their own: JPEG (ITU-T T.81) and PNG (ISO/IEC 15948)."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.inflate import InflateError, Inflater
from vmconnect.vnc.layout import Layout

__all__ = ["MAX_PNG_PIXELS", "MAX_SCANS", "PictureError", "decode_jpeg", "decode_png"]

MAX_SCANS = 100
"""A JPEG with more scans is refused: each costs as much as the whole picture. Others have 10."""

MAX_PNG_PIXELS = 1 << 24
"""A larger PNG is refused: a thousandth of its size can make it. QEMU's have 65,536 pixels."""


class PictureError(Exception):
    """A picture cannot be decoded, or has another size; within `vmconnect.vnc` only."""


_SCAN = b"\xff\xda"

# simplejpeg's names for words with red, green, blue at these places.
_COLOUR_SPACES = {(16, 8, 0): "BGRX", (0, 8, 16): "RGBX"}


def decode_jpeg(data: memoryview, picture: Pixels, layout: Layout) -> None:
    """Decode a JPEG into ``picture``, contiguous words of (height, width).

    Raises PictureError.
    """
    import simplejpeg

    if (scans := bytes(data).count(_SCAN)) > MAX_SCANS:
        raise PictureError(f"its JPEG has {scans} scans")
    space = _COLOUR_SPACES.get(layout.shifts, "RGBX")
    try:
        decoded = simplejpeg.decode_jpeg(data, space, buffer=picture)
    except ValueError as error:
        raise PictureError("its JPEG is broken or too large") from error
    if decoded.shape[:2] != picture.shape:
        raise PictureError(f"its JPEG has {decoded.shape[1]}x{decoded.shape[0]} pixels")
    if layout.shifts not in _COLOUR_SPACES:
        picture[:] = layout.rgb_words(decoded[:, :, :3])


_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">IIBBBBB")
_CHUNK = struct.Struct(">I4s")

# The channels of each colour type: grey, true colour, palette, grey and true colour with alpha.
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PALETTE = 3


def _chunks(data: memoryview) -> dict[bytes, bytearray]:
    """Return the content of a PNG's chunks, those of a kind joined."""
    if data[: len(_SIGNATURE)] != _SIGNATURE:
        raise PictureError("it is no PNG")
    chunks: dict[bytes, bytearray] = {}
    position = len(_SIGNATURE)
    while b"IEND" not in chunks:
        if len(data) - position < _CHUNK.size + 4:
            raise PictureError("its PNG ends too soon")
        length, kind = _CHUNK.unpack_from(data, position)
        body = data[position + _CHUNK.size : position + _CHUNK.size + length]
        after = position + _CHUNK.size + length + 4
        if after > len(data):
            raise PictureError("its PNG ends too soon")
        (checksum,) = struct.unpack_from(">I", data, after - 4)
        if zlib.crc32(data[position + 4 : after - 4]) != checksum:
            raise PictureError("its PNG has a wrong checksum")
        chunks.setdefault(kind, bytearray()).extend(body)
        position = after
    return chunks


def _paeth(row: NDArray[np.uint8], above: NDArray[np.uint8], step: int) -> None:
    line, up = row.tolist(), above.tolist()
    for i, value in enumerate(line):
        left = line[i - step] if i >= step else 0
        corner = up[i - step] if i >= step else 0
        guess = left + up[i] - corner
        by_left, by_up, by_corner = abs(guess - left), abs(guess - up[i]), abs(guess - corner)
        if by_left <= by_up and by_left <= by_corner:
            nearest = left
        else:
            nearest = up[i] if by_up <= by_corner else corner
        line[i] = (value + nearest) & 255
    row[:] = line


def _average(row: NDArray[np.uint8], above: NDArray[np.uint8], step: int) -> None:
    line, up = row.tolist(), above.tolist()
    for i, value in enumerate(line):
        left = line[i - step] if i >= step else 0
        line[i] = (value + (left + up[i]) // 2) & 255
    row[:] = line


def _unfilter(rows: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Undo each row's filter (section 9); its number is the row's first byte."""
    pixels = rows[:, 1:]
    above = np.zeros(pixels.shape[1], np.uint8)
    for kind, row in zip(rows[:, 0].tolist(), pixels, strict=True):
        if kind == 1:
            for channel in range(step):
                row[channel::step] = np.cumsum(row[channel::step], dtype=np.uint8)
        elif kind == 2:
            np.add(row, above, out=row)
        elif kind == 3:
            _average(row, above, step)
        elif kind == 4:
            _paeth(row, above, step)
        elif kind:
            raise PictureError("a row of its PNG has an unknown filter")
        above = row
    return pixels


def decode_png(data: memoryview, picture: Pixels, layout: Layout) -> None:
    """Decode a PNG that is not interlaced into ``picture``, words of (height, width).

    Transparency is left out. Raises PictureError.
    """
    height, width = picture.shape
    if width * height > MAX_PNG_PIXELS:
        raise PictureError(f"its PNG has more than {MAX_PNG_PIXELS} pixels")
    chunks = _chunks(data)
    if len(chunks.get(b"IHDR", b"")) != _HEADER.size:
        raise PictureError("its PNG has no header")
    *size, depth, colour, _, _, interlaced = _HEADER.unpack(chunks[b"IHDR"])
    if size != [width, height]:
        raise PictureError(f"its PNG has {size[0]}x{size[1]} pixels")
    if colour not in _CHANNELS or interlaced or depth not in {1, 2, 4, 8}:
        raise PictureError("its PNG is of an unknown kind")
    channels = _CHANNELS[colour]
    if depth < 8 and channels != 1:
        raise PictureError("its PNG is of an unknown kind")
    row_bytes = (width * channels * depth + 7) // 8
    inflater = Inflater()
    try:
        raw = inflater.inflate(chunks.get(b"IDAT", b""), (1 + row_bytes) * height, last=True)
    except InflateError as error:
        raise PictureError("the pixels of its PNG are broken") from error
    if len(raw) != (1 + row_bytes) * height:
        raise PictureError("its PNG has too few pixels")
    rows = np.frombuffer(raw, np.uint8).reshape(height, 1 + row_bytes).copy()
    values = _unfilter(rows, max(1, channels * depth // 8))
    if depth < 8:
        bits = np.unpackbits(values, axis=1)[:, : width * depth].reshape(height, width, depth)
        values = np.packbits(bits, axis=2).reshape(height, width) >> np.uint8(8 - depth)
    values = values.reshape(height, width, channels)
    if colour == _PALETTE:
        palette = np.frombuffer(chunks.get(b"PLTE", b""), np.uint8)
        palette = palette[: len(palette) // 3 * 3].reshape(-1, 3)
        if values.size and int(values.max()) >= len(palette):
            raise PictureError("a colour is not in the palette of its PNG")
        rgb = palette[values[:, :, 0]]
    elif channels <= 2:
        grey = values[:, :, 0].astype(np.uint16) * 255 // ((1 << depth) - 1)
        rgb = np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    else:
        rgb = values[:, :, :3]
    picture[:] = layout.rgb_words(rgb)
