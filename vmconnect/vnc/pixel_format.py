"""How a pixel lies in bytes (RFC 6143, section 7.4)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["BYTES_PER_PIXEL", "OURS", "PIXEL_FORMAT_BYTES", "PixelFormat"]

_FORMAT = struct.Struct(">BBBBHHHBBB3x")

PIXEL_FORMAT_BYTES = _FORMAT.size
"""The length of a PIXEL_FORMAT in a message."""

BYTES_PER_PIXEL = 4
"""The length of a pixel in the format that every connection of ours uses."""


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """A pixel format; the colour fields mean nothing unless ``true_colour``."""

    bits_per_pixel: int
    depth: int
    big_endian: bool
    true_colour: bool
    red_max: int
    green_max: int
    blue_max: int
    red_shift: int
    green_shift: int
    blue_shift: int

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> PixelFormat:
        """Read the 16 bytes of a PIXEL_FORMAT."""
        bits, depth, big, true, *colours = _FORMAT.unpack(data)
        return cls(bits, depth, bool(big), bool(true), *colours)

    @property
    def shifts(self) -> tuple[int, int, int]:
        """Where red, green and blue are in a pixel."""
        return self.red_shift, self.green_shift, self.blue_shift

    @property
    def maxima(self) -> tuple[int, int, int]:
        """The greatest red, green and blue."""
        return self.red_max, self.green_max, self.blue_max

    def pack(self) -> bytes:
        """Return the 16 bytes of a PIXEL_FORMAT."""
        return _FORMAT.pack(
            self.bits_per_pixel,
            self.depth,
            self.big_endian,
            self.true_colour,
            self.red_max,
            self.green_max,
            self.blue_max,
            self.red_shift,
            self.green_shift,
            self.blue_shift,
        )


OURS = PixelFormat(32, 24, False, True, 255, 255, 255, 16, 8, 0)
"""What we ask every server for: 0x00RRGGBB in little-endian words, as QEMU and X have it."""
