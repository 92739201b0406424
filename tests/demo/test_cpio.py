"""The archive writer, read back by GNU cpio and byte by byte."""

from __future__ import annotations

import io
import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmconnect.demo.cpio import CpioWriter
from vmconnect.errors import ResourceError

CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0/\n\\", max_codepoint=0x2FFF)
NAMES = st.text(CHARACTERS, min_size=1, max_size=40).filter(
    lambda name: name not in {".", "..", "TRAILER!!!"} and not name.startswith("-")
)
MODES = st.integers(0, 0o777).map(lambda mode: mode | 0o600)
FILES = st.dictionaries(NAMES, st.tuples(st.binary(max_size=300), MODES), max_size=8)


def unpacked(archive: bytes, into: Path) -> None:
    subprocess.run(
        ["cpio", "-i", "--quiet", "--no-absolute-filenames"],
        input=archive,
        cwd=into,
        check=True,
        capture_output=True,
    )


@settings(deadline=None, max_examples=60)
@given(files=FILES)
def test_files_come_back_as_they_went_in(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, tuple[bytes, int]]
) -> None:
    sink = io.BytesIO()
    with CpioWriter(sink) as archive:
        archive.directory("d", 0o750)
        for name, (data, mode) in files.items():
            archive.file(f"d/{name}", data, mode)
    into = tmp_path_factory.mktemp("cpio")
    unpacked(sink.getvalue(), into)
    there = {
        path.name: (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        for path in (into / "d").iterdir()
    }
    assert there == files
    assert stat.S_IMODE((into / "d").stat().st_mode) == 0o750


@settings(deadline=None, max_examples=25)
@given(target=st.text(CHARACTERS | st.just("/"), min_size=1, max_size=80))
def test_symlinks_come_back(tmp_path_factory: pytest.TempPathFactory, target: str) -> None:
    sink = io.BytesIO()
    with CpioWriter(sink) as archive:
        archive.symlink("link", target)
    into = tmp_path_factory.mktemp("cpio")
    unpacked(sink.getvalue(), into)
    assert os.readlink(into / "link") == target  # noqa: PTH115 (a Path would tidy it up)


def test_cpio_lists_every_kind_of_entry() -> None:
    sink = io.BytesIO()
    with CpioWriter(sink) as archive:
        archive.directory("dev", 0o755)
        archive.character_device("dev/null", 1, 3, 0o666)
        archive.character_device("dev/console", 5, 1)
        archive.symlink("bin", "usr/bin")
        archive.file("key", b"secret", 0o600, uid=1000, gid=1001)
    listing = subprocess.run(
        ["cpio", "-itv", "--quiet", "--numeric-uid-gid"],
        input=sink.getvalue(),
        env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
        check=True,
        capture_output=True,
    ).stdout.decode()
    lines = [" ".join(line.split()) for line in listing.splitlines()]
    date = "Jan 1 1970"
    assert lines == [
        f"drwxr-xr-x 2 0 0 0 {date} dev",
        f"crw-rw-rw- 1 0 0 1, 3 {date} dev/null",
        f"crw------- 1 0 0 5, 1 {date} dev/console",
        f"lrwxrwxrwx 1 0 0 7 {date} bin -> usr/bin",
        f"-rw------- 1 1000 1001 6 {date} key",
    ]


@settings(deadline=None)
@given(files=FILES)
def test_the_same_entries_give_the_same_aligned_bytes(files: dict[str, tuple[bytes, int]]) -> None:
    archives = []
    for _ in range(2):
        sink = io.BytesIO()
        with CpioWriter(sink) as archive:
            for name, (data, mode) in files.items():
                archive.file(name, data, mode)
        archives.append(sink.getvalue())
    assert archives[0] == archives[1]
    assert len(archives[0]) % 4 == 0
    assert archives[0].count(b"TRAILER!!!\0") == 1


@pytest.mark.parametrize("name", ["", "a\0b", "TRAILER!!!"])
def test_a_name_that_the_format_cannot_say_is_refused(name: str) -> None:
    sink = io.BytesIO()
    archive = CpioWriter(sink)
    with pytest.raises(ResourceError, match="cannot be put into an initramfs"):
        archive.file(name, b"data")
    assert sink.getvalue() == b""


def test_four_gigabytes_are_refused() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 1 << 32

    sink = io.BytesIO()
    with pytest.raises(ResourceError, match="cannot be put into an initramfs"):
        CpioWriter(sink).file("huge", Huge())
    assert sink.getvalue() == b""


def test_an_archive_cut_short_by_an_error_has_no_trailer() -> None:
    sink = io.BytesIO()
    with pytest.raises(RuntimeError), CpioWriter(sink) as archive:
        archive.file("a", b"a")
        raise RuntimeError
    assert b"TRAILER" not in sink.getvalue()
