"""Copies into a real guest, out of it and between two, by every way."""

from __future__ import annotations

import json
import os
import secrets
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import vmconnect
from tests.direct.copy.test_trees import described, tree
from vmconnect.deadline import Deadline
from vmconnect.demo import DemoMachine
from vmconnect.direct import Guest
from vmconnect.direct.copy import Failure, Options
from vmconnect.errors import (
    ConnectError,
    ConnectionLostError,
    GuestError,
    ResourceError,
    UnsupportedError,
)
from vmconnect.session import Session
from vmconnect.streams import Stream

pytestmark = pytest.mark.guest

WAIT = 60.0
WAYS = ["vsock", "SSH", "SFTP"]
LARGE = 12_000_000
LINK = stat.S_IFLNK | 0o777


@pytest.fixture(scope="module")
def session(demo_machine: DemoMachine) -> Iterator[Session]:
    with vmconnect.connect(demo_machine.name) as session:
        yield session


@pytest.fixture(scope="module")
def guest(session: Session) -> Guest:
    return session.guest(timeout=WAIT, wait=True)


@pytest.fixture
def room(guest: Guest) -> Iterator[str]:
    """A directory in the guest."""
    path = f"/tmp/room-{secrets.token_hex(4)}"
    guest.run(["mkdir", path])
    yield path
    guest.run(["sh", "-c", f"umount {path}/* 2>/dev/null; chmod -R u+w {path}; rm -rf {path}"])


def by(way: str, **more: bool) -> Options:
    return Options(ways=(way,), **more)


def listing(guest: Guest, path: str) -> list[str]:
    return guest.run(["ls", "-A", path]).text.split("\n")[:-1]


def coarse(path: Path) -> dict[bytes, tuple[object, ...]]:
    """What SFTP keeps: it knows whole seconds, and no times of links."""
    return {
        name: (mode, content) if content and mode == LINK else (mode, int(str(when)[:10]), content)
        for name, (mode, when, content) in described(path).items()
    }


@pytest.mark.parametrize("way", WAYS)
def test_a_tree_goes_in_and_comes_back(guest: Guest, room: str, tmp_path: Path, way: str) -> None:
    source = tree(tmp_path / "source")
    sent = guest.put(source, room, options=by(way))
    back = guest.get(f"{room}/source", tmp_path / "back", options=by(way))
    assert (sent.way, sent.files, sent.size) == (back.way, back.files, back.size)
    assert sent.way == way
    if way == "SFTP":
        assert coarse(tmp_path / "back") == coarse(source)
    else:
        assert described(tmp_path / "back") == described(source)


@pytest.mark.parametrize("way", WAYS)
def test_what_can_go_wrong_with_one_file_is_told(
    guest: Guest, room: str, tmp_path: Path, way: str
) -> None:
    local = tmp_path / "local"
    local.write_text("new")
    guest.run(["sh", "-c", f"echo old >{room}/there; mkfifo {room}/fifo; mkdir {room}/dir"])
    for remote, said in [
        (f"{room}/none", "none: No such file or directory"),
        (f"{room}/fifo", "it is a FIFO"),
        (f"{room}/*.none", "No such file or directory"),
    ]:
        with pytest.raises(GuestError, match=said):
            guest.get(remote, tmp_path, options=by(way))
    assert [each.name for each in tmp_path.iterdir()] == ["local"]
    for remote, said in [
        (f"{room}/none/deeper", "No such file"),
        (f"{room}/fifo", "not replaced"),
        (f"{room}/there/deeper", "Not a directory|No such file|Failure"),
    ]:
        with pytest.raises(GuestError, match=said):
            guest.put(local, remote, options=by(way))
    with pytest.raises(ResourceError, match="missing: No such file or directory"):
        guest.put(tmp_path / "missing", room, options=by(way))
    with pytest.raises(ResourceError, match="No such file or directory"):
        guest.get(f"{room}/there", tmp_path / "none" / "deeper", options=by(way))
    assert listing(guest, room) == ["dir", "fifo", "there"]
    assert guest.run(["cat", f"{room}/there"]).text == "old\n"


