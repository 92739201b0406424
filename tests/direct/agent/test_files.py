"""Files of a guest's, by a real qemu-ga on this machine."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.direct.agent.played import Played, played
from tests.direct.agent.real import RealAgent
from vmconnect.direct.agent import GuestAgent
from vmconnect.direct.agent.file import CHUNK_BYTES
from vmconnect.errors import (
    AgentError,
    DeadlineError,
    GuestError,
    ResourceError,
    UnsupportedError,
    VmconnectError,
)

WAIT = 60.0


class Seen:
    """Progress that is kept."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int | None]] = []

    def step(self, _text: str) -> None:
        pass

    def advance(self, done: int, total: int | None = None) -> None:
        self.told.append((done, total))


def test_reading_writing_seeking(agent_here: GuestAgent, tmp_path: Path) -> None:
    path = tmp_path / "a é\n"
    data = os.urandom(3 * CHUNK_BYTES + 17)
    with agent_here.open(str(path), "w+b") as file:
        file.write(data)
        file.flush()
        assert path.read_bytes() == data
        assert file.read() == b""
        assert file.seek(-17, os.SEEK_END) == len(data) - 17
        assert file.read() == data[-17:]
        assert file.seek(5) == 5
        assert file.seek(2, os.SEEK_CUR) == 7
        assert file.read(10) == data[7:17]
        assert len(file.read(1 << 30)) <= CHUNK_BYTES
        file.seek(0)
        file.write(b"")
        file.write(b"begin")
    assert path.read_bytes() == b"begin" + data[5:]
    assert agent_here.read_file(str(path), limit=len(data)) == b"begin" + data[5:]
    with pytest.raises(GuestError, match="has not been found"):
        file.read()
    file.close()
    with pytest.raises(GuestError, match="more than 100 bytes"):
        agent_here.read_file(str(path), limit=100)
    with pytest.raises(GuestError, match="No such file"):
        agent_here.open("/no/such")
    with pytest.raises(GuestError, match="mode"):
        agent_here.open(str(path), "x")


def test_a_full_disk_is_told(agent_here: GuestAgent) -> None:
    file = agent_here.open("/dev/full", "r+b")
    with pytest.raises(GuestError, match="No space left"):
        file.write(bytes(CHUNK_BYTES))
        file.flush()
    file = agent_here.open("/dev/full", "r+b")
    file.write(b"little")  # It stays in the agent's buffer.
    with pytest.raises(GuestError):
        file.close()


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES - 1])
def test_there_and_back(agent_here: GuestAgent, tmp_path: Path, size: int) -> None:
    source, there, back = tmp_path / "source", tmp_path / "there", tmp_path / "back"
    source.write_bytes(os.urandom(size))
    seen = Seen()
    assert agent_here.put(source, str(there), progress=seen) == size
    assert there.read_bytes() == source.read_bytes()
    assert size == 0 or seen.told[-1] == (size, size)
    assert agent_here.get(str(there), back) == size
    assert back.read_bytes() == source.read_bytes()
    assert {each.name for each in tmp_path.iterdir()} >= {"source", "there", "back"}
    assert not [*tmp_path.glob("*.part")]


def test_holes_stay_holes(agent_here: GuestAgent, tmp_path: Path) -> None:
    source, there, back = tmp_path / "source", tmp_path / "there", tmp_path / "back"
    source.write_bytes(b"x" + bytes(8 * CHUNK_BYTES) + b"y" + bytes(3 * CHUNK_BYTES))
    agent_here.put(source, str(there))
    agent_here.get(str(there), back)
    for path in (there, back):
        assert path.read_bytes() == source.read_bytes()
        assert path.stat().st_blocks * 512 <= 4 * CHUNK_BYTES


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755, 0o4755])
def test_permissions(agent_here: GuestAgent, tmp_path: Path, mode: int) -> None:
    source, there = tmp_path / "source", tmp_path / "there"
    source.write_bytes(b"secret")
    source.chmod(mode)
    agent_here.put(source, str(there))
    assert stat.S_IMODE(there.stat().st_mode) == mode & 0o777


def test_nobody_looks_into_what_is_on_its_way(agent_here: GuestAgent, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(2 * CHUNK_BYTES))
    (tmp_path / "there").write_bytes(b"before")
    modes: list[int] = []

    class Look(Seen):
        def advance(self, done: int, total: int | None = None) -> None:
            (part,) = tmp_path.glob("there.*.part")
            modes.append(stat.S_IMODE(part.stat().st_mode))
            assert (tmp_path / "there").read_bytes() == b"before"

    agent_here.put(source, str(tmp_path / "there"), progress=Look())
    assert modes == [0o600, 0o600]
    assert (tmp_path / "there").read_bytes() == source.read_bytes()


