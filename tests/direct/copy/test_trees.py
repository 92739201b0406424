"""Trees of this host, copied within it: what arrives, and what is said of what does not."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.direct.copy.ends import Here, copied
from vmconnect.direct.copy.frames import BLOCK_BYTES, DEPTH, RESUME_BYTES, WHOLE_BYTES, Kind

SECOND = 10**9
WHEN = 1_000_000_000 * SECOND + 123_456_789


def described(path: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything of a tree that a copy keeps."""
    found: dict[bytes, tuple[object, ...]] = {}
    for directory, directories, files in os.walk(os.fsencode(path)):
        for name in [*directories, *files]:
            each = os.path.join(directory, name)
            info = os.lstat(each)
            if stat.S_ISLNK(info.st_mode):
                content: object = os.readlink(each)
            elif stat.S_ISREG(info.st_mode):
                content = Path(os.fsdecode(each)).read_bytes()
            else:
                content = None
            found[os.path.relpath(each, os.fsencode(path))] = (
                info.st_mode,
                info.st_mtime_ns,
                content,
            )
    return found


def tree(at: Path) -> Path:
    """A tree with some of everything."""
    (at / "empty").mkdir(parents=True)
    (at / "sub" / "deeper").mkdir(parents=True)
    for size in (0, 1, WHOLE_BYTES, WHOLE_BYTES + 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 7):
        (at / "sub" / f"of-{size}").write_bytes(secrets.token_bytes(size))
    for number, name in enumerate([b"new\nline", b"\xff\xfe not UTF-8", b" -rf *", b"x" * 255]):
        Path(os.fsdecode(os.path.join(os.fsencode(at), name))).write_text(str(number))
    (at / "script").write_text("#!/bin/sh")
    (at / "script").chmod(0o755)
    (at / "secret").write_text("s")
    (at / "secret").chmod(0o400)
    (at / "to-file").symlink_to("sub/of-1")
    (at / "to-nowhere").symlink_to("/nowhere/at/all")
    (at / "sub" / "up").symlink_to("..")
    for place, directories, files in os.walk(at, topdown=False):
        for each in [*files, *directories]:
            os.utime(os.path.join(place, each), ns=(WHEN, WHEN), follow_symlinks=False)
    (at / "sub").chmod(0o711)
    return at


def test_all_of_a_tree_arrives(tmp_path: Path) -> None:
    source = tree(tmp_path / "source")
    before = os.umask(0o077)  # It says nothing of copies.
    try:
        assert copied([source], tmp_path / "copy") == []
    finally:
        os.umask(before)
    assert described(tmp_path / "copy") == described(source)


def test_into_a_directory_as_a_new_name_and_as_contents(tmp_path: Path) -> None:
    source = tree(tmp_path / "source")
    (tmp_path / "there").mkdir()
    assert copied([source], tmp_path / "there") == []
    assert described(tmp_path / "there" / "source") == described(source)
    assert copied([source, source / "script"], tmp_path / "there") == []
    assert sorted(os.listdir(tmp_path / "there")) == ["script", "source"]
    (tmp_path / "flat").mkdir()
    assert copied([os.fsencode(source) + b"/."], tmp_path / "flat") == []
    assert described(tmp_path / "flat") == described(source)
    assert copied([os.fsencode(source) + b"/."], tmp_path / "fresh") == []
    assert described(tmp_path / "fresh") == described(source)


def test_a_directory_that_is_there_keeps_its_mode_and_the_rest_of_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir(mode=0o700)
    (source / "new").touch()
    there = tmp_path / "there" / "source"
    there.mkdir(parents=True)
    there.chmod(0o755)
    (there / "old").touch()
    assert copied([source], tmp_path / "there") == []
    assert sorted(os.listdir(there)) == ["new", "old"]
    assert stat.S_IMODE(there.stat().st_mode) == 0o755


