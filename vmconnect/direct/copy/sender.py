"""From a tree to frames.

This module runs in guests, too.
"""

from __future__ import annotations

import errno
import os
import stat
import zlib

from vmconnect.direct.copy.ahead import FileAhead, ShrunkError
from vmconnect.direct.copy.frames import (
    COUNTS,
    DEPTH,
    HELD,
    NUMBER,
    OFFSET,
    RESUME_BYTES,
    WHOLE_BYTES,
    Entry,
    Fault,
    FrameError,
    Kind,
    pack_entry,
    pack_fault,
    unpack,
)

TYPE_CHECKING = False  # typing's own takes an emulated guest a tenth of a second to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmconnect.direct.copy.directory import Source, Status
    from vmconnect.direct.copy.frames import Bytes

    Put = Callable[[int, Bytes], object]
    Ask = Callable[[int, Bytes], tuple[int, memoryview]]

__all__ = ["Sender"]

_ASK_BYTES = 1 << 17
_SPECIALS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class Sender:
    """Sends what it is told to, one source after the other; then `done`.

    ``put`` sends a frame, ``ask`` sends one and returns the answer. What cannot be read is told
    to the receiver, and the copy goes on. ``progress`` is called with the bytes of each piece.
    """

    def __init__(
        self,
        put: Put,
        ask: Ask,
        *,
        sync: bool = False,
        special: bool = False,
        progress: Callable[[int, bytes], object] | None = None,
    ) -> None:
        self._put = put
        self._ask = ask
        self._sync = sync
        self._special = special
        self._progress = progress
        self._block = memoryview(bytearray(WHOLE_BYTES))

    def total(self, files: int, size: int) -> None:
        """Tell how much will come, about."""
        self._put(Kind.TOTAL, COUNTS.pack(files, size))

    def send(self, index: int, directory: Any, name: bytes, path: bytes) -> None:
        """Send the source of that number: ``name`` in ``directory``, a link to it followed.

        ``path`` is what it is called where something is said of it.
        """
        self._put(Kind.TOP, NUMBER.pack(index))
        try:
            status = directory.status(name, follow=True)
            if status is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        except OSError as error:
            self._lost(path, error)
            return
        if self._sync and stat.S_ISREG(status.mode) and not self._wanted([(name, status)]):
            return
        self._send(directory, name, status, path, 0)

    def lost(self, path: bytes, number: int, text: str) -> None:
        """Tell that something could not be read."""
        self._put(Kind.LOST, pack_fault(Fault(path, number, text)))

    def done(self) -> tuple[int, int]:
        """End, and return how many files and bytes were written."""
        kind, payload = self._ask(Kind.DONE, b"")
        if kind != Kind.SUM:
            raise FrameError("no sum at the end")
        files, size = unpack(COUNTS, payload)
        return files, size

    def _lost(self, path: bytes, error: OSError) -> None:
        if isinstance(error, (ConnectionError, TimeoutError)):
            raise error  # The whole tree has gone.
        self.lost(path, error.errno or 0, error.strerror or str(error))

    def _send(self, directory: Any, name: bytes, status: Status, path: bytes, depth: int) -> None:
        kind = stat.S_IFMT(status.mode)
        try:
            if kind == stat.S_IFDIR:
                self._tree(directory, name, status, path, depth)
            elif kind == stat.S_IFREG:
                self._file(directory, name, path, follow=not depth)
            elif kind == stat.S_IFLNK:
                entry = pack_entry(Entry(status.mode, status.mtime_ns, 0, _sent(name)))
                self._put(Kind.LINK, entry + directory.target(name))
            elif self._special and kind != stat.S_IFSOCK:
                entry = pack_entry(Entry(status.mode, status.mtime_ns, 0, _sent(name)))
                self._put(Kind.SPECIAL, OFFSET.pack(status.device) + entry)
            else:
                self.lost(path, 0, f"it is {_SPECIALS.get(kind, 'no file')}")
        except OSError as error:
            self._lost(path, error)

    def _tree(self, directory: Any, name: bytes, status: Status, path: bytes, depth: int) -> None:
        if depth >= DEPTH:
            self.lost(path, 0, "it lies too deep")
            return
        inner = directory.enter(name, follow=not depth)
        try:
            names = inner.names()
            entry = Entry(status.mode, status.mtime_ns, 0, _sent(name), inner.attributes())
            self._put(Kind.DIRECTORY, pack_entry(entry))
            unwanted = self._unwanted(inner, names) if self._sync else frozenset()
            for each in names:
                if each in unwanted:
                    continue
                below = path + b"/" + each
                try:
                    found = inner.status(each)
                    if found is None:
                        raise FileNotFoundError(errno.ENOENT, "it has vanished")
                except OSError as error:
                    self._lost(below, error)
                    continue
                self._send(inner, each, found, below, depth + 1)
            self._put(Kind.UP, b"")
        finally:
            inner.close()

    def _unwanted(self, directory: Any, names: list[bytes]) -> frozenset[bytes]:
        """Return the files of a directory that the receiver has already."""
        files = []
        for each in names:
            try:
                found = directory.status(each)
            except OSError:
                continue
            if found is not None and stat.S_ISREG(found.mode):
                files.append((each, found))
        wanted = self._wanted(files)
        unwanted = [(each, status.size) for each, status in files if each not in wanted]
        if self._progress:
            self._progress(sum(size for _, size in unwanted), b"")
        return frozenset(each for each, _ in unwanted)

    def _wanted(self, files: list[tuple[bytes, Status]]) -> frozenset[bytes]:
        """Ask which of these files the receiver wants."""
        wanted: list[bytes] = []
        while files:
            parts: list[bytes] = []
            size = 0
            for name, status in files:
                part = pack_entry(Entry(status.mode, status.mtime_ns, status.size, _sent(name)))
                size += len(part)
                if size > _ASK_BYTES:
                    break
                parts.append(part)
            kind, answer = self._ask(Kind.ASK, b"".join(parts))
            if kind != Kind.WANTED or len(answer) != len(parts):
                raise FrameError("a senseless answer")
            wanted += [files[place][0] for place, yes in enumerate(answer) if yes]
            files = files[len(parts) :]
        return frozenset(wanted)

    def _file(self, directory: Any, name: bytes, path: bytes, *, follow: bool) -> None:
        source = directory.source(name, follow=follow)
        try:
            status = source.status
            if not stat.S_ISREG(status.mode):
                self.lost(path, 0, "it is no file any more")
                return
            entry = Entry(
                status.mode, status.mtime_ns, status.size, _sent(name), source.attributes()
            )
            if status.size <= WHOLE_BYTES:
                self._whole(source, entry, path)
            else:
                self._pieces(source, entry, path)
        finally:
            source.close()

    def _whole(self, source: Source, entry: Entry, path: bytes) -> None:
        size = entry.size
        block = self._block[:size]
        place = 0
        while place < size:
            count = source.read_into(place, block[place:])
            if not count:
                self.lost(path, 0, "it shrank while it was copied")
                return
            place += count
        crc = NUMBER.pack(zlib.crc32(block))
        self._put(Kind.WHOLE, b"".join((crc, pack_entry(entry), block)))
        if self._progress:
            self._progress(size, path)

    def _pieces(self, source: Source, entry: Entry, path: bytes) -> None:
        packed = pack_entry(entry)
        start = 0
        if entry.size >= RESUME_BYTES:
            kind, answer = self._ask(Kind.FILE, packed)
            if kind != Kind.HELD:
                raise FrameError("a senseless answer")
            held, crc = unpack(HELD, answer)
            if 0 < held <= entry.size and source.checksum(held) == crc:
                start = held
            self._put(Kind.BEGIN, OFFSET.pack(start))
            if self._progress and start:
                self._progress(start, path)
        else:
            self._put(Kind.FILE, packed)
        try:
            crc = self._data(source, start, path)
        except ShrunkError:
            fault = Fault(path, 0, "it shrank while it was copied")
            self._put(Kind.DROP, pack_fault(fault))
        except OSError as error:
            if isinstance(error, (ConnectionError, TimeoutError)):
                raise
            fault = Fault(path, error.errno or 0, error.strerror or str(error))
            self._put(Kind.DROP, pack_fault(fault))
        else:
            self._put(Kind.END, NUMBER.pack(crc))

    def _data(self, source: Source, start: int, path: bytes) -> int:
        ahead = FileAhead(source, start)
        payloads = ahead.payloads()
        try:
            for payload in payloads:
                self._put(Kind.DATA, payload)
                if self._progress:
                    self._progress(len(payload) - OFFSET.size, path)
        finally:
            payloads.close()
        return ahead.crc


def _sent(name: bytes) -> bytes:
    """Return what a name is called in a frame; a directory itself is named by the receiver."""
    return name if name != b"." else b"_"
