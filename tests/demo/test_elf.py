"""The ELF reader, against readelf on real files and against hostile bytes."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmconnect.demo.elf import dynamic, is_elf, module_info
from vmconnect.errors import ProtocolError

MAGIC = b"\x7fELF\x02\x01"


def real_files() -> list[Path]:
    """Return some programs and libraries of this host, and Python's extension modules."""
    programs = ["/bin/sh", "/bin/ls", "/usr/bin/ssh", "/usr/bin/qemu-system-x86_64"]
    libraries = sorted(Path("/usr/lib/x86_64-linux-gnu").glob("lib*.so.*"))
    modules = sorted(Path(sys.base_prefix).glob("lib/python3*/lib-dynload/*.so"))
    chosen = [Path(each) for each in programs] + libraries[::25][:30] + modules[::8]
    files = {Path(os.path.realpath(path)) for path in chosen if path.exists()}
    return sorted(path for path in files if is_elf(path.read_bytes()[:16]))


@pytest.mark.parametrize("path", real_files(), ids=lambda path: path.name)
def test_the_needs_are_those_that_readelf_reads(path: Path) -> None:
    told = subprocess.run(
        ["readelf", "--dynamic", "--program-headers", "--wide", str(path)],
        env={**os.environ, "LC_ALL": "C"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    ours = dynamic(path.read_bytes())
    assert list(ours.needed) == re.findall(r"\(NEEDED\)\s+Shared library: \[(.+)\]", told)
    interpreter = re.search(r"Requesting program interpreter: (.+)\]", told)
    assert ours.interpreter == (interpreter[1] if interpreter else None)


def test_there_are_files_to_compare() -> None:
    assert len(real_files()) > 5


def elf(sections: dict[str, bytes]) -> bytes:
    """Return a minimal ELF file of named sections and no segments."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in (*sections, ".shstrtab"))
    contents = [*sections.values(), names]
    body, headers = b"", struct.pack("<IIQQQQIIQQ", *[0] * 10)
    for name, data in zip((*sections, ".shstrtab"), contents, strict=True):
        at = names.index(b"\0" + name.encode() + b"\0") + 1
        headers += struct.pack("<IIQQQQIIQQ", at, 1, 0, 0, 64 + len(body), len(data), 0, 0, 1, 0)
        body += data
    count = len(contents) + 1
    table = 64 + len(body)
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", MAGIC, 1, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, count, count - 1
    )
    return head + body + headers


def test_module_info_keeps_the_order_and_repeats() -> None:
    data = elf({".text": b"code", ".modinfo": b"name=a\0alias=x\0alias=y\0\0depends=b,c\0"})
    assert module_info(data) == {"name": ("a",), "alias": ("x", "y"), "depends": ("b,c",)}
    assert module_info(elf({".text": b"code"})) == {}


@functools.cache
def real() -> bytes:
    """Return a small real library."""
    files = [path for path in real_files() if dynamic(path.read_bytes()).needed]
    return min(files, key=lambda path: path.stat().st_size).read_bytes()


def only_protocol_errors(data: bytes) -> None:
    for read in (dynamic, module_info):
        with contextlib.suppress(ProtocolError):
            read(data)


@settings(deadline=None, max_examples=400)
@given(tail=st.binary(max_size=400))
def test_any_bytes_after_the_magic(tail: bytes) -> None:
    only_protocol_errors(MAGIC + tail)


NUMBERS = st.sampled_from(
    [0, 1, 0x7F, 0xFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1]
)


@settings(deadline=None, max_examples=400)
@given(
    edits=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 8), NUMBERS), max_size=6),
    headers=st.booleans(),
    cut=st.none() | st.integers(0, 1 << 20),
)
def test_a_real_library_with_wrong_numbers(
    edits: list[tuple[int, int, int]], headers: bool, cut: int | None
) -> None:
    data = bytearray(real())
    for place, size, number in edits:
        # Most of what matters is in the first 64 + 56 * 9 bytes.
        at = place % min(len(data), 568 if headers else len(data))
        data[at : at + size] = number.to_bytes(8, "little")[:size]
    only_protocol_errors(bytes(data if cut is None else data[: cut % len(data)]))


@settings(deadline=None, max_examples=200)
@given(modinfo=st.binary(max_size=200))
def test_any_module_info(modinfo: bytes) -> None:
    found = module_info(elf({".modinfo": modinfo}))
    records = [record for record in modinfo.split(b"\0") if b"=" in record]
    assert sum(len(values) for values in found.values()) == len(records)


@settings(deadline=None, max_examples=200)
@given(data=st.binary(max_size=100).filter(lambda data: not data.startswith(MAGIC)))
def test_what_is_no_elf_file_is_refused(data: bytes) -> None:
    for read in (dynamic, module_info):
        with pytest.raises(ProtocolError, match="not a 64-bit ELF file"):
            read(data)


def test_a_file_that_needs_the_world_is_refused() -> None:
    count = 5000
    entries = struct.pack("<qQ", 1, 0) * count
    start = 64 + 56
    head = struct.pack("<16sHHIQQQIHHHHHH", MAGIC, 3, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 2, 0, start, 0, 0, len(entries), 0, 8)
    with pytest.raises(ProtocolError, match="needs 5000 libraries"):
        dynamic(head + segment + entries)
