"""Files that come in pieces into a guest: on the disk before they have their names."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

import pytest

from tests.direct.copy.ends import copied
from vmconnect.direct.copy.frames import RESUME_BYTES, WHOLE_BYTES


class Disk:
    """What the system is asked for, in order; fsync fails with ``number``."""

    def __init__(self, patch: pytest.MonkeyPatch, number: int = 0):
        self.asked: list[tuple[str, int]] = []
        fsync, rename = os.fsync, os.rename

        def synced(descriptor: int) -> None:
            self.asked.append(("fsync", os.fstat(descriptor).st_size))
            if number:
                raise OSError(number, os.strerror(number))
            fsync(descriptor)

        def renamed(before: bytes, after: bytes, *, src_dir_fd: int, dst_dir_fd: int) -> None:
            self.asked.append(("rename", os.stat(before, dir_fd=src_dir_fd).st_size))
            rename(before, after, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

        patch.setattr(os, "fsync", synced)
        patch.setattr(os, "rename", renamed)


@pytest.fixture
def room(tmp_path: Path) -> Path:
    (tmp_path / "room").mkdir()
    return tmp_path / "room"


def file(path: Path, size: int) -> Path:
    path.write_bytes(secrets.token_bytes(size))
    return path


@pytest.mark.parametrize("size", [WHOLE_BYTES + 1, RESUME_BYTES])
def test_what_comes_in_pieces_is_on_the_disk_before_it_has_its_name(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    source = file(tmp_path / "source", size)
    disk = Disk(monkeypatch)
    assert copied([source], room, durable=True) == []
    assert disk.asked == [("fsync", size), ("rename", size)]


def test_here_the_disk_is_not_waited_for(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = file(tmp_path / "source", RESUME_BYTES)
    disk = Disk(monkeypatch)
    assert copied([source], room) == []
    assert disk.asked == [("rename", RESUME_BYTES)]


def test_small_files_are_not_waited_for(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = file(tmp_path / "source", WHOLE_BYTES)
    disk = Disk(monkeypatch)
    assert copied([source], room, durable=True) == []
    assert disk.asked == [("rename", WHOLE_BYTES)]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_knows_no_fsync_does_without(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    source = file(tmp_path / "source", WHOLE_BYTES + 1)
    disk = Disk(monkeypatch, number)
    assert copied([source], room, durable=True) == []
    assert len(disk.asked) == 2
    assert (room / "source").read_bytes() == source.read_bytes()


def test_what_the_disk_does_not_take_gets_no_name(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = file(tmp_path / "source", WHOLE_BYTES + 1)
    (room / "source").write_text("before")
    disk = Disk(monkeypatch, errno.ESTALE)
    assert copied([source], room, durable=True) == [f"{room}/source: {os.strerror(errno.ESTALE)}"]
    assert len(disk.asked) == 1
    assert [each.name for each in room.iterdir()] == ["source"]
    assert (room / "source").read_text() == "before"