def test_many_sources_need_a_directory(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    with pytest.raises(FileNotFoundError, match="a directory is needed"):
        copied([tmp_path / "a", tmp_path / "b"], tmp_path / "none")
    with pytest.raises(NotADirectoryError, match="a directory is needed"):
        copied([tmp_path / "a", tmp_path / "b"], tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        copied([tmp_path / "a"], tmp_path / "none" / "b")


def test_patterns_are_expanded_unless_a_file_is_called_so(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a.log", "b.log", "c.txt", ".hidden.log", "[x].log"):
        (source / name).write_text(name)
    (tmp_path / "out").mkdir()
    assert copied([source / "?.log"], tmp_path / "out") == []
    assert sorted(os.listdir(tmp_path / "out")) == ["a.log", "b.log"]
    assert copied([source / "[x].log"], tmp_path / "out") == []
    assert (tmp_path / "out" / "[x].log").read_text() == "[x].log"
    assert copied([source / "*.none"], tmp_path / "out") == [
        f"{source}/*.none: No such file or directory"
    ]


def test_a_link_that_is_named_is_followed_one_that_is_found_is_kept(tmp_path: Path) -> None:
    source = tree(tmp_path / "source")
    assert copied([source / "to-file"], tmp_path / "one") == []
    assert (tmp_path / "one").read_bytes() == (source / "sub" / "of-1").read_bytes()
    (tmp_path / "link").symlink_to("source")
    assert copied([tmp_path / "link"], tmp_path / "two") == []
    assert described(tmp_path / "two") == described(source)


def test_a_destination_that_is_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new")
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    assert copied([tmp_path / "new"], tmp_path / "link") == []
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("size", [1, WHOLE_BYTES + 1])
def test_a_file_that_is_replaced_belongs_to_whoever_copies(tmp_path: Path, size: int) -> None:
    (tmp_path / "new").write_bytes(bytes(size))
    (tmp_path / "old").write_text("old")
    os.chown(tmp_path / "old", 1000, 1000)
    assert copied([tmp_path / "new"], tmp_path / "old") == []
    found = (tmp_path / "old").stat()
    assert (found.st_uid, found.st_gid, found.st_size) == (os.geteuid(), os.getegid(), size)


def test_holes_stay_holes(tmp_path: Path) -> None:
    size = 64 << 20
    with (tmp_path / "sparse").open("wb") as file:
        file.seek(10 << 20)
        file.write(b"in the midst")
        file.truncate(size)
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(size)
    here = Here()
    here.copy([tmp_path / "sparse"], tmp_path / "copy")
    here.copy([tmp_path / "hole"], tmp_path / "copied-hole")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "sparse").read_bytes()
    assert (tmp_path / "copied-hole").stat().st_size == size
    assert here.moved < 1 << 20
    assert (tmp_path / "copy").stat().st_blocks * 512 < 1 << 20


def test_extended_attributes_arrive_where_there_are_such(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").touch()
    try:
        for each in (source, source / "file"):
            os.setxattr(each, "user.colour", b"\x00blue")
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error}")
    assert copied([source], tmp_path / "copy") == []
    for each in (tmp_path / "copy", tmp_path / "copy" / "file"):
        assert os.getxattr(each, "user.colour") == b"\x00blue"


def test_special_files_are_refused_unless_asked_for(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    os.mkfifo(source / "fifo", 0o640)
    (source / "file").touch()
    assert copied([source], tmp_path / "one") == [f"{source}/fifo: it is a FIFO"]
    assert os.listdir(tmp_path / "one") == ["file"]
    assert copied([source], tmp_path / "two", special=True) == []
    assert stat.S_ISFIFO((tmp_path / "two" / "fifo").stat().st_mode)
    assert copied([b"/dev/null"], tmp_path / "null") == ["/dev/null: it is a character device"]


def test_a_device_and_a_directory_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    [said] = copied([tmp_path / "file"], tmp_path / "fifo")
    assert said.endswith("what has that name is no file, and is not replaced")
    (tmp_path / "there" / "file").mkdir(parents=True)
    [said] = copied([tmp_path / "file"], tmp_path / "there")
    assert said.endswith("there is a directory of that name")
    (tmp_path / "d" / "file").mkdir(parents=True)
    (tmp_path / "e" / "d").mkdir(parents=True)
    (tmp_path / "e" / "d" / "file").touch()
    [said] = copied([tmp_path / "d"], tmp_path / "e")
    assert said.endswith("what has that name is no directory")


def test_what_vanishes_is_told_and_the_rest_arrives(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a", "b", "c"):
        (source / name).write_text(name)

    def meddle(kind: int, payload: bytes) -> None:
        if kind == Kind.DIRECTORY:
            (source / "b").unlink()

    here = Here(meddle)
    here.copy([source], tmp_path / "copy")
    assert [(fault.path, fault.text) for fault in here.faults] == [
        (os.fsencode(source / "b"), "it has vanished")
    ]
    assert sorted(os.listdir(tmp_path / "copy")) == ["a", "c"]


def test_a_file_that_shrinks_under_our_hands_is_given_up(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(secrets.token_bytes(3 * BLOCK_BYTES))
    copy.write_text("before")

    def meddle(kind: int, payload: bytes) -> None:
        if kind == Kind.DATA:
            os.truncate(source, BLOCK_BYTES)

    here = Here(meddle)
    here.copy([source], copy)
    assert [fault.text for fault in here.faults] == ["it shrank while it was copied"]
    assert copy.read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["copy", "source"]


def test_a_copy_that_was_cut_goes_on(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(secrets.token_bytes(2 * RESUME_BYTES))
    sent = 0

    def cut(kind: int, payload: bytes) -> None:
        nonlocal sent
        sent += len(payload)
        if sent > RESUME_BYTES:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        Here(cut).copy([source], copy)
    assert not copy.exists()
    here = Here()
    here.copy([source], copy)
    assert here.moved <= RESUME_BYTES + 2 * BLOCK_BYTES
    assert copy.read_bytes() == source.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["copy", "source"]


@pytest.mark.parametrize("spoil", ["source", "part"])
def test_what_has_changed_meanwhile_is_not_gone_on_with(tmp_path: Path, spoil: str) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(secrets.token_bytes(2 * RESUME_BYTES))

    def cut(kind: int, payload: bytes) -> None:
        if kind == Kind.DATA and payload[:8] != bytes(8):
            raise ConnectionError

    with pytest.raises(ConnectionError):
        Here(cut).copy([source], copy)
    [part] = [each for each in tmp_path.iterdir() if each.name.startswith(".")]
    with (source if spoil == "source" else part).open("r+b") as file:
        file.write(b"something else")
    here = Here()
    here.copy([source], copy)
    assert here.moved == 2 * RESUME_BYTES
    assert copy.read_bytes() == source.read_bytes()


def test_sync_sends_what_differs(tmp_path: Path) -> None:
    source = tree(tmp_path / "source")
    copied([source], tmp_path / "copy")
    (source / "script").write_text("changed")
    (source / "secret").chmod(0o440)
    (source / "sub" / "new").touch()
    here = Here()
    files, size = here.copy([os.fsencode(source) + b"/."], tmp_path / "copy", sync=True)
    assert (files, size) == (2, len("changed"))
    assert described(tmp_path / "copy")[b"script"] == described(source)[b"script"]
    assert described(tmp_path / "copy")[b"secret"] == described(source)[b"secret"]
    here.copy([source / "script"], tmp_path / "copy" / "script", sync=True)
    assert here.copy([source / "script"], tmp_path / "copy" / "script", sync=True) == (0, 0)
    assert here.faults == []


def test_a_tree_that_is_too_deep_ends_where_it_does(tmp_path: Path) -> None:
    place = os.open(tmp_path, os.O_RDONLY)
    for _ in range(DEPTH + 3):
        os.mkdir("d", dir_fd=place)
        inner = os.open("d", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(place)
    (tmp_path / "to").mkdir()
    [said] = copied([tmp_path / "d"], tmp_path / "to")
    assert said.endswith("it lies too deep")


names = st.binary(min_size=1, max_size=20).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in {b".", b".."}
)
contents = st.recursive(
    st.binary(max_size=50), lambda inner: st.dictionaries(names, inner, max_size=4), max_leaves=12
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(names, contents, max_size=4))
def test_any_tree_arrives(tmp_path: Path, tree: dict[bytes, object]) -> None:
    room = tmp_path / secrets.token_hex(8)

    def grow(at: bytes, tree: dict[bytes, object]) -> None:
        os.mkdir(at)
        for name, inner in tree.items():
            if isinstance(inner, dict):
                grow(os.path.join(at, name), inner)
            else:
                assert isinstance(inner, bytes)
                Path(os.fsdecode(os.path.join(at, name))).write_bytes(inner)

    room.mkdir()
    grow(os.fsencode(room / "source"), tree)
    assert copied([room / "source"], room / "copy") == []
    assert described(room / "copy") == described(room / "source")
