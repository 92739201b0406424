r"""Recordings: what a server has sent in a session, with times, in a file and back.

The file is, integers big-endian:

- the line ``vmconnect-rfb 1\n``;
- 16 bytes: the PIXEL_FORMAT that the client had asked for (RFC 6143, section 7.4);
- pieces to the end: 8 bytes, nanoseconds since the first; 4 bytes, a length; as many bytes. One
  without bytes says when the recording ends.

The pieces joined are the server's bytes from ServerInit on: no login, so no secret of one. The
last piece may be cut; what came before it counts. A file that does not begin like that is taken
for one of TigerVNC's (tests/perf/decperf): the bytes alone, in a pixel format that is known.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vmconnect.closing import Closing
from vmconnect.errors import ResourceError, RfbError
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.events import Event
from vmconnect.vnc.pixel_format import OURS, PIXEL_FORMAT_BYTES, PixelFormat

__all__ = ["MAX_PIECE_BYTES", "MAX_SECONDS", "TIGERVNC", "Player", "Recorder"]

MAX_PIECE_BYTES = 1 << 24
"""A file with a longer piece is none of ours."""

MAX_SECONDS = 366 * 24 * 3600
"""Nor is one that goes on for longer, or in which time goes back."""

TIGERVNC = PixelFormat(32, 24, False, True, 255, 255, 255, 0, 8, 16)
"""The pixel format of TigerVNC's recordings."""

_MAGIC = b"vmconnect-rfb 1\n"
_PRIVATE = 0o600
_PIECE = struct.Struct(">QI")

# What a server without a login says before ServerInit.
_PREAMBLE = b"RFB 003.008\n\1\1\0\0\0\0"


class Recorder(Closing):
    """Writes a recording; give `write` to an engine as its ``tap``.

    A piece is in the file when `write` returns. The file is its owner's alone: a screen is
    private. One that exists is written to only with ``overwrite``, and stays as it was until the
    first piece comes; if none comes, no new file is left. ``bytes`` and ``seconds`` are how much
    was recorded, for how long. ``pixel_format`` is what the server was asked for; a console asks
    for OURS.

    Raises ResourceError if the file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        pixel_format: PixelFormat = OURS,
        *,
        overwrite: bool = False,
    ):
        self.path = Path(path)
        self.bytes = 0
        self.seconds = 0.0
        self._head = _MAGIC + pixel_format.pack()
        self._begun: int | None = None
        try:
            self._file, self._new = _open(self.path, overwrite)
        except FileExistsError as error:
            raise ResourceError(
                f"{self.path} exists", hint="choose another name, or allow it to be overwritten"
            ) from error
        except OSError as error:
            raise self._failed(error) from error
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            self._file.close()
            raise ResourceError(f"{self.path} cannot be written: it is no file")

    def write(self, data: bytes | memoryview) -> None:
        """Add what the server has sent just now."""
        now = time.monotonic_ns()
        try:
            if self._begun is None:
                self._begun = now
                self._begin()
            for start in range(0, max(1, len(data)), MAX_PIECE_BYTES):
                piece = data[start : start + MAX_PIECE_BYTES]
                self._put(_PIECE.pack(now - self._begun, len(piece)), piece)
        except (OSError, ValueError) as error:
            raise self._failed(error) from error
        self.bytes += len(data)
        self.seconds = (now - self._begun) / 1e9

    def _begin(self) -> None:
        """Empty the file and write its head."""
        os.fchmod(self._file.fileno(), _PRIVATE)
        self._file.truncate(0)
        self._put(self._head)

    def _put(self, *parts: bytes | memoryview) -> None:
        written = os.writev(self._file.fileno(), parts)
        # Only a full disk, or a very large piece, ends a call before all is written.
        rest = memoryview(b"".join(parts) if written < sum(map(len, parts)) else b"")[written:]
        while rest:
            rest = rest[self._file.write(rest) :]

    def close(self) -> None:
        """Note when it ends, and close the file; a new one with nothing in it is removed."""
        if self._file.closed:
            return
        if self._begun is not None:
            # Of a disk that is full `write` has told.
            with contextlib.suppress(ResourceError):
                self.write(b"")
        self._file.close()
        if self._new and self._begun is None:
            self.path.unlink(missing_ok=True)

    def _failed(self, error: Exception) -> ResourceError:
        return ResourceError(
            f"{self.path} cannot be written: {error}", hint="is there room, and permission?"
        )


def _open(path: Path, overwrite: bool) -> tuple[io.FileIO, bool]:
    """Open a file for writing; return it, and whether it is new."""
    # Nothing but a file is meant, and a pipe must not keep us waiting.
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return io.FileIO(os.open(path, flags | os.O_CREAT | os.O_EXCL, _PRIVATE), "wb"), True
    except FileExistsError:
        if not overwrite:
            raise
        return io.FileIO(os.open(path, flags), "wb"), False


class Player:
    """A recording that is read; ``pixel_format`` is what its pixels are in.

    ``size`` is the file's, in bytes. ``cut`` says, once the pieces were read, that the last of
    them was cut: whoever wrote the file did not come to its end.

    Raises ResourceError if the file cannot be read, RfbError if it is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.cut = False
        try:
            with self.path.open("rb") as file:
                self._timed = file.read(len(_MAGIC)) == _MAGIC
                form = file.read(PIXEL_FORMAT_BYTES)
                self.size = os.fstat(file.fileno()).st_size
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
        before = 0
        while len(head := file.read(_PIECE.size)) == _PIECE.size:
            nanoseconds, length = _PIECE.unpack(head)
            if length > MAX_PIECE_BYTES or not before <= nanoseconds <= MAX_SECONDS * 1e9:
                raise RfbError(f"{self.path} is damaged", offset=file.tell() - _PIECE.size)
            before = nanoseconds
            data = file.read(length)
            self.cut = len(data) < length
            yield nanoseconds / 1e9, data
        self.cut = self.cut or bool(head)

    def _failed(self, error: OSError) -> ResourceError:
        return ResourceError(f"{self.path} cannot be read: {error.strerror}")


def _untimed_pieces(file: io.BufferedReader) -> Iterator[tuple[float, bytes]]:
    file.seek(0)
    while data := file.read(1 << 20):
        yield 0.0, data
