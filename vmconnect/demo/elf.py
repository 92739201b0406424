"""What an ELF file says about itself: the libraries and modules that it needs.

Only 64-bit little-endian files, in the words of the System V ABI (gABI, chapters 4 and 5). Every
offset and size is checked against the file before it is used.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from vmconnect.errors import ProtocolError

__all__ = ["Dynamic", "dynamic", "is_elf", "module_info"]

_MAGIC: Final = b"\x7fELF\x02\x01"  # 64-bit, little-endian
_FILE_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER: Final = struct.Struct("<IIQQQQQQ")
_SECTION_HEADER: Final = struct.Struct("<IIQQQQIIQQ")
_DYNAMIC_ENTRY: Final = struct.Struct("<qQ")

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ = 0, 1, 5, 10

# Real files need some dozens, with names below 100 bytes.
_MAX_NEEDED: Final = 1024
_MAX_NAME_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Dynamic:
    """The run-time needs of a program or library.

    ``needed`` are sonames in the file's order; ``interpreter`` is the loader's path, None for a
    library and for a static program.
    """

    needed: tuple[str, ...]
    interpreter: str | None


def is_elf(data: bytes) -> bool:
    """Tell whether ``data`` begins as a file that this module reads."""
    return data.startswith(_MAGIC)


def dynamic(data: bytes) -> Dynamic:
    """Read the needs of the program or library in ``data``; ProtocolError if it is none."""
    segments = list(_segments(data))
    interpreter = None
    entries: list[tuple[int, int]] = []
    for kind, offset, _address, size in segments:
        if kind == _PT_INTERP and interpreter is None:
            interpreter = _text(_slice(data, offset, size))
        elif kind == _PT_DYNAMIC and not entries:
            table = _slice(data, offset, size)
            whole = len(table) - len(table) % _DYNAMIC_ENTRY.size
            entries = list(_DYNAMIC_ENTRY.iter_unpack(table[:whole]))
    named: dict[int, int] = {}
    needed: list[int] = []
    for tag, value in entries:
        if tag == _DT_NULL:
            break
        if tag == _DT_NEEDED:
            needed.append(value)
        else:
            named.setdefault(tag, value)
    if not needed:
        return Dynamic((), interpreter)
    if len(needed) > _MAX_NEEDED:
        raise ProtocolError(f"an ELF file that needs {len(needed)} libraries")
    if _DT_STRTAB not in named or _DT_STRSZ not in named:
        raise ProtocolError("an ELF file with needs but without their names")
    start = _file_offset(segments, named[_DT_STRTAB])
    strings = _slice(data, start, named[_DT_STRSZ])
    return Dynamic(tuple(_string_at(strings, each) for each in needed), interpreter)


def module_info(data: bytes) -> dict[str, tuple[str, ...]]:
    """Read the ``.modinfo`` of the kernel module in ``data``: key to values, in order.

    ``name`` and ``depends`` (comma-separated) are what a loader wants; ProtocolError if the file
    is no ELF file. A file without the section gives an empty dictionary.
    """
    found: dict[str, list[str]] = {}
    for record in _section(data, ".modinfo").split(b"\0"):
        key, sign, value = record.partition(b"=")
        if sign:
            found.setdefault(_text(key), []).append(_text(value))
    return {key: tuple(values) for key, values in found.items()}


def _header(data: bytes) -> tuple[int, ...]:
    """Return e_phoff, e_shoff, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx."""
    if not is_elf(data) or len(data) < _FILE_HEADER.size:
        raise ProtocolError("not a 64-bit ELF file")
    fields = _FILE_HEADER.unpack_from(data)
    return (fields[5], fields[6], *fields[9:14])


def _segments(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield the type, file offset, address and file size of each segment."""
    table, _, entry_bytes, count, *_ = _header(data)
    if count and entry_bytes < _PROGRAM_HEADER.size:
        raise ProtocolError("an ELF file whose program headers are too short")
    for index in range(count):
        at = table + index * entry_bytes
        fields = _PROGRAM_HEADER.unpack(_slice(data, at, _PROGRAM_HEADER.size))
        yield fields[0], fields[2], fields[3], fields[5]


def _section(data: bytes, wanted: str) -> bytes:
    """Return the bytes of the section of that name, none if it has none."""
    _, table, _, _, entry_bytes, count, names_index = _header(data)
    if not count:
        return b""
    if entry_bytes < _SECTION_HEADER.size or names_index >= count:
        raise ProtocolError("an ELF file whose section headers are wrong")
    headers = [
        _SECTION_HEADER.unpack(_slice(data, table + index * entry_bytes, _SECTION_HEADER.size))
        for index in range(count)
    ]
    names = _slice(data, headers[names_index][4], headers[names_index][5])
    for header in headers:
        if _string_at(names, header[0]) == wanted:
            return _slice(data, header[4], header[5])
    return b""


def _file_offset(segments: list[tuple[int, int, int, int]], address: int) -> int:
    for kind, offset, start, size in segments:
        if kind == _PT_LOAD and start <= address < start + size:
            return offset + address - start
    raise ProtocolError(f"an ELF file without anything at its address {address:#x}")


def _slice(data: bytes, offset: int, size: int) -> bytes:
    if offset + size > len(data):
        raise ProtocolError("an ELF file that ends too early", offset=len(data))
    return data[offset : offset + size]


def _string_at(strings: bytes, offset: int) -> str:
    end = strings.find(b"\0", offset, offset + _MAX_NAME_BYTES)
    if offset >= len(strings) or end < 0:
        raise ProtocolError("an ELF file with a name outside its string table")
    return _text(strings[offset:end])


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")
