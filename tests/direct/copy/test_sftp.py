"""Trees that an SFTP server shows, a real one and one that lies, copied to here and from here."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Any

import paramiko
import pytest

from tests.direct.copy.sftp_server import Hostile, openssh, played
from vmconnect.direct.copy.exchange import tree_to_tree
from vmconnect.direct.copy.frames import Fault
from vmconnect.direct.copy.receiver import Named, Receiver
from vmconnect.direct.copy.sender import Sender
from vmconnect.direct.copy.trees import LocalTree, Tree

PIECE = 1 << 15


def copied(
    source: Tree, path: Path | str, target: Tree, destination: Path, **options: Any
) -> tuple[tuple[int, int], list[str]]:
    """Copy one thing, and return how much was written, and what went wrong."""
    faults: list[Fault] = []
    name = Named(os.path.basename(os.fsencode(path)))
    root, names, at = target.destination(os.fsencode(destination), [name])
    receiver = Receiver(root, at, names, faults.append, lost=faults.append)
    try:
        written = tree_to_tree(
            source,
            [os.fsencode(path)],
            receiver,
            lambda put, ask: Sender(put, ask, **options),
        )
    finally:
        receiver.close()
    return written, [fault.text for fault in faults]


@pytest.mark.parametrize("size", [0, 1, PIECE, 2 * PIECE + 1, 200 * PIECE + 17])
def test_a_file_comes_out_and_goes_in(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(secrets.token_bytes(size))
    with openssh() as tree:
        assert copied(tree, tmp_path / "file", LocalTree(), tmp_path / "out") == ((1, size), [])
        assert copied(LocalTree(), tmp_path / "out", tree, tmp_path / "in") == ((1, size), [])
    assert (tmp_path / "out").read_bytes() == (tmp_path / "file").read_bytes()
    assert (tmp_path / "in").read_bytes() == (tmp_path / "file").read_bytes()


def test_modes_and_times_are_set_on_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write to the directory puts a link where the file on its way is."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    before = precious.stat()
    (tmp_path / "new").write_text("new")
    (tmp_path / "new").chmod(0o666)
    (tmp_path / "room").mkdir()

    close = paramiko.SFTPFile.close

    def closed(file: paramiko.SFTPFile) -> None:
        close(file)
        for part in (tmp_path / "room").iterdir():
            part.unlink()
            part.symlink_to(precious)

    monkeypatch.setattr(paramiko.SFTPFile, "close", closed)
    with openssh() as tree:
        copied(LocalTree(), tmp_path / "new", tree, tmp_path / "room")
    after = precious.stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


@pytest.mark.parametrize(("time", "told"), [(-1, 0), (1 << 33, (1 << 32) - 1), (7, 7)])
def test_a_time_that_sftp_cannot_tell_is_told_as_near_as_it_can(
    tmp_path: Path, time: int, told: int
) -> None:
    (tmp_path / "file").write_text("x")
    os.utime(tmp_path / "file", (time, time))
    with openssh() as tree:
        assert copied(LocalTree(), tmp_path / "file", tree, tmp_path / "in") == ((1, 1), [])
    assert int((tmp_path / "in").stat().st_mtime) == told


def test_nobody_looks_into_what_is_on_its_way(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(10 * PIECE))
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "room").mkdir()
    modes: set[int] = set()

    def look(_size: int, _path: bytes) -> None:
        modes.update(stat.S_IMODE(part.stat().st_mode) for part in (tmp_path / "room").iterdir())

    with openssh() as tree:
        copied(LocalTree(), tmp_path / "secret", tree, tmp_path / "room", progress=look)
    assert modes == {0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_that_is_replaced_belongs_to_whoever_copies(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    os.chown(tmp_path / "old", 1000, 1000)
    with openssh() as tree:
        assert copied(LocalTree(), tmp_path / "new", tree, tmp_path / "old")[1] == []
    found = (tmp_path / "old").stat()
    assert (found.st_uid, found.st_gid, found.st_size) == (os.geteuid(), os.getegid(), 3)


def test_sync_changes_modes(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("same")
    (tmp_path / "room").mkdir()
    with openssh() as tree:
        assert copied(LocalTree(), tmp_path / "new", tree, tmp_path / "room") == ((1, 4), [])
        (tmp_path / "new").chmod(0o640)
        again = copied(LocalTree(), tmp_path / "new", tree, tmp_path / "room", sync=True)
    assert again == ((0, 0), [])
    assert stat.S_IMODE((tmp_path / "room" / "new").stat().st_mode) == 0o640


def test_a_guest_that_says_its_file_is_huge_is_not_believed(tmp_path: Path) -> None:
    server = Hostile(1 << 31, pieces=300)
    with played(server) as tree:
        assert copied(tree, "/huge", LocalTree(), tmp_path / "huge") == (
            (0, 300 * PIECE),
            ["it shrank while it was copied"],
        )
    assert server.asked[:2] == [(0, PIECE), (PIECE, PIECE)]
    assert 300 < len(server.asked) < 600
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("size", [1 << 63, (1 << 64) - 1])
def test_a_size_that_no_file_has_is_refused(tmp_path: Path, size: int) -> None:
    server = Hostile(size)
    with played(server) as tree:
        written, said = copied(tree, "/huge", LocalTree(), tmp_path / "huge")
    assert (written, said) == ((0, 0), ["it says it has a size that no file has"])
    assert server.asked == []


def test_a_server_that_gives_less_than_it_is_asked_for_is_asked_for_less(tmp_path: Path) -> None:
    server = Hostile(300_000, pieces=300, piece=1000)
    with played(server) as tree:
        assert copied(tree, "/f", LocalTree(), tmp_path / "f") == ((1, 300_000), [])
    assert (tmp_path / "f").read_bytes() == bytes(300_000)
    assert len(server.asked) < 400


def test_a_server_that_gives_more_than_it_is_asked_for_is_refused(tmp_path: Path) -> None:
    with played(Hostile(1000, pieces=1, excess=1)) as tree:
        assert copied(tree, "/f", LocalTree(), tmp_path / "f") == (
            (0, 0),
            ["the guest's SFTP server answered what was not asked"],
        )
