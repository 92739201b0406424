"""Inflating zlib streams (RFC 1950) that go on from rectangle to rectangle.

Two libraries do it, each where it is the faster: zlib-ng for text and forms, much of which are
tiny blocks; ISA-L for photographs and video, which hardly compress. A server flushes its stream
after each rectangle, so that a stream can go over from one to the other there: with the last
32 KiB of what it held before, as a dictionary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from zlib_ng import zlib_ng

__all__ = ["PIECE_BYTES", "InflateError", "Inflater", "Pieces"]

PIECE_BYTES = 256 * 1024
"""As much of a large part is inflated at a time: it stays in a core's cache until it is drawn."""

# Its stubs have it as a value.
_ZlibError = cast("type[Exception]", zlib_ng.error)

_WINDOW = 32 * 1024

# What ends a flushed part of a stream: an empty stored block (RFC 1951, section 3.2.4; zlib.h,
# Z_SYNC_FLUSH).
_FLUSHED = b"\0\0\xff\xff"

# A stream goes over only for as much as this, and then for what is more than this of all that it
# may inflate to.
_LEAST_NOISE = 16 * 1024
_NOISE_RATIO = 0.25

_RAW = -15


class InflateError(Exception):
    """A stream is broken, or holds more than it may; within `vmconnect.vnc` only."""


class Inflater:
    """One stream, which lasts as long as the connection unless it is reset.

    The GIL is released while it works.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._stream: Any = zlib_ng.decompressobj()
        self._error = _ZlibError
        self._fresh = True
        self._for_noise = False
        # Whether the stream can go over: it does so where a part of it has ended.
        self._flushed = False
        # What it held last, at least _WINDOW bytes if it held as many.
        self._recent = b""

    def reset(self) -> None:
        """Begin a new stream."""
        if not self._fresh:
            self._begin()

    def copy(self) -> Inflater | None:
        """Return another that goes on from here; None where it cannot be had.

        It can be for streams of servers, which flush them after each rectangle.
        """
        other = Inflater()
        if self._fresh:
            return other
        if not self._for_noise:
            other._stream = self._stream.copy()
        elif self._flushed:
            # ISA-L copies none.
            other._choose_from(self._recent, for_noise=True)
        else:
            return None
        other._fresh, other._flushed = False, self._flushed
        other._recent = self._recent
        return other

    def inflate(
        self, data: bytes | bytearray | memoryview, limit: int, *, last: bool = False
    ) -> bytes:
        """Return all that ``data`` inflates to.

        Raises InflateError if that is more than ``limit`` bytes, if the stream is broken, or if
        it has ended and this is not the ``last`` of it.
        """
        self._fresh = False
        if len(data) >= _LEAST_NOISE and self._flushed:
            self._choose(len(data) > _NOISE_RATIO * limit)
        try:
            # A byte more than allowed: or what follows the last byte would be left unread.
            inflated: bytes = self._stream.decompress(data, limit + 1)
        except self._error as error:
            raise InflateError("its zlib stream is broken") from error
        if len(inflated) > limit:
            raise InflateError("it inflates to more than it should")
        if self._stream.eof and not last:
            raise InflateError("its zlib stream has ended")
        self._flushed = data[-4:] == _FLUSHED
        self._remember(inflated)
        return inflated

    def pieces(self, length: int, limit: int) -> Pieces:
        """Return what inflates the next ``length`` bytes as they come, to at most ``limit``."""
        self._fresh = False
        if length >= _LEAST_NOISE and self._flushed:
            self._choose(length > _NOISE_RATIO * limit)
        return Pieces(self, limit)

    def some(self, data: bytes | memoryview) -> tuple[bytes, bytes]:
        """Return a piece of what ``data`` inflates to, and what of ``data`` it was not made of.

        Less than PIECE_BYTES are all. Raises InflateError as `inflate` does.
        """
        try:
            piece: bytes = self._stream.decompress(data, PIECE_BYTES)
        except self._error as error:
            raise InflateError("its zlib stream is broken") from error
        if self._stream.eof:
            raise InflateError("its zlib stream has ended")
        self._remember(piece)
        return piece, self._stream.unconsumed_tail

    def end_of_pieces(self, last: bytes) -> None:
        """Note how a part of the stream ended."""
        self._flushed = last == _FLUSHED

    def _remember(self, inflated: bytes) -> None:
        if len(inflated) >= _WINDOW:
            self._recent = inflated[-_WINDOW:]
        elif inflated:
            self._recent = self._recent[-_WINDOW:] + inflated

    def _choose(self, for_noise: bool) -> None:
        """Go over to the other library, if it is the better."""
        if for_noise != self._for_noise:
            self._choose_from(self._recent, for_noise=for_noise)

    def _choose_from(self, recent: bytes, *, for_noise: bool) -> None:
        self._for_noise = for_noise
        window = recent[-_WINDOW:]
        if for_noise:
            from isal import isal_zlib

            self._error = cast("type[Exception]", isal_zlib.error)
            self._stream = isal_zlib.decompressobj(_RAW, zdict=window)
        else:
            self._error = _ZlibError
            self._stream = zlib_ng.decompressobj(_RAW, zdict=window)


class Pieces:
    """A part of a stream, as large as a screen may be, that is inflated as it comes."""

    def __init__(self, inflater: Inflater, limit: int):
        self._inflater = inflater
        self._limit = limit
        self._made = 0
        self._last = b""

    def inflate(self, data: memoryview) -> Iterator[bytes]:
        """Give what ``data`` inflates to, at most PIECE_BYTES at a time.

        Raises InflateError as `Inflater.inflate` does.
        """
        self._last = (self._last + bytes(data[-len(_FLUSHED) :]))[-len(_FLUSHED) :]
        rest: bytes | memoryview = data
        piece = b""
        while rest or len(piece) == PIECE_BYTES:
            piece, rest = self._inflater.some(rest)
            self._made += len(piece)
            if self._made > self._limit:
                raise InflateError("it inflates to more than it should")
            if piece:
                yield piece
        self._inflater.end_of_pieces(self._last)