@pytest.mark.parametrize("way", WAYS)
def test_a_full_disk_leaves_what_was_there(
    guest: Guest, room: str, tmp_path: Path, way: str
) -> None:
    disk = f"{room}/disk"
    guest.run(["sh", "-c", f"mkdir {disk}; mount -t tmpfs -o size=2m none {disk}; echo >{disk}/f"])
    (tmp_path / "f").write_bytes(secrets.token_bytes(5_000_000))
    said = "Failure" if way == "SFTP" else "No space left on device"
    with pytest.raises(GuestError, match=said) as caught:
        guest.put(tmp_path / "f", f"{disk}/f", options=by(way))
    assert caught.value.machine == "shared"
    assert listing(guest, disk) == ["f"]
    assert guest.run(["cat", f"{disk}/f"]).stdout == b"\n"


@pytest.mark.parametrize("way", WAYS)
def test_a_read_only_disk_is_told(guest: Guest, room: str, tmp_path: Path, way: str) -> None:
    disk = f"{room}/disk"
    guest.run(["sh", "-c", f"mkdir {disk}; mount -t tmpfs -o ro none {disk}"])
    (tmp_path / "f").touch()
    with pytest.raises(GuestError, match="Failure" if way == "SFTP" else "Read-only file system"):
        guest.put(tmp_path / "f", disk, options=by(way))


@pytest.mark.parametrize("way", WAYS)
def test_permissions_in_the_guest_are_its_own(
    session: Session, guest: Guest, room: str, tmp_path: Path, way: str
) -> None:
    guest.run(
        ["sh", "-c", f"chmod 755 {room}; echo x >{room}/a; echo y >{room}/b; chmod 0 {room}/a"]
    )
    other = session.guest(user="guest", timeout=WAIT)
    failures: list[Failure] = []
    copied = other.get(room, tmp_path / "back", on_failure=failures.append, options=by(way))
    assert (copied.ok, copied.files, copied.failed) == (False, 1, 1)
    assert [str(each) for each in failures] == [f"{room}/a: Permission denied"]
    assert os.listdir(tmp_path / "back") == ["b"]
    with pytest.raises(GuestError, match="Permission denied"):
        other.put(tmp_path / "back" / "b", f"{room}/c", options=by(way))
    other.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_is_replaced_belongs_to_whoever_copies(
    guest: Guest, room: str, tmp_path: Path, way: str
) -> None:
    guest.run(["sh", "-c", f"echo x >{room}/f; chown 1000:1000 {room}/f"])
    (tmp_path / "f").write_text("new")
    guest.put(tmp_path / "f", room, options=by(way))
    assert guest.run(["sh", "-c", f"ls -n {room}/f"]).text.split()[2:4] == ["0", "0"]


@pytest.mark.parametrize("way", WAYS)
def test_patterns_are_the_guest_s(guest: Guest, room: str, tmp_path: Path, way: str) -> None:
    guest.run(["sh", "-c", f"cd {room}; mkdir d e; touch d/a.log d/b.txt e/c.log .d.log"])
    (tmp_path / "out").mkdir()
    guest.get([f"{room}/*/*.log", f"{room}/d/b.txt"], tmp_path / "out", options=by(way))
    assert sorted(os.listdir(tmp_path / "out")) == ["a.log", "b.txt", "c.log"]


@pytest.mark.parametrize("way", WAYS)
def test_sync_sends_what_differs(guest: Guest, room: str, tmp_path: Path, way: str) -> None:
    source = tree(tmp_path / "source")
    guest.put(source, room, options=by(way))
    (source / "script").write_text("changed")
    again = guest.put(source, room, options=by(way, sync=True))
    assert (again.files, again.size) == (1, len("changed"))
    back = guest.get(f"{room}/source", tmp_path, options=by(way, sync=True))
    assert (back.files, back.size) == (0, 0)
    assert guest.sync(source, room).size == 0


class CutStream:
    """A stream that is closed when so many bytes have gone through it."""

    def __init__(self, stream: Stream, left: int):
        self._stream = stream
        self._left = left

    def sendall(self, data: bytes | memoryview) -> None:
        self._spend(len(data))
        self._stream.sendall(data)

    def recv_into(self, buffer: memoryview) -> int:
        count = self._stream.recv_into(buffer)
        self._spend(count)
        return count

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            self._stream.close()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


