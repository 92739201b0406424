r"""Recordings: what a server has sent in a session, with times, in a file and back.

The file is, integers big-endian:

- the line ``vmconnect-rfb 1\n``;
- 16 bytes: the PIXEL_FORMAT that the client had asked for (RFC 6143, section 7.4);
- pieces to the end: 8 bytes, nanoseconds since the first; 4 bytes, a length; as many bytes.

The pieces joined are the server's bytes from ServerInit on: no login, so no secret of one. The
last piece may be cut; what came before it counts. A file that does not begin like that is taken
for one of TigerVNC's (tests/perf/decperf): the bytes alone, in a pixel format that is known.
"""

from __future__ import annotations

import io
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vmconnect.errors import ResourceError, RfbError
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.events import Event
from vmconnect.vnc.pixel_format import OURS, PIXEL_FORMAT_BYTES, PixelFormat

__all__ = ["MAX_PIECE_BYTES", "TIGERVNC", "Player", "Recorder"]

MAX_PIECE_BYTES = 1 << 24
"""A file with a longer piece is none of ours."""

TIGERVNC = PixelFormat(32, 24, False, True, 255, 255, 255, 0, 8, 16)
"""The pixel format of TigerVNC's recordings."""

_MAGIC = b"vmconnect-rfb 1\n"
_PIECE = struct.Struct(">QI")

# What a server without a login says before ServerInit.
_PREAMBLE = b"RFB 003.008\n\1\1\0\0\0\0"


class Recorder:
    """Writes a recording; give `write` to an engine as its ``tap``.

    A piece is in the file when `write` returns. Raises ResourceError if the file cannot be
    written.
    """

    def __init__(self, path: str | os.PathLike[str], pixel_format: PixelFormat = OURS):
        self._path = Path(path)
        self._begun: int | None = None
        try:
            self._file = self._path.open("wb", buffering=0)
            self._file.write(_MAGIC + pixel_format.pack())
        except OSError as error:
            raise self._failed(error) from error

    def write(self, data: bytes | memoryview) -> None:
        """Add what the server has sent just now."""
        now = time.monotonic_ns()
        if self._begun is None:
            self._begun = now
        try:
            for start in range(0, len(data), MAX_PIECE_BYTES):
                piece = bytes(data[start : start + MAX_PIECE_BYTES])
                self._file.write(_PIECE.pack(now - self._begun, len(piece)) + piece)
        except (OSError, ValueError) as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _failed(self, error: Exception) -> ResourceError:
        return ResourceError(
            f"{self._path} cannot be written: {error}", hint="is there room, and permission?"
        )


class Player:
    """A recording that is read; ``pixel_format`` is what its pixels are in.

    Raises ResourceError if the file cannot be read, RfbError if it is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                self._timed = file.read(len(_MAGIC)) == _MAGIC
                form = file.read(PIXEL_FORMAT_BYTES)
        except OSError as error:
            raise self._failed(error) from error
        if self._timed and len(form) < PIXEL_FORMAT_BYTES:
            raise RfbError(f"{self.path} ends in its head", offset=len(_MAGIC) + len(form))
        self.pixel_format = PixelFormat.unpack(form) if self._timed else TIGERVNC

    def pieces(self) -> Iterator[tuple[float, bytes]]:
        """Give the pieces, each with its time in seconds since the first."""
        try:
            with self.path.open("rb") as file:
                yield from self._timed_pieces(file) if self._timed else _untimed_pieces(file)
        except OSError as error:
            raise self._failed(error) from error

    def engine(self, **options: Any) -> Engine:
        """Return an engine that waits for the first piece; ``options`` are `Engine`'s.

        Raises RfbError if the recording's pixel format is none.
        """
        try:
            engine = Engine(pull=False, pixel_format=self.pixel_format, **options)
        except ValueError as error:
            raise RfbError(f"{self.path} has an impossible pixel format: {error}") from error
        engine.receive(_PREAMBLE)
        engine.data_to_send()
        return engine

    def play(self, engine: Engine, speed: float | None = 1.0) -> Iterator[list[Event]]:
        """Give ``engine`` each piece at its time and yield what happened.

        ``speed`` is how many times faster than it was; None waits never. Raises what
        `Engine.receive` does.
        """
        begun = time.monotonic()
        for at, data in self.pieces():
            if speed is not None:
                time.sleep(max(0.0, begun + at / speed - time.monotonic()))
            yield engine.receive(data)
            engine.data_to_send()

    def _timed_pieces(self, file: io.BufferedReader) -> Iterator[tuple[float, bytes]]:
        file.seek(len(_MAGIC) + PIXEL_FORMAT_BYTES)
        while len(head := file.read(_PIECE.size)) == _PIECE.size:
            nanoseconds, length = _PIECE.unpack(head)
            if length > MAX_PIECE_BYTES:
                raise RfbError(f"{self.path} is damaged", offset=file.tell() - _PIECE.size)
            yield nanoseconds / 1e9, file.read(length)

    def _failed(self, error: OSError) -> ResourceError:
        return ResourceError(f"{self.path} cannot be read: {error.strerror}")


def _untimed_pieces(file: io.BufferedReader) -> Iterator[tuple[float, bytes]]:
    file.seek(0)
    while data := file.read(1 << 20):
        yield 0.0, data