def test_what_cannot_be_copied(agent_here: GuestAgent, tmp_path: Path) -> None:
    source, room = tmp_path / "source", tmp_path / "room"
    source.write_bytes(b"x")
    room.mkdir()
    os.mkfifo(tmp_path / "pipe")
    put: list[tuple[Path, Path, type[VmconnectError], str]] = [
        (source, room, GuestError, "Is a directory"),
        (source, tmp_path / "no" / "such", GuestError, "cannot copy .*such"),
        (tmp_path / "none", tmp_path / "there", ResourceError, "No such file"),
        (room, tmp_path / "there", ResourceError, "Is a directory"),
        (Path("/dev/null"), tmp_path / "there", ResourceError, "no regular file"),
        (Path("/proc/self/mem"), tmp_path / "there", ResourceError, "cannot read .*mem"),
    ]
    for local, remote, kind, words in put:
        with pytest.raises(kind, match=words):
            agent_here.put(local, str(remote))
    get: list[tuple[str, Path, type[VmconnectError], str]] = [
        (str(tmp_path / "none"), tmp_path / "back", GuestError, "No such file"),
        (str(room), tmp_path / "back", GuestError, "no regular file"),
        (str(tmp_path / "pipe"), tmp_path / "back", GuestError, "no regular file"),
        ("/dev/zero", tmp_path / "back", GuestError, "no regular file"),
        (str(source), tmp_path / "no" / "such", ResourceError, "No such file"),
        (str(source), room, ResourceError, "Is a directory"),
        (str(source), source / "below", ResourceError, "Not a directory"),
    ]
    for there, here, kind, words in get:
        with pytest.raises(kind, match=words):
            agent_here.get(there, here)
    assert {each.name for each in tmp_path.iterdir()} == {
        *("source", "room", "pipe"),
        *(each.name for each in tmp_path.glob("qga*")),
        *(each.name for each in tmp_path.glob("pid")),
    }
    assert not [*room.iterdir()]


@pytest.mark.parametrize("way", ["put", "get"])
def test_an_agent_that_dies_in_the_midst_leaves_no_half_file(
    real_agent: RealAgent, tmp_path: Path, way: str
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(4 * CHUNK_BYTES))
    target.write_bytes(b"before")

    class Kill(Seen):
        def advance(self, done: int, total: int | None = None) -> None:
            if done > CHUNK_BYTES:
                real_agent.kill()

    with real_agent.open() as agent, pytest.raises(VmconnectError, match="web01"):
        copy: Callable[..., int] = agent.put if way == "put" else agent.get
        copy(str(source), str(target), progress=Kill())
    assert target.read_bytes() == b"before"
    if way == "get":
        assert not [*tmp_path.glob("*.part")]


def test_a_copy_that_fails_removes_what_was_copied(agent_here: GuestAgent, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(4 * CHUNK_BYTES))

    class Stop(Seen):
        def advance(self, done: int, total: int | None = None) -> None:
            if done > CHUNK_BYTES:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        agent_here.put(source, str(tmp_path / "there"), progress=Stop())
    with pytest.raises(KeyboardInterrupt):
        agent_here.get(str(source), tmp_path / "back", progress=Stop())
    with pytest.raises(DeadlineError):
        agent_here.put(source, str(tmp_path / "there"), timeout=0)
    assert not [*tmp_path.glob("*.part")]
    assert not (tmp_path / "there").exists()
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("size", [2 * CHUNK_BYTES, 4 * CHUNK_BYTES])
def test_what_did_not_arrive_whole_gets_no_name(
    agent_here: GuestAgent, tmp_path: Path, size: int
) -> None:
    """Somebody else changes the file that is on its way, after its last byte was written."""
    source, there = tmp_path / "source", tmp_path / "there"
    source.write_bytes(os.urandom(3 * CHUNK_BYTES))
    there.write_bytes(b"before")

    class Change(Seen):
        def advance(self, done: int, total: int | None = None) -> None:
            if done == total:
                (part,) = tmp_path.glob("there.*.part")
                os.truncate(part, size)

    with pytest.raises(GuestError, match=r"cannot copy .*there: it did not arrive whole"):
        agent_here.put(source, str(there), progress=Change())
    assert there.read_bytes() == b"before"
    assert not [*tmp_path.glob("*.part")]


def test_a_file_that_shrinks_while_it_is_read_is_not_taken(
    agent_here: GuestAgent, tmp_path: Path
) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(3 * CHUNK_BYTES))

    class Shrink(Seen):
        def advance(self, done: int, total: int | None = None) -> None:
            if done == CHUNK_BYTES:
                os.truncate(source, 2 * CHUNK_BYTES)

    with pytest.raises(GuestError, match=r"cannot copy .*source: it shrank while it was copied"):
        agent_here.get(str(source), back, progress=Shrink())
    assert not back.exists()
    assert not [*tmp_path.glob("*.part")]


def test_agents_that_permit_no_programs_take_no_files(qemu_ga: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"some")
    with (
        RealAgent(qemu_ga, tmp_path, blocked=["guest-exec"]).running() as real,
        real.open() as agent,
    ):
        with pytest.raises(UnsupportedError, match="does not permit guest-exec"):
            agent.put(source, str(tmp_path / "there"))
        assert agent.get(str(source), tmp_path / "back") == 4
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("count", [0, -1, 1 << 40, None, True])
def test_a_count_that_cannot_be(count: object) -> None:
    def script(agent: Played) -> None:
        agent.synced(agent.sync())
        while True:
            request = agent.request()
            answer = 7 if request["execute"] == "guest-file-open" else {"count": count}
            agent.reply({"return": answer, "id": request["id"]})

    with played(script) as channel:
        file = GuestAgent(channel, "web01").open("/x", "wb")
        with pytest.raises(AgentError, match="senseless"):
            file.write(b"data")


def test_a_file_without_end_is_bounded() -> None:
    """An agent that is played: its file grows as it is read."""
    stop = threading.Event()

    def script(agent: Played) -> None:
        agent.synced(agent.sync())
        while not stop.is_set():
            request = agent.request()
            answer: object = 7
            if request["execute"] == "guest-file-read":
                answer = {"buf-b64": "QUJD" * 1000, "eof": False}
            agent.reply({"return": answer, "id": request["id"]})

    with played(script) as channel:
        with pytest.raises(GuestError, match="more than 100000 bytes"):
            GuestAgent(channel, "web01").read_file("/x", limit=100_000, timeout=WAIT)
        stop.set()
