"""Recordings of what a shell shows: asciicast v2, which asciinema and others play.

The format is of https://docs.asciinema.org/manual/asciicast/v2/: a line with a JSON object that
describes the terminal, then a line for each event, ``[seconds, "o", text]`` or ``[seconds, "r",
"80x24"]``.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from vmconnect.closing import Closing
from vmconnect.direct.terminal import Terminal
from vmconnect.errors import ResourceError

__all__ = ["AsciicastRecorder"]

_PRIVATE = 0o600


class AsciicastRecorder(Closing):
    """Writes a recording; what has come is in the file when `write` returns.

    The file is new, and its owner's alone; if nothing comes, none is left. What is typed is not
    recorded, but for what the guest shows of it. Bytes that are no UTF-8 become U+FFFD, as the
    format has no place for them. After a failure nothing more is written, ``error`` is why, and
    the shell goes on. Safe from any thread.

    Raises ResourceError if the file exists, or cannot be made.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        terminal: Terminal,
        *,
        title: str = "",
        environment: Mapping[str, str] | None = None,
    ):
        self.path = Path(path)
        self.error: ResourceError | None = None
        self._lock = threading.Lock()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._started = time.monotonic()
        self._begun = False
        flags = os.O_WRONLY | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL | os.O_APPEND
        try:
            self._file: int | None = os.open(self.path, flags, _PRIVATE)
        except FileExistsError as error:
            raise ResourceError(f"{self.path} exists", hint="choose another name") from error
        except OSError as error:
            raise self._failed(error) from error
        self._put(
            {
                "version": 2,
                "width": terminal.columns,
                "height": terminal.rows,
                "timestamp": int(time.time()),
                **({"title": title} if title else {}),
                "env": {"TERM": terminal.type, **(environment or {})},
            }
        )

    def write(self, data: bytes) -> None:
        """Add what the shell has written just now."""
        with self._lock:
            self._event("o", self._decoder.decode(data))

    def resize(self, columns: int, rows: int) -> None:
        """Note that the terminal has another size from now on."""
        with self._lock:
            self._event("r", f"{columns}x{rows}")

    def close(self) -> None:
        """Close the file; again and again if one likes."""
        with self._lock:
            self._event("o", self._decoder.decode(b"", final=True))
            if self._file is not None and not self._begun:
                self.path.unlink(missing_ok=True)
            self._end()

    def _event(self, kind: str, text: str) -> None:
        if text:
            self._begun = True
            self._put([round(time.monotonic() - self._started, 6), kind, text])

    def _put(self, what: object) -> None:
        """Add a line, by one write: a reader, or a sudden end, finds it whole or not at all."""
        if self._file is None:
            return
        line = json.dumps(what, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        try:
            written = os.write(self._file, line)
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError as error:
            self.error = self._failed(error)
            self._end()

    def _end(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                os.close(file)

    def _failed(self, error: OSError) -> ResourceError:
        return ResourceError(
            f"{self.path} cannot be written: {error.strerror}",
            hint="is there room, and permission?",
        )
