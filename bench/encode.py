"""A plain VNC server's encoders, for `bench/latency.py`: 32 bits a pixel, B, G, R, 0 in memory."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""(height, width, 4) bytes."""

_UPDATE = struct.Struct(">BxH")
_RECTANGLE = struct.Struct(">HHHHi")
_RAW, _TIGHT, _ZRLE = 0, 7, 16
_SIDE = 64
_BAND = 128
# Tight's control byte without a filter, on stream 0, and with one, on stream 1 (rfbproto).
_COPY, _PALETTE = 0x00, 0x50


class Encoder:
    """Makes FramebufferUpdate messages of one connection, whose zlib streams go on."""

    def __init__(self, encoding: str):
        self._encode: Callable[[int, int, Pixels], list[bytes]] = {
            "raw": self._raw,
            "tight": self._tight,
            "zrle": self._zrle,
        }[encoding]
        self._streams = [zlib.compressobj(1) for _ in range(2)]

    def update(self, x: int, y: int, pixels: Pixels) -> bytes:
        """Return the message that draws ``pixels`` at a place."""
        rectangles = self._encode(x, y, pixels)
        return _UPDATE.pack(0, len(rectangles)) + b"".join(rectangles)

    def _deflate(self, stream: int, data: bytes) -> bytes:
        deflater = self._streams[stream]
        return deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)

    def _raw(self, x: int, y: int, pixels: Pixels) -> list[bytes]:
        height, width, _ = pixels.shape
        return [_RECTANGLE.pack(x, y, width, height, _RAW) + pixels.tobytes()]

    def _tight(self, x: int, y: int, pixels: Pixels) -> list[bytes]:
        """Bands, as a rectangle may hold no more than 4 MiB; of few colours with a palette."""
        height, width, _ = pixels.shape
        rectangles = []
        for top in range(0, height, _BAND):
            band = pixels[top : top + _BAND]
            head = _RECTANGLE.pack(x, y + top, width, len(band), _TIGHT)
            colours, indices = _palette(band)
            if 2 < len(colours) <= 256:
                filters = bytes([_PALETTE, 1, len(colours) - 1])
                head += filters + colours[:, 2::-1].tobytes()
                data = self._deflate(1, indices.astype(np.uint8).tobytes())
            else:
                head += bytes([_COPY])
                data = self._deflate(0, band[:, :, 2::-1].tobytes())
            rectangles.append(head + _compact(len(data)) + data)
        return rectangles

    def _zrle(self, x: int, y: int, pixels: Pixels) -> list[bytes]:
        height, width, _ = pixels.shape
        tiles = [
            _zrle_tile(pixels[top : top + _SIDE, left : left + _SIDE])
            for top in range(0, height, _SIDE)
            for left in range(0, width, _SIDE)
        ]
        data = self._deflate(0, b"".join(tiles))
        head = _RECTANGLE.pack(x, y, width, height, _ZRLE)
        return [head + struct.pack(">I", len(data)) + data]


def _palette(pixels: Pixels) -> tuple[Pixels, NDArray[np.intp]]:
    words = np.ascontiguousarray(pixels).view("<u4")[:, :, 0]
    colours, indices = np.unique(words, return_inverse=True)
    return colours.view(np.uint8).reshape(-1, 4), indices.reshape(words.shape)


def _zrle_tile(tile: Pixels) -> bytes:
    """Return a tile: one colour, a packed palette or raw (RFC 6143, section 7.7.6)."""
    colours, indices = _palette(tile)
    count = len(colours)
    if count > 16:
        return b"\0" + tile[:, :, :3].tobytes()
    head = bytes([count]) + colours[:, :3].tobytes()
    if count == 1:
        return head
    bits = 1 if count == 2 else 2 if count <= 4 else 4
    places = indices.astype(np.uint8)[:, :, None] >> np.arange(bits - 1, -1, -1, dtype=np.uint8)
    return head + np.packbits((places & 1).reshape(len(tile), -1), axis=1).tobytes()


def _compact(length: int) -> bytes:
    """Return a length in Tight's form."""
    if length < 1 << 7:
        return bytes([length])
    if length < 1 << 14:
        return bytes([length & 0x7F | 0x80, length >> 7])
    return bytes([length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14])
