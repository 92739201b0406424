"""How the pixels of a pixel format are read into the framebuffer's words.

A 32-bit format with a byte for each colour is *native*: its words become the framebuffer's as
they are. All others are converted to 0x00RRGGBB: those of 8 and 16 bits through a table of all
pixels, a colour map among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.pixel_format import OURS, PixelFormat

__all__ = ["Layout"]

Words = NDArray[np.uint32]

_NO_COLOURS: Words = np.zeros(0, np.uint32)


def _is_native(form: PixelFormat) -> bool:
    shifts = sorted((form.red_shift, form.green_shift, form.blue_shift))
    return (
        form.bits_per_pixel == 32
        and form.true_colour
        and not form.big_endian
        and form.maxima == (255, 255, 255)
        and shifts == [0, 8, 16]
    )


def _cpixel(form: PixelFormat) -> tuple[int, int]:
    """Return a CPIXEL's bytes and how far they are shifted up (RFC 6143, section 7.7.5)."""
    if form.bits_per_pixel == 32 and form.true_colour and form.depth <= 24:
        tops = [
            shift + most.bit_length() for shift, most in zip(form.shifts, form.maxima, strict=True)
        ]
        if max(tops) <= 24:
            return 3, 0
        if min(form.shifts) >= 8:
            return 3, 8
    return form.bits_per_pixel // 8, 0


def _converted(form: PixelFormat, values: Words) -> Words:
    """Return the 0x00RRGGBB words for the pixels of a true-colour format."""
    words = np.zeros(values.shape, np.uint32)
    for shift, most, to in zip(form.shifts, form.maxima, OURS.shifts, strict=True):
        if most:
            channel = ((values >> np.uint32(shift)) & np.uint32(most)).astype(np.uint64)
            words |= ((channel * 255 + most // 2) // most).astype(np.uint32) << np.uint32(to)
    return words


@dataclass(frozen=True, slots=True)
class Layout:
    """A pixel format as decoders want it; made by `of`.

    ``pixel_bytes``, ``cpixel_bytes`` and ``tpixel_bytes`` are the lengths of a PIXEL, of a CPIXEL
    (ZRLE, TRLE) and of a TPIXEL (Tight); ``cpixel_shift`` is by how many bits the three bytes of
    a CPIXEL are shifted up. ``shifts`` are where the framebuffer's words have red, green, blue,
    ``wire_shifts`` and ``wire_maxima`` the server's. ``colours`` are the words of all pixels of
    one or two bytes.
    """

    form: PixelFormat
    pixel_bytes: int
    cpixel_bytes: int
    tpixel_bytes: int
    cpixel_shift: int
    big_endian: bool
    native: bool
    shifts: tuple[int, int, int]
    wire_shifts: tuple[int, int, int]
    wire_maxima: tuple[int, int, int]
    colours: Words

    @classmethod
    def of(cls, form: PixelFormat, colour_map: Words | None = None) -> Self:
        """Return the layout of ``form``, whose colour map, if it has one, has 256 words.

        Raises ValueError for a format that no server can have.
        """
        if form.bits_per_pixel not in {8, 16, 32}:
            raise ValueError(f"pixels of {form.bits_per_pixel} bits")
        if not form.true_colour and form.bits_per_pixel != 8:
            raise ValueError(f"a colour map for pixels of {form.bits_per_pixel} bits")
        if form.true_colour and max(form.shifts) > 31:
            raise ValueError("colours are shifted out of a pixel")
        native = _is_native(form)
        count = form.bits_per_pixel // 8
        cpixel_bytes, cpixel_shift = _cpixel(form)
        compact = (count, form.true_colour, form.depth, form.maxima) == (4, True, 24, (255,) * 3)
        if not form.true_colour:
            colours = np.zeros(256, np.uint32) if colour_map is None else colour_map
        elif count <= 2:
            colours = _converted(form, np.arange(1 << form.bits_per_pixel, dtype=np.uint32))
        else:
            colours = _NO_COLOURS
        return cls(
            form,
            count,
            cpixel_bytes,
            3 if compact else count,
            cpixel_shift,
            form.big_endian,
            native,
            form.shifts if native else OURS.shifts,
            form.shifts if form.true_colour else (0, 0, 0),
            form.maxima if form.true_colour else (0, 0, 0),
            colours,
        )

    @property
    def drawn(self) -> PixelFormat:
        """The format of the framebuffer's words."""
        return self.form if self.native else OURS

    def values(self, data: memoryview, count: int) -> Words:
        """Return the numbers that the pixels of ``count`` bytes each in ``data`` are."""
        parts = np.frombuffer(data, np.uint8).reshape(-1, count).astype(np.uint32)
        values = np.zeros(len(parts), np.uint32)
        for i in range(count):
            place = 8 * (count - 1 - i if self.big_endian else i)
            values |= parts[:, i] << np.uint32(place)
        return values

    def words(self, values: Words) -> Words:
        """Return the framebuffer's words for the numbers that pixels are."""
        if self.native:
            return values
        if self.pixel_bytes <= 2:
            return self.colours[values]
        return _converted(self.form, values)

    def pixels(self, data: memoryview) -> Pixels:
        """Return the framebuffer's words for PIXELs."""
        if self.native:
            return np.frombuffer(data, "<u4")
        return self.words(self.values(data, self.pixel_bytes))

    def cpixels(self, data: memoryview) -> Pixels:
        """Return the framebuffer's words for CPIXELs."""
        values = self.values(data, self.cpixel_bytes)
        return self.words(values << np.uint32(self.cpixel_shift))

    def tpixels(self, data: memoryview) -> Pixels:
        """Return the framebuffer's words for TPIXELs."""
        if self.tpixel_bytes != 3:
            return self.pixels(data)
        return self.rgb_words(np.frombuffer(data, np.uint8).reshape(-1, 3))

    def rgb_words(self, rgb: NDArray[np.uint8]) -> Pixels:
        """Return the framebuffer's words for red, green, blue in the last dimension."""
        parts = rgb.astype(np.uint32)
        words: Pixels = np.zeros(parts.shape[:-1], np.uint32)
        for i, shift in enumerate(self.shifts):
            words |= parts[..., i] << np.uint32(shift)
        return words