@pytest.mark.parametrize("there", [True, False])
def test_a_copy_that_was_cut_goes_on(
    session: Session, room: str, tmp_path: Path, there: bool
) -> None:
    guest = session.guest(timeout=WAIT)
    dial = guest.dial_port
    assert dial is not None
    local, remote = tmp_path / "big", f"{room}/big"
    data = secrets.token_bytes(LARGE)

    def copy() -> int:
        if there:
            return guest.put(local, remote).size
        return guest.get(remote, tmp_path / "back").size

    if there:
        local.write_bytes(data)
    else:
        guest.run(["sh", "-c", f"cat >{remote}"], stdin=data)
    guest.dial_port = lambda port, deadline: CutStream(dial(port, deadline), LARGE // 2)  # type: ignore[assignment,return-value]
    with pytest.raises(ConnectionLostError) as caught:
        copy()
    assert "goes on where this one was cut" in str(caught.value)
    assert "big" not in listing(guest, room) if there else not (tmp_path / "back").exists()
    guest.dial_port = dial
    assert 0 < copy() < 0.8 * LARGE
    if there:
        assert guest.run(["cat", remote]).stdout == data
        assert listing(guest, room) == ["big"]
    else:
        assert (tmp_path / "back").read_bytes() == data
        assert os.listdir(tmp_path) == ["back"]
    guest.close()


def test_who_has_no_token_is_turned_away(session: Session, room: str, tmp_path: Path) -> None:
    guest = session.guest(timeout=WAIT)
    dial = guest.dial_port
    assert dial is not None
    (tmp_path / "f").write_text("secret")
    heard: list[bytes] = []

    def beset(port: int, deadline: Deadline) -> Stream:
        for word in (b"x" * 32, b"", b"x" * 100):
            stranger = dial(port, deadline)
            stranger.sendall(word)
            stranger.shutdown_write()
            heard.append(stranger.recv(100))
            stranger.close()
        return dial(port, deadline)

    guest.dial_port = beset
    assert guest.put(tmp_path / "f", room).way == "vsock"
    assert heard == [b""] * 3
    guest.close()


def test_a_port_that_is_another_s_gets_nothing(session: Session, room: str, tmp_path: Path) -> None:
    """Somebody else in the guest answers at the port: all goes over SSH."""
    guest = session.guest(timeout=WAIT)
    dial = guest.dial_port
    assert dial is not None
    (tmp_path / "f").write_text("contents")
    script = f"socat -u VSOCK-LISTEN:7777,reuseaddr OPEN:{room}/heard,creat & sleep 0.3"
    guest.run(["sh", "-c", f"({script}) >/dev/null 2>&1"])
    guest.dial_port = lambda _port, deadline: dial(7777, deadline)
    assert guest.put(tmp_path / "f", room).way == "SSH"
    heard = guest.run(["cat", f"{room}/heard"]).stdout
    assert len(heard) == 32  # a token that is good for nothing any more
    assert guest.run(["cat", f"{room}/f"]).text == "contents"
    guest.close()


def test_without_vsock_it_goes_over_ssh_if_it_may(
    session: Session, room: str, tmp_path: Path
) -> None:
    guest = session.guest(timeout=WAIT)
    (tmp_path / "f").touch()

    def refuse(_port: int, _deadline: Deadline) -> Stream:
        raise ConnectError("no way")

    guest.dial_port = refuse
    assert guest.put(tmp_path / "f", room).way == "SSH"
    guest.dial_port = None
    assert guest.put(tmp_path / "f", room).way == "SSH"
    with pytest.raises(UnsupportedError, match="no vsock port of it can be dialled"):
        guest.put(tmp_path / "f", f"{room}/other", options=by("vsock"))
    either = Options(ways=("vsock", "SFTP"))
    assert guest.put(tmp_path / "f", room, options=either).way == "SFTP"
    assert listing(guest, room) == ["f"]
    guest.close()


def test_a_guest_without_python_and_another_with(
    fresh_machine: type[DemoMachine], guest: Guest, room: str, tmp_path: Path
) -> None:
    source = tree(tmp_path / "source")
    with fresh_machine.start("other") as machine, vmconnect.connect(machine.name) as session:
        other = session.guest(timeout=90, wait=True)
        guest.put(source, room)
        # From one guest to the other, and back.
        assert guest.copy(guest, f"{room}/source", other, "/tmp/").way == "vsock"
        assert other.copy(other, "/tmp/source", guest, f"{room}/back").way == "vsock"
        guest.get(f"{room}/back", tmp_path / "back")
        assert described(tmp_path / "back") == described(source)
        with pytest.raises(GuestError, match="other: cannot copy /tmp/none"):
            other.copy(other, "/tmp/none", guest, room)
        with pytest.raises(GuestError, match="shared: cannot copy /proc/x"):
            other.copy(other, "/tmp/source/script", guest, "/proc/x")
        assert other.run(["sh", "-c", "rm /usr/bin/python3*"]).ok
        assert other.put(source, "/tmp/again").way == "SFTP"
        assert other.get("/tmp/again/script", tmp_path / "script").way == "SFTP"
        assert other.copy(other, "/tmp/again", guest, f"{room}/third").way == "vsock and SFTP"
        with pytest.raises(vmconnect.VmconnectError, match="no Python that could copy"):
            other.put(source, "/tmp/again", options=by("vsock"))


def test_a_guest_that_is_reset_in_the_midst_leaves_no_half_file(
    fresh_machine: type[DemoMachine], tmp_path: Path
) -> None:
    from vmconnect.hypervisor import QmpClient
    from vmconnect.streams import Unix

    with fresh_machine.start("reset") as machine, vmconnect.connect(machine.name) as session:
        guest = session.guest(timeout=90, wait=True)
        guest.run(["sh", "-c", "head -c 60000000 /dev/urandom >/tmp/big"])

        class Reset:
            def step(self, text: str) -> None:
                pass

            def advance(self, done: int, total: int | None = None) -> None:
                if done > LARGE and not gone.is_set():
                    gone.set()
                    with QmpClient.connect(Unix(str(machine.qmp_path))) as monitor:
                        monitor.execute("system_reset")

        gone = threading.Event()
        with pytest.raises(ConnectionLostError):
            guest.get("/tmp/big", tmp_path / "big", progress=Reset())
        assert gone.is_set()
        assert not (tmp_path / "big").exists()


# The command.


def cp(*arguments: str | Path, cwd: Path | None = None) -> tuple[int, str, str]:
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "vmconnect", "cp", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=WAIT,
        check=False,
        cwd=cwd,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_cp_both_ways(demo_machine: DemoMachine, guest: Guest, room: str, tmp_path: Path) -> None:
    source = tree(tmp_path / "source")
    target = f"[qemu:{demo_machine.qmp_path}]:{room}"
    code, out, err = cp("-v", source, target)
    assert (code, out) == (0, "")
    assert " files, " in err
    assert "by vsock" in err
    code, out, _ = cp("--via", "vsock", "--json", f"shared:{room}/source", tmp_path / "raw")
    assert (code, [each["way"] for each in json.loads(out)]) == (0, ["vsock"])
    assert cp("-r", f"shared:{room}/source", tmp_path / "back") == (0, "", "")
    assert described(tmp_path / "back") == described(source)
    (tmp_path / "many").mkdir()
    sources = [f"shared:{room}/source/{each}" for each in ("s*", "to-file")]
    assert cp(*sources, "many", cwd=tmp_path) == (0, "", "")
    assert sorted(os.listdir(tmp_path / "many")) == ["script", "secret", "sub", "to-file"]


def test_cp_tells_what_failed_and_copies_the_rest(
    demo_machine: DemoMachine, guest: Guest, room: str, tmp_path: Path
) -> None:
    (tmp_path / "good").touch()
    code, out, err = cp(tmp_path / "bad", tmp_path / "good", f"shared:{room}")
    assert (code, out) == (1, "")
    assert err == f"vmconnect: cannot copy {tmp_path}/bad: No such file or directory\n"
    assert listing(guest, room) == ["good"]
    code, out, err = cp(tmp_path / "good", f"shared:{room}/none/")
    assert (code, out) == (1, "")
    assert "a directory is needed" in err
    for arguments, said in [
        (("a", "b"), "neither end is in a guest"),
        (("qemu:/run/x.qmp", "."), "does not say where its target ends"),
        (("nosuchmachine:x", "."), "no machine"),
    ]:
        code, out, err = cp(*arguments)
        assert code == 1
        assert said in err
