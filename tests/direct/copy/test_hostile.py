"""Senders that lie: nothing of theirs gets out of where the copy was to go."""

from __future__ import annotations

import os
import stat
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.direct.copy.ends import receiver_at
from vmconnect.direct.copy.directory import Directory, Status
from vmconnect.direct.copy.frames import (
    COUNTS,
    ENTRY,
    NUMBER,
    OFFSET,
    RESUME_BYTES,
    Entry,
    Fault,
    FrameError,
    Kind,
    pack_entry,
    pack_fault,
)
from vmconnect.direct.copy.receiver import Named, Receiver

Frame = tuple[int, bytes]
FILE, DIRECTORY, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777
TOP: Frame = (Kind.TOP, NUMBER.pack(0))
UP: Frame = (Kind.UP, b"")


def entry(mode: int, name: bytes, size: int = 0) -> bytes:
    """An entry as its wire form, whatever its name: `pack_entry` looks at nothing."""
    return ENTRY.pack(mode, 10**18, size, len(name), 0) + name


def whole(name: bytes, data: bytes = b"hostile", mode: int = FILE) -> Frame:
    return Kind.WHOLE, NUMBER.pack(zlib.crc32(data)) + entry(mode, name, len(data)) + data


def directory(name: bytes) -> Frame:
    return Kind.DIRECTORY, entry(DIRECTORY, name)


def link(name: bytes, target: bytes) -> Frame:
    return Kind.LINK, entry(LINK, name) + target


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A directory with one beside it that nobody may touch."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("precious")
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def untouched(room: Path) -> bool:
    outside = room.parent / "outside"
    return (
        sorted(os.listdir(room.parent)) == ["in", "outside"]
        and os.listdir(outside) == ["precious"]
        and (outside / "precious").read_text() == "precious"
        and stat.S_IMODE((outside / "precious").stat().st_mode) == 0o644
    )


def play(room: Path, *frames: Frame, names: tuple[Named, ...] = (Named(b"x"),)) -> list[Fault]:
    """Let a receiver take the frames; the faults that it told of."""
    faults: list[Fault] = []
    receiver = receiver_at(room, names, faults)
    try:
        for kind, payload in frames:
            receiver.take(kind, payload)
    finally:
        receiver.close()
        assert untouched(room)
    return faults


@pytest.mark.parametrize(
    "name", [b"..", b".", b"", b"/etc/passwd", b"../outside/precious", b"a/b", b"a\0b"]
)
def test_a_name_that_is_a_path_ends_the_copy(room: Path, name: bytes) -> None:
    for frame in (whole(name), directory(name), link(name, b"/"), (Kind.FILE, entry(FILE, name))):
        with pytest.raises(FrameError):
            play(room, TOP, directory(b"d"), frame)


@pytest.mark.parametrize("target", [b"../outside", b"../../outside", b"/etc", b"."])
def test_nothing_is_written_through_a_link_that_was_sent_before(room: Path, target: bytes) -> None:
    faults = play(
        room,
        TOP,
        directory(b"d"),
        link(b"trap", target),
        directory(b"trap"),
        whole(b"precious"),
        directory(b"deeper"),
        whole(b"precious"),
        UP,
        UP,
        whole(b"after"),
        UP,
    )
    assert [(fault.path, fault.text) for fault in faults] == [
        (os.fsencode(room / "x/trap"), "what has that name is a link")
    ]
    assert sorted(os.listdir(room / "x")) == ["after", "trap"]


def test_a_file_replaces_a_link_and_not_what_it_leads_to(room: Path) -> None:
    assert not play(
        room, TOP, directory(b"d"), link(b"f", b"../../outside/precious"), whole(b"f"), UP
    )
    assert not (room / "x/f").is_symlink()
    assert (room / "x/f").read_bytes() == b"hostile"


def test_a_link_of_the_user_s_own_is_not_gone_through_either(room: Path) -> None:
    (room / "x").symlink_to("../outside")
    [fault] = play(room, TOP, directory(b"x"), whole(b"precious"), UP)
    assert fault.text == "what has that name is a link"


