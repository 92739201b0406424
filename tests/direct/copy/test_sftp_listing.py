"""Guests whose SFTP server lists what no directory has: nothing is written beside the copy."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.direct.copy.sftp_listing import TREE, Listing
from tests.direct.sshd import sshd_guest
from vmconnect.direct.copy import Failure, Options
from vmconnect.errors import CopyError, SshError

FILE, DIRECTORY, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777
GOOD = (b"good", FILE)


class Room:
    """A directory to copy to, with one beside it that nobody may touch."""

    def __init__(self, path: Path):
        self.path = path / "in"
        self.outside = path / "outside"
        self.path.mkdir()
        self.outside.mkdir()
        (self.outside / "precious").write_text("precious")

    def get(
        self, names: Sequence[tuple[bytes, int]], target: bytes = b"", path: bytes = TREE
    ) -> list[str]:
        """Copy what such a guest has, and return what failed."""
        failures: list[Failure] = []
        with tempfile.TemporaryDirectory(prefix="vmc-") as name:
            line = Listing(names, target).subsystem(Path(name, "listing"))
            with sshd_guest(Path(name), line) as box, box.open() as guest:
                guest.get(
                    os.fsdecode(path),
                    self.path,
                    options=Options(ways=("SFTP",)),
                    on_failure=failures.append,
                )
        return [f"{os.fsdecode(each.path)}: {each.reason}" for each in failures]

    def all(self) -> list[str]:
        """Return all there is, as paths."""
        return sorted(str(each.relative_to(self.path)) for each in self.path.rglob("*"))

    def check_outside(self) -> None:
        """Fail if anything was written beside it."""
        assert sorted(os.listdir(self.path.parent)) == ["in", "outside"]
        assert os.listdir(self.outside) == ["precious"]
        assert (self.outside / "precious").read_text() == "precious"
        assert stat.S_IMODE((self.outside / "precious").stat().st_mode) == 0o644


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def test_what_is_listed_is_copied(room: Room) -> None:
    """The server itself is no obstacle; its own and its parent's names are no files."""
    names = [(b".", DIRECTORY), (b"..", DIRECTORY), (b"inner", DIRECTORY), GOOD, (b"to", LINK)]
    assert room.get(names, b"good") == []
    assert room.all() == ["tree", "tree/good", "tree/inner", "tree/inner/x", "tree/to"]
    assert (room.path / "tree" / "good").stat().st_size == 3
    assert (room.path / "tree" / "to").readlink() == Path("good")


@pytest.mark.parametrize(
    "name",
    [b"../x", b"../outside/precious", b"a/b", b"/x", b"in/", b"", b"a\0b", b"n" * 256, b"n" * 5000],
)
@pytest.mark.parametrize("mode", [FILE, DIRECTORY, LINK])
def test_a_name_that_is_none_ends_the_copy(room: Room, name: bytes, mode: int) -> None:
    with pytest.raises(CopyError, match="a copy went astray: a name that is none") as caught:
        room.get([(name, mode), (b"zz", FILE)], os.fsencode(room.outside))
    assert caught.value.machine == "box"
    room.check_outside()
    assert room.all() == ["tree"]
    assert len(str(caught.value)) < 1000


def test_a_name_that_no_frame_has_room_for(room: Room) -> None:
    with pytest.raises(SshError, match="the SFTP server sent what cannot be read"):
        room.get([(b"n" * 70_000, FILE)])
    room.check_outside()
    assert room.all() == ["tree"]


@pytest.mark.parametrize("mode", [DIRECTORY, LINK, FILE])
def test_a_link_that_becomes_something_else_is_not_gone_through(room: Room, mode: int) -> None:
    names = [(b"evil", LINK), (b"evil", mode), GOOD]
    said = room.get(names, os.fsencode(room.outside))
    room.check_outside()
    expected = {
        DIRECTORY: ["evil: what has that name is a link"],
        LINK: ["evil: File exists"],
        FILE: [],
    }
    assert said == [f"{room.path}/tree/{each}" for each in expected[mode]]
    assert (room.path / "tree" / "evil").is_symlink() == (mode != FILE)
    assert (room.path / "tree" / "good").stat().st_size == 3


def test_a_directory_that_becomes_a_link(room: Room) -> None:
    names = [(b"evil", DIRECTORY), (b"evil", LINK), GOOD]
    said = room.get(names, os.fsencode(room.outside))
    room.check_outside()
    assert said == [f"{room.path}/tree/evil: File exists"]
    assert room.all() == ["tree", "tree/evil", "tree/evil/x", "tree/good"]


@pytest.mark.parametrize("target", [b"", b"t" * 5000, b"a\0b"])
def test_a_link_to_nowhere_that_could_be_ends_the_copy(room: Room, target: bytes) -> None:
    with pytest.raises(CopyError, match="a copy went astray: a senseless link"):
        room.get([(b"link", LINK)], target)
    room.check_outside()


@pytest.mark.parametrize("name", [b"a/../../../x", b"a/b", b"a\0b", b"an" * 5000])
def test_what_a_pattern_finds_is_written_nowhere_else(room: Room, name: bytes) -> None:
    with pytest.raises(CopyError, match="went astray"):
        room.get([(name, FILE)], path=TREE + b"/a*")
    room.check_outside()
    assert room.all() == []
