"""What goes over the wire of a copy: frames, and what is in them.

A frame is a kind (one byte), the payload's length (32 bits), and the payload. Numbers are
big-endian. An *entry* is what is known of a file besides its contents: mode, time, size, name,
extended attributes.

========== =========== ==================================================
from the sender
------------------------------------------------------------------------
TOTAL      ``>QQ``     files and bytes that will come, about
TOP        ``>I``      the next entry is the source of that number
DIRECTORY  entry       go into it; made if it is not there
UP                     and out again
WHOLE      ``>I`` entry data    a small file: its CRC-32, and all of it
FILE       entry       a file; then DATA, and END or DROP
BEGIN      ``>Q``      what is HELD up to there is good
DATA       ``>Q`` bytes         bytes at that offset; where there are none, there is a hole
END        ``>I``      the file is whole: CRC-32 of all DATA
DROP       failure     it could not be read to its end
LINK       entry target         a symbolic link
SPECIAL    ``>Q`` entry         a FIFO or device: its number
LOST       failure     something could not be read at all
ASK        entries     which of these files of this directory are wanted?
ABANDON                forget it, and leave no parts
DONE                   that was all
from the receiver
------------------------------------------------------------------------
WANTED     bytes       one byte for each entry of ASK, 1 if it is wanted
HELD       ``>QI``     how much of FILE is there already, and its CRC-32
FAILED     failure     something could not be written
FATAL      failure     nothing can be written any more
SUM        ``>QQ``     files and bytes that were written; answers DONE and ABANDON
========== =========== ==================================================

This module runs in guests, too: for Python 3.7 and later, with nothing but its standard library.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False  # typing's own takes an emulated guest a tenth of a second to import
if TYPE_CHECKING:
    Bytes = bytes | bytearray | memoryview
    Attributes = tuple[tuple[bytes, bytes], ...]

__all__ = ["Entry", "Fault", "FrameError", "Kind", "check_name", "pack_entry", "unpack_entry"]

BLOCK_BYTES = 1 << 18
WHOLE_BYTES = 1 << 16
"""Files up to this size go in one frame."""
RESUME_BYTES = 1 << 22
"""Files from this size on are gone on with after a cut."""
MAX_PAYLOAD = 1 << 19
NAME_BYTES = 255
LINK_BYTES = 4095
ATTRIBUTES_BYTES = 1 << 16
DEPTH = 256
"""How deep a tree may be; each level holds a descriptor."""

HEADER = struct.Struct(">BI")
ENTRY = struct.Struct(">IqQHH")
OFFSET = struct.Struct(">Q")
NUMBER = struct.Struct(">I")
COUNTS = struct.Struct(">QQ")
HELD = struct.Struct(">QI")
FAULT = struct.Struct(">iHH")
_ATTRIBUTE = struct.Struct(">HI")
_SECOND = 10**9
_MOST_SECONDS = 1 << 33  # far enough for a time, and no overflow in any call
_TEXT_BYTES = 1000
_PATH_BYTES = 8192


class Kind:
    """The kinds of frames."""

    TOTAL, TOP, DIRECTORY, UP, WHOLE, FILE, BEGIN, DATA, END, DROP, LINK, SPECIAL = range(1, 13)
    LOST, ASK, ABANDON, DONE = range(13, 17)
    WANTED, HELD, FAILED, FATAL, SUM = range(32, 37)


class FrameError(Exception):
    """The other end of a copy broke the protocol."""


class Entry:
    """A file but for its contents; ``mode`` has its kind as stat(2) does."""

    __slots__ = ("attributes", "mode", "mtime_ns", "name", "size")

    def __init__(
        self, mode: int, mtime_ns: int, size: int, name: bytes, attributes: Attributes = ()
    ) -> None:
        self.mode = mode
        self.mtime_ns = mtime_ns
        self.size = size
        self.name = name
        self.attributes = attributes


class Fault:
    """What went wrong with one file: ``number`` is errno's, 0 where there is none."""

    __slots__ = ("number", "path", "text")

    def __init__(self, path: bytes, number: int, text: str) -> None:
        self.path = path
        self.number = number
        self.text = text


def check_name(name: bytes) -> bytes:
    """Return ``name`` if it is one name within a directory; FrameError if not."""
    if not 0 < len(name) <= NAME_BYTES or b"/" in name or b"\0" in name or name in {b".", b".."}:
        raise FrameError(f"a name that is none: {name[:NAME_BYTES]!r}")
    return name


def pack_entry(entry: Entry) -> bytes:
    """Return the wire form of an entry; attributes that are too many are left out."""
    parts = [b"", entry.name]
    size = 0
    count = 0
    for name, value in entry.attributes:
        size += _ATTRIBUTE.size + len(name) + len(value)
        if size > ATTRIBUTES_BYTES:
            break
        parts += (_ATTRIBUTE.pack(len(name), len(value)), name, value)
        count += 1
    parts[0] = ENTRY.pack(entry.mode, entry.mtime_ns, entry.size, len(entry.name), count)
    return b"".join(parts)


def unpack_entry(payload: memoryview) -> tuple[Entry, memoryview]:
    """Return the entry at the payload's beginning, and what follows it; raises FrameError."""
    try:
        mode, mtime_ns, size, length, count = ENTRY.unpack_from(payload)
        place = ENTRY.size + length
        name = bytes(payload[ENTRY.size : place])
        attributes: list[tuple[bytes, bytes]] = []
        for _ in range(count):
            name_length, value_length = _ATTRIBUTE.unpack_from(payload, place)
            place += _ATTRIBUTE.size
            end = place + name_length + value_length
            value = payload[place:end]
            if len(value) < name_length + value_length:
                raise FrameError("an entry that is cut")
            attributes.append((bytes(value[:name_length]), bytes(value[name_length:])))
            place = end
    except struct.error:
        raise FrameError("an entry that is cut") from None
    if len(name) < length or size >> 63 or abs(mtime_ns) > _MOST_SECONDS * _SECOND:
        raise FrameError("a senseless entry")
    return Entry(mode, mtime_ns, size, check_name(name), tuple(attributes)), payload[place:]


def pack_fault(fault: Fault) -> bytes:
    """Return the wire form of a failure."""
    path = fault.path[-_PATH_BYTES:]
    text = fault.text.encode("utf-8", "replace")[:_TEXT_BYTES]
    return FAULT.pack(fault.number, len(path), len(text)) + path + text


def unpack_fault(payload: memoryview) -> Fault:
    """Return the failure in a payload; raises FrameError."""
    try:
        number, path_length, text_length = FAULT.unpack_from(payload)
    except struct.error:
        raise FrameError("a failure that is cut") from None
    rest = bytes(payload[FAULT.size :])
    if len(rest) != path_length + text_length:
        raise FrameError("a failure that is cut")
    text = rest[path_length:].decode("utf-8", "replace")
    return Fault(rest[:path_length], number, text)


def unpack(form: struct.Struct, payload: Bytes) -> tuple[int, ...]:
    """Return the numbers that a payload begins with; raises FrameError."""
    try:
        return form.unpack_from(payload)
    except struct.error:
        raise FrameError("a frame that is cut") from None