def test_the_source_is_called_what_was_asked_for(room: Path) -> None:
    assert not play(room, TOP, whole(b".bashrc"))
    assert os.listdir(room) == ["x"]


def test_a_pattern_lets_in_what_it_matches(room: Path) -> None:
    pattern = (Named(b"", b"*.log"),)
    assert not play(room, TOP, whole(b"a.log"), names=pattern)
    for name in (b".bashrc", b"a.logs", b"../a.log"):
        with pytest.raises(FrameError):
            play(room, TOP, whole(name), names=pattern)
    assert os.listdir(room) == ["a.log"]


@pytest.mark.parametrize("pattern", [b"*", b"?bashrc", b"[.]bashrc", b"*rc"])
def test_a_pattern_lets_in_no_dot_files_that_a_shell_s_would_not(
    room: Path, pattern: bytes
) -> None:
    with pytest.raises(FrameError, match="not asked for"):
        play(room, TOP, whole(b".bashrc"), names=(Named(b"", pattern),))
    assert os.listdir(room) == []
    assert not play(room, TOP, whole(b".bashrc"), names=(Named(b"", b".*"),))
    assert os.listdir(room) == [".bashrc"]


@pytest.mark.parametrize(
    "frames",
    [
        [whole(b"x")],
        [TOP, whole(b"x"), whole(b"y")],
        [(Kind.TOP, NUMBER.pack(1))],
        [TOP, directory(b"d"), TOP],
        [UP],
        [TOP, directory(b"d"), UP, UP],
        [(Kind.DATA, OFFSET.pack(0) + b"data")],
        [(Kind.END, NUMBER.pack(0))],
        [TOP, (Kind.FILE, entry(FILE, b"x", 10)), whole(b"y")],
        [TOP, (Kind.FILE, entry(FILE, b"x", 10)), (Kind.DATA, OFFSET.pack(8) + b"data")],
        [TOP, (Kind.FILE, entry(FILE, b"x", 10)), (Kind.DATA, OFFSET.pack(1 << 63) + b"data")],
        [TOP, (Kind.WHOLE, NUMBER.pack(0) + entry(FILE, b"x", 100) + b"less")],
        [TOP, link(b"x", b"")],
        [TOP, link(b"x", b"a\0b")],
        [TOP, link(b"x", b"a" * 5000)],
        [TOP, (Kind.SPECIAL, OFFSET.pack(0) + entry(stat.S_IFIFO | 0o644, b"x"))],
        [TOP, directory(b"d"), (Kind.DONE, b"")],
        [(Kind.HELD, b"")],
        [(255, b"")],
        [(Kind.TOP, b"")],
        [TOP, (Kind.DIRECTORY, b"short")],
        [(Kind.LOST, b"short")],
        [(Kind.ASK, entry(FILE, b"x"))],
        [TOP, (Kind.ASK, b"short")],
    ],
)
def test_frames_out_of_their_place_end_the_copy(room: Path, frames: list[Frame]) -> None:
    with pytest.raises(FrameError):
        play(room, *frames)


def test_special_files_that_were_asked_for_are_no_sockets(room: Path) -> None:
    faults: list[Fault] = []
    receiver = receiver_at(room, [Named(b"x")], faults, special=True)
    receiver.take(*TOP)
    with pytest.raises(FrameError):
        receiver.take(Kind.SPECIAL, OFFSET.pack(0) + entry(stat.S_IFSOCK | 0o644, b"x"))
    receiver.close()


def test_a_file_that_arrives_damaged_does_not_get_its_name(room: Path) -> None:
    kind, payload = whole(b"x")
    (room / "x").write_text("before")
    [fault] = play(room, TOP, (kind, payload[:-1] + b"X"))
    assert fault.text == "it arrived damaged"
    [fault] = play(
        room,
        TOP,
        (Kind.FILE, entry(FILE, b"x", 4)),
        (Kind.DATA, OFFSET.pack(0) + b"data"),
        (Kind.END, NUMBER.pack(1)),
    )
    assert fault.text == "it arrived damaged"
    assert os.listdir(room) == ["x"]
    assert (room / "x").read_text() == "before"


