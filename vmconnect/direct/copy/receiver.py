"""From frames to a tree, whoever sends them.

This module runs in guests, too.
"""

from __future__ import annotations

import errno
import os
import stat
import zlib

from vmconnect.direct.copy.directory import Status
from vmconnect.direct.copy.frames import (
    COUNTS,
    DEPTH,
    HELD,
    LINK_BYTES,
    NUMBER,
    OFFSET,
    RESUME_BYTES,
    Entry,
    Fault,
    FrameError,
    Kind,
    check_name,
    unpack,
    unpack_entry,
    unpack_fault,
)

TYPE_CHECKING = False  # typing's own takes an emulated guest a tenth of a second to import
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from vmconnect.direct.copy.frames import Attributes, Bytes

    Answer = tuple[int, bytes] | None

__all__ = ["Named", "Receiver", "StoppedError", "matches"]

# After these nothing that follows can be written either.
_FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}

_SECOND = 10**9


class Named:
    """What a source is called at the destination: ``name``, or what matches ``pattern``.

    The name ``.`` is the destination itself.
    """

    __slots__ = ("name", "pattern")

    def __init__(self, name: bytes, pattern: bytes = b"") -> None:
        self.name = name
        self.pattern = pattern


class StoppedError(Exception):
    """Nothing more can be written."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.text)
        self.fault = fault


class _Level:
    """A directory on the way down; ``fresh`` is what it gets at the end, if we have made it.

    ``path`` is what its names follow where something is said of them.
    """

    def __init__(
        self,
        directory: Any,
        path: bytes,
        fresh: Status | None = None,
        attributes: Attributes = (),
    ) -> None:
        self.directory = directory
        self.path = path
        self.fresh = fresh
        self.attributes = attributes


class Receiver:
    """Takes one frame after the other; what it returns is the answer to that frame.

    ``root`` is where sources go, each as ``names`` says; ``path`` is what it is called. ``fail`` is
    called with what went wrong here with one file, ``lost`` with what the sender tells of one; the
    copy then goes on. With ``durable`` a file that comes in pieces is on the disk before it has its
    name. Raises FrameError when the sender breaks the protocol, StoppedError when
    nothing more can be written.
    """

    def __init__(
        self,
        root: Any,
        path: bytes,
        names: Sequence[Named],
        fail: Callable[[Fault], object],
        *,
        lost: Callable[[Fault], object] | None = None,
        special: bool = False,
        durable: bool = False,
        progress: Callable[[int, bytes], object] | None = None,
        total: Callable[[int, int], object] | None = None,
    ) -> None:
        self._names = names
        self._fail_with = fail
        self._lost_with = lost
        self._special = special
        self._durable = durable
        self._progress = progress
        self._total = total
        self._levels = [_Level(root, b"" if path == b"." else path.rstrip(b"/") + b"/")]
        self._skipped = 0
        self._top: Named | None = None
        self._part: Any = None
        self._resumable = False
        self._status: Status | None = None
        self._entry: Entry | None = None
        self._name = b""
        self._deaf = True
        self._crc = 0
        self._mark = os.urandom(4).hex().encode()
        self.files = 0
        self.size = 0
        self._takers: dict[int, Callable[[memoryview], Answer]] = {
            Kind.TOTAL: self._take_total,
            Kind.TOP: self._take_top,
            Kind.DIRECTORY: self._take_directory,
            Kind.UP: self._take_up,
            Kind.WHOLE: self._take_whole,
            Kind.FILE: self._take_file,
            Kind.BEGIN: self._take_begin,
            Kind.DATA: self._take_data,
            Kind.END: self._take_end,
            Kind.DROP: self._take_drop,
            Kind.LINK: self._take_link,
            Kind.SPECIAL: self._take_special,
            Kind.LOST: self._take_lost,
            Kind.ASK: self._take_ask,
            Kind.ABANDON: self._take_abandon,
            Kind.DONE: self._take_done,
        }

    def take(self, kind: int, payload: Bytes) -> Answer:
        """Take a frame; return what is to be answered, None for nothing."""
        taker = self._takers.get(kind)
        if taker is None or not self._levels:
            raise FrameError(f"a frame of kind {kind}")
        within = kind in {Kind.BEGIN, Kind.DATA, Kind.END, Kind.DROP}
        if within != (self._entry is not None) and kind not in {Kind.ABANDON, Kind.TOTAL}:
            raise FrameError(f"a frame of kind {kind} out of its place")
        try:
            return taker(memoryview(payload))
        except OSError as error:
            if isinstance(error, (ConnectionError, TimeoutError)):
                raise
            # Only what is the sender's alone gets here; each taker deals with its own.
            self._fail(self._levels[-1].path, error)
            return None

    def close(self, *, keep: bool = True) -> None:
        """Leave; a part that can be gone on with stays if ``keep``."""
        part, self._part = self._part, None
        try:
            if part is not None:
                if keep and self._resumable:
                    part.close()
                else:
                    part.discard()
        except OSError:
            pass
        while self._levels:
            level = self._levels.pop()
            try:
                if level.fresh is not None:
                    level.directory.finish(level.fresh, level.attributes)
            except OSError:
                pass
            finally:
                level.directory.close()

    # Where something goes.

    def _place(self, entry: Entry) -> tuple[_Level, bytes, bytes]:
        """Return the directory that an entry goes to, its name there, and its path."""
        level = self._levels[-1]
        name = entry.name
        if len(self._levels) == 1:
            if self._top is None:
                raise FrameError("more than was asked for")
            name, self._top = _name_of(self._top, entry.name), None
        return level, name, level.path + name

    def _before(self, level: _Level, name: bytes) -> Status | None:
        """Return what is in the place of a file that comes; OSError if it may not be replaced."""
        found: Status | None = None
        if level.fresh is None:
            found = level.directory.status(name)
        if found is None or stat.S_ISLNK(found.mode) or stat.S_ISREG(found.mode):
            return found
        if stat.S_ISDIR(found.mode):
            raise IsADirectoryError(errno.EISDIR, "there is a directory of that name")
        raise OSError(errno.EEXIST, "what has that name is no file, and is not replaced")

    def _fail(self, path: bytes, error: OSError) -> None:
        fault = Fault(path, error.errno or 0, error.strerror or str(error))
        if error.errno in _FATAL:
            raise StoppedError(fault) from error
        self._fail_with(fault)

    def _part_name(self, name: bytes, mark: bytes) -> bytes:
        return b".%s.%s.part" % (name[:230], mark)

    # Directories.

    def _take_total(self, payload: memoryview) -> Answer:
        files, size = unpack(COUNTS, payload)
        if self._total:
            self._total(files, size)
        return None

    def _take_top(self, payload: memoryview) -> Answer:
        (index,) = unpack(NUMBER, payload)
        if len(self._levels) > 1 or self._skipped or index >= len(self._names):
            raise FrameError("a source that was not asked for")
        self._top = self._names[index]
        return None

    def _take_directory(self, payload: memoryview) -> Answer:
        entry, _ = unpack_entry(payload)
        if self._skipped or len(self._levels) > DEPTH + 1:
            self._skipped += 1
            return None
        level, name, path = self._place(entry)
        fresh = None
        try:
            if name != b"." and not self._is_directory(level, name):
                level.directory.make(name)
                fresh = Status(entry.mode, entry.mtime_ns, 0)
            inner = level.directory.enter(name)
        except OSError as error:
            self._skipped = 1
            self._fail(path, error)
            return None
        self._levels.append(_Level(inner, path + b"/", fresh, entry.attributes))
        return None

    def _is_directory(self, level: _Level, name: bytes) -> bool:
        """Return whether there is a directory of that name; OSError if there is something else."""
        found = level.directory.status(name)
        if found is not None and not stat.S_ISDIR(found.mode):
            what = "a link" if stat.S_ISLNK(found.mode) else "no directory"
            raise NotADirectoryError(errno.ENOTDIR, f"what has that name is {what}")
        return found is not None

    def _take_up(self, _payload: memoryview) -> Answer:
        if self._skipped:
            self._skipped -= 1
            return None
        if len(self._levels) == 1:
            raise FrameError("up from the top")
        level = self._levels.pop()
        try:
            if level.fresh is not None:
                level.directory.finish(level.fresh, level.attributes)
        except OSError as error:
            self._fail(level.path, error)
        finally:
            level.directory.close()
        return None

    # Files.

    def _take_whole(self, payload: memoryview) -> Answer:
        (crc,) = unpack(NUMBER, payload)
        entry, data = unpack_entry(payload[NUMBER.size :])
        if entry.size != len(data):
            raise FrameError("a file that is not whole")
        if self._skipped:
            return None
        level, name, path = self._place(entry)
        try:
            self._before(level, name)
            if zlib.crc32(data) != crc:
                raise OSError(errno.EBADMSG, "it arrived damaged")
            status = Status(entry.mode, entry.mtime_ns, entry.size)
            part = self._part_name(name, self._mark)
            level.directory.write(part, name, status, entry.attributes, data)
        except OSError as error:
            self._fail(path, error)
        else:
            self._count(entry.size, path)
            self.files += 1
        return None

    def _take_file(self, payload: memoryview) -> Answer:
        entry, _ = unpack_entry(payload)
        large = entry.size >= RESUME_BYTES
        self._entry, self._crc, self._deaf = entry, 0, True
        held = HELD.pack(0, 0)
        if not self._skipped:
            level, self._name, path = self._place(entry)
            try:
                self._before(level, self._name)
                self._status = Status(entry.mode, entry.mtime_ns, entry.size)
                self._part = self._open_part(level, entry, large)
                self._deaf = False
                if large and 0 < self._part.size <= entry.size:
                    held = HELD.pack(self._part.size, self._part.checksum())
            except OSError as error:
                self._fail(path, error)
        return (Kind.HELD, held) if large else None

    def _open_part(self, level: _Level, entry: Entry, large: bool) -> Any:
        self._resumable = large
        if large:
            version = b"%d %d %s" % (entry.size, entry.mtime_ns, self._name)
            mark = b"%08x" % zlib.crc32(version)
            try:
                return level.directory.part(self._part_name(self._name, mark), resume=True)
            except BlockingIOError:
                self._resumable = False  # Another copy of it is under way.
        return level.directory.part(self._part_name(self._name, self._mark))

    def _take_begin(self, payload: memoryview) -> Answer:
        (start,) = unpack(OFFSET, payload)
        if not self._deaf:
            if not start:
                self._part.empty()
            self._count(start, self._name, moved=False)
        return None

    def _take_data(self, payload: memoryview) -> Answer:
        (offset,) = unpack(OFFSET, payload)
        data = payload[OFFSET.size :]
        entry = self._entry
        if entry is None or offset + len(data) > entry.size:
            raise FrameError("more of a file than it has")
        if self._deaf:
            return None
        self._crc = zlib.crc32(data, self._crc)
        try:
            self._part.write(offset, data)
        except OSError as error:
            self._drop(error)
        else:
            self._count(len(data), self._name)
        return None

    def _take_end(self, payload: memoryview) -> Answer:
        (crc,) = unpack(NUMBER, payload)
        if not self._deaf:
            try:
                if crc != self._crc:
                    raise OSError(errno.EBADMSG, "it arrived damaged")
                entry = self._entry
                if self._durable:
                    self._part.sync()
                self._part.finish(self._status, entry.attributes if entry else (), self._name)
            except OSError as error:
                self._drop(error)
            else:
                self.files += 1
        self._part = self._entry = None
        return None

    def _take_drop(self, payload: memoryview) -> Answer:
        fault = unpack_fault(payload)
        if self._part is not None:
            self._part.discard()
        self._part = self._entry = None
        if self._lost_with:
            self._lost_with(fault)
        return None

    def _drop(self, error: OSError) -> None:
        """Give a file up, and take no more of it."""
        self._deaf = True
        part, self._part = self._part, None
        try:
            part.discard()
        except OSError:
            pass
        level = self._levels[-1]
        self._fail(level.path + self._name, error)

    # Others.

    def _take_link(self, payload: memoryview) -> Answer:
        entry, rest = unpack_entry(payload)
        target = bytes(rest)
        if not 0 < len(target) <= LINK_BYTES or b"\0" in target:
            raise FrameError("a senseless link")
        if self._skipped:
            return None
        level, name, path = self._place(entry)
        try:
            before = self._before(level, name)
            if before is not None:
                if stat.S_ISLNK(before.mode) and level.directory.target(name) == target:
                    return None
                part = self._part_name(name, self._mark)
                level.directory.link(target, part, entry.mtime_ns)
                level.directory.rename(part, name)
            else:
                level.directory.link(target, name, entry.mtime_ns)
        except OSError as error:
            self._fail(path, error)
        else:
            self.files += 1
        return None

    def _take_special(self, payload: memoryview) -> Answer:
        (device,) = unpack(OFFSET, payload)
        entry, _ = unpack_entry(payload[OFFSET.size :])
        kind = stat.S_IFMT(entry.mode)
        if not self._special or kind not in {stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK}:
            raise FrameError("a special file that was not asked for")
        if self._skipped:
            return None
        level, name, path = self._place(entry)
        try:
            if self._before(level, name) is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            mode = kind | entry.mode & 0o777
            level.directory.special(name, Status(mode, entry.mtime_ns, 0, device))
        except OSError as error:
            self._fail(path, error)
        else:
            self.files += 1
        return None

    def _take_lost(self, payload: memoryview) -> Answer:
        self._top = None
        fault = unpack_fault(payload)
        if self._lost_with:
            self._lost_with(fault)
        return None

    def _take_ask(self, payload: memoryview) -> Answer:
        level = self._levels[-1]
        answer = bytearray()
        while payload:
            entry, payload = unpack_entry(payload)
            name = entry.name
            if len(self._levels) == 1:
                if self._top is None:
                    raise FrameError("more than was asked for")
                name = _name_of(self._top, name)
            answer.append(self._skipped == 0 and not self._has(level, name, entry))
        return Kind.WANTED, bytes(answer)

    def _has(self, level: _Level, name: bytes, entry: Entry) -> bool:
        """Return whether a file is here already, as its size and time tell."""
        if level.fresh is not None:
            return False
        try:
            found = level.directory.status(name)
            if found is None or not _is_same(found, entry):
                return False
            if (found.mode ^ entry.mode) & 0o777:
                source = level.directory.source(name)
                try:
                    # The name may be another's by now; what is open is what is looked at.
                    if not _is_same(source.status, entry):
                        return False
                    source.set_mode(entry.mode)
                finally:
                    source.close()
        except OSError:
            return False
        self._count(entry.size, name, moved=False)
        return True

    def _take_abandon(self, _payload: memoryview) -> Answer:
        self.close(keep=False)
        return Kind.SUM, COUNTS.pack(self.files, self.size)

    def _take_done(self, _payload: memoryview) -> Answer:
        if len(self._levels) != 1 or self._skipped:
            raise FrameError("an end in the midst of a tree")
        return Kind.SUM, COUNTS.pack(self.files, self.size)

    def _count(self, size: int, path: bytes, *, moved: bool = True) -> None:
        if moved:
            self.size += size
        if self._progress:
            self._progress(size, path)


def _is_same(found: Status, entry: Entry) -> bool:
    """Return whether a file is the one that is told of, as its size and time have it."""
    if not stat.S_ISREG(found.mode) or found.size != entry.size:
        return False
    # SFTP and some file systems know whole seconds only.
    one, other = found.mtime_ns, entry.mtime_ns
    whole = not (one % _SECOND and other % _SECOND)
    return one == other or (whole and one // _SECOND == other // _SECOND)


def _name_of(named: Named, told: bytes) -> bytes:
    """Return what a source is called; FrameError if the sender tells what was not asked for."""
    if not named.pattern:
        return named.name
    name = check_name(told)
    if name != named.pattern and not matches(name, named.pattern):
        raise FrameError("a source that was not asked for")
    return name


def matches(name: bytes, pattern: bytes) -> bool:
    """Return whether a name matches, as a shell has it: a dot at its beginning only to a dot."""
    from fnmatch import fnmatchcase

    if name.startswith(b".") and not pattern.startswith(b"."):
        return False
    return fnmatchcase(os.fsdecode(name), os.fsdecode(pattern))
