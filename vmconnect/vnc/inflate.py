"""Inflating zlib streams (RFC 1950) that go on from rectangle to rectangle."""

from __future__ import annotations

from typing import cast

from zlib_ng import zlib_ng

__all__ = ["InflateError", "Inflater"]

# Its stubs have it as a value.
_ZlibError = cast("type[Exception]", zlib_ng.error)


class InflateError(Exception):
    """A stream is broken, or holds more than it may; within `vmconnect.vnc` only."""


class Inflater:
    """One stream, which lasts as long as the connection unless it is reset.

    The GIL is released while it works.
    """

    def __init__(self) -> None:
        self._stream = zlib_ng.decompressobj()
        self._fresh = True

    def reset(self) -> None:
        """Begin a new stream."""
        if not self._fresh:
            self._stream = zlib_ng.decompressobj()
            self._fresh = True

    def inflate(self, data: bytes | memoryview, limit: int, *, last: bool = False) -> bytes:
        """Return all that ``data`` inflates to.

        Raises InflateError if that is more than ``limit`` bytes, if the stream is broken, or if
        it has ended and this is not the ``last`` of it.
        """
        self._fresh = False
        try:
            # A byte more than allowed: or what follows the last byte would be left unread.
            inflated = self._stream.decompress(data, limit + 1)
        except _ZlibError as error:
            raise InflateError("its zlib stream is broken") from error
        if len(inflated) > limit:
            raise InflateError("it inflates to more than it should")
        if self._stream.eof and not last:
            raise InflateError("its zlib stream has ended")
        return inflated