def test_set_user_id_does_not_travel(room: Path) -> None:
    assert not play(room, TOP, whole(b"x", mode=stat.S_IFREG | 0o6755))
    assert stat.S_IMODE((room / "x").stat().st_mode) == 0o755


def test_a_name_that_is_another_s_by_now_does_not_get_the_mode(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write to the directory swaps the file between the look at it and the change."""
    (room / "x").write_text("same")
    os.utime(room / "x", ns=(10**18, 10**18))
    look = Directory.status

    def swap(directory: Directory, name: bytes, *, follow: bool = False) -> Status | None:
        found = look(directory, name, follow=follow)
        (room / "x").unlink()
        os.link(room.parent / "outside" / "precious", room / "x")
        return found

    monkeypatch.setattr(Directory, "status", swap)
    faults: list[Fault] = []
    receiver = receiver_at(room, [Named(b"x")], faults)
    receiver.take(*TOP)
    asked = entry(stat.S_IFREG | 0o666, b"x", 4)
    assert receiver.take(Kind.ASK, asked) == (Kind.WANTED, b"\1")
    receiver.close()
    assert untouched(room)


def test_a_part_of_another_s_is_not_gone_on_with(room: Path) -> None:
    faults: list[Fault] = []
    large = (Kind.FILE, entry(FILE, b"x", RESUME_BYTES))
    receiver = receiver_at(room, [Named(b"x")], faults)
    receiver.take(*TOP)
    receiver.take(*large)
    receiver.take(Kind.BEGIN, OFFSET.pack(0))
    receiver.take(Kind.DATA, OFFSET.pack(0) + bytes(1000))
    receiver.close()
    [part] = room.iterdir()
    precious = room.parent / "outside" / "precious"

    def held() -> bytes:
        receiver = receiver_at(room, [Named(b"x")], faults)
        receiver.take(*TOP)
        answer = receiver.take(*large)
        assert answer is not None
        receiver.close()
        return answer[1]

    assert held()[:8] == OFFSET.pack(1000)
    part.chmod(0o666)  # Others could have written to it.
    assert held()[:8] == OFFSET.pack(0)
    part.unlink()
    part.symlink_to(precious)
    assert held()[:8] == OFFSET.pack(0)
    part.unlink()
    os.link(precious, part)
    assert held()[:8] == OFFSET.pack(0)
    part.unlink()
    assert untouched(room)
    assert not faults


kinds = st.sampled_from([each for name, each in vars(Kind).items() if name.isupper()])
any_name = st.sampled_from([b"a", b"b", b"..", b".", b"/", b"trap", b"precious", b"x" * 300])
modes = st.sampled_from([FILE, DIRECTORY, LINK, stat.S_IFIFO | 0o600, 0, 0xFFFFFFFF])
sizes = st.sampled_from([0, 4, 100, RESUME_BYTES, 1 << 62, (1 << 64) - 1])
packed = st.builds(entry, modes, any_name, sizes)
payloads = st.one_of(
    st.binary(max_size=40),
    packed,
    st.builds(bytes.__add__, packed, st.sampled_from([b"../outside", b"/", b"data"])),
    st.builds(whole, any_name).map(lambda frame: frame[1]),
    st.builds(lambda number, data: OFFSET.pack(number) + data, st.integers(0, 9), st.binary()),
    st.just(NUMBER.pack(0)),
    st.builds(COUNTS.pack, st.integers(0, 9), st.integers(0, 9)),
    st.just(pack_fault(Fault(b"a", 1, "b"))),
    st.just(pack_entry(Entry(FILE, 0, 4, b"a"))),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(kinds, payloads), max_size=30))
def test_whatever_comes_stays_within(room: Path, frames: list[Frame]) -> None:
    faults: list[Fault] = []
    receiver: Receiver = receiver_at(room, [Named(b"x"), Named(b"", b"*")], faults)
    try:
        receiver.take(*TOP)
        for kind, payload in frames:
            receiver.take(kind, payload)
    except FrameError:
        pass
    finally:
        receiver.close(keep=False)
    assert untouched(room)
