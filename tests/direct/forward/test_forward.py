"""Forwards over a real sshd: both ways, TCP and UNIX sockets, SOCKS by curl."""

from __future__ import annotations

import contextlib
import http.server
import os
import random
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.direct.forward.rig import WAIT, PlayedGuest, played_guest
from vmconnect.deadline import Deadline
from vmconnect.direct import Guest
from vmconnect.direct.forward import Forward
from vmconnect.direct.transport import WINDOW_BYTES
from vmconnect.errors import (
    ClosedError,
    GuestError,
    ResourceError,
    TargetError,
    VmconnectError,
)
from vmconnect.operation import Operation
from vmconnect.streams import Tcp, Unix

Serve = Callable[[socket.socket], object]


@pytest.fixture(scope="module")
def played() -> Iterator[PlayedGuest]:
    with played_guest() as guest:
        yield guest


@pytest.fixture(scope="module")
def guest(played: PlayedGuest) -> Iterator[Guest]:
    with played.logged_in() as guest:
        yield guest


@contextlib.contextmanager
def serving(sock: socket.socket, serve: Serve) -> Iterator[socket.socket]:
    """Call ``serve`` with each connection, in a thread of its own."""

    def handle(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            serve(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = sock.accept()
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    with sock:
        thread.start()
        try:
            yield sock
        finally:
            sock.shutdown(socket.SHUT_RDWR)
            thread.join()


def on_tcp(serve: Serve) -> contextlib.AbstractContextManager[socket.socket]:
    return serving(socket.create_server(("127.0.0.1", 0)), serve)


def on_unix(path: Path, serve: Serve) -> contextlib.AbstractContextManager[socket.socket]:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return serving(sock, serve)


def echo(connection: socket.socket) -> None:
    """Say all that is heard, and end when the other does."""
    while data := connection.recv(1 << 16):
        connection.sendall(data)


def backwards(connection: socket.socket) -> None:
    """Say what was heard backwards: not before its end is known."""
    connection.sendall(b"".join(iter(lambda: connection.recv(1 << 16), b""))[::-1])


def port(sock: socket.socket) -> int:
    number: int = sock.getsockname()[1]
    return number


def call(where: Tcp | Unix) -> socket.socket:
    if isinstance(where, Unix):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(where.path)
    else:
        sock = socket.create_connection(("127.0.0.1", where.port))
    sock.settimeout(WAIT)
    return sock


def asked(where: Tcp | Unix, question: bytes) -> bytes:
    """Say something, and its end; return what is answered."""
    with call(where) as sock:

        def say() -> None:
            sock.sendall(question)
            sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=say)
        sender.start()
        answer = b"".join(iter(lambda: sock.recv(1 << 16), b""))
        sender.join()
        return answer


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = Deadline(WAIT)
    while not condition():
        deadline.check(f"waiting for {what}")
        time.sleep(0.01)


def descriptors_open() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


# This side listens.


def test_tcp_with_each_end_alone(guest: Guest) -> None:
    with on_tcp(backwards) as server, guest.forward(f"0:localhost:{port(server)}") as forward:
        assert isinstance(forward.bound, Tcp)
        assert forward.bound.host == "localhost"
        assert forward.bound.port > 0
        assert asked(forward.bound, b"hello") == b"olleh"
        wait_for(lambda: not forward.tally.open, "its end")
        tally = forward.tally
        assert (tally.opened, tally.failed, tally.sent, tally.received) == (1, 0, 5, 5)


def test_much_goes_both_ways_at_once_and_none_of_it_is_lost(guest: Guest) -> None:
    data = random.Random(1).randbytes(12 << 20)
    with on_tcp(echo) as server, guest.forward(f"0:127.0.0.1:{port(server)}") as forward:
        assert asked(forward.bound, data) == data


def test_both_families_of_loopback_and_nothing_else(guest: Guest) -> None:
    with on_tcp(echo) as server, guest.forward(f"0:127.0.0.1:{port(server)}") as forward:
        assert isinstance(forward.bound, Tcp)
        with socket.create_connection(("::1", forward.bound.port)) as sock:
            sock.sendall(b"six")
            assert sock.recv(10) == b"six"
        listening = subprocess.run(
            ["ss", "-Hltn", f"sport = :{forward.bound.port}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert {
            word.rpartition(":")[0] for word in listening if str(forward.bound.port) in word
        } == {
            "127.0.0.1",
            "[::1]",
        }


@pytest.mark.parametrize("length", [10, 150])
def test_unix_sockets_on_both_sides(guest: Guest, tmp_path: Path, length: int) -> None:
    room = tmp_path / ("d" * length)
    room.mkdir()
    served, listened = tmp_path / "served", room / "listened"
    # The other side's sshd takes no longer path than an address has.
    os.chdir(tmp_path)
    with on_unix(Path("served"), backwards), guest.forward(f"{listened}:{served}") as forward:
        mode = listened.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
        os.chdir(room)
        assert asked(Unix("listened"), b"hello") == b"olleh"
        assert forward.bound == Unix(str(listened))
    assert not listened.exists()


def test_many_at_once_and_one_that_stands_still(guest: Guest) -> None:
    with on_tcp(echo) as server, guest.forward(f"0:127.0.0.1:{port(server)}") as forward:
        with call(forward.bound) as still:
            still.sendall(b"x")
            answers: dict[int, bytes] = {}

            def ask(number: int) -> None:
                answers[number] = asked(forward.bound, bytes((number,)) * 20_000)

            threads = [threading.Thread(target=ask, args=(number,)) for number in range(60)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(WAIT)
            assert answers == {number: bytes((number,)) * 20_000 for number in range(60)}
            assert still.recv(10) == b"x"
        wait_for(lambda: not forward.tally.open, "their ends")


def flood(connection: socket.socket) -> None:
    while True:
        connection.sendall(bytes(1 << 16))


def test_a_client_that_does_not_read_holds_up_the_guest_and_nobody_else(guest: Guest) -> None:
    with (
        on_tcp(flood) as server,
        on_tcp(echo) as other,
        guest.forward(f"0:127.0.0.1:{port(server)}") as forward,
        guest.forward(f"0:127.0.0.1:{port(other)}") as lively,
        call(forward.bound) as lazy,
    ):
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        held = -1
        while forward.tally.received != held:  # until the kernel's buffers are full
            held = forward.tally.received
            time.sleep(0.3)
            assert asked(lively.bound, b"still here") == b"still here"
        (connection,) = forward._connections
        waiting = len(connection._waiting)
        assert 0 < waiting <= WINDOW_BYTES
        assert len(lazy.recv(1 << 20)) > 0


def test_a_guest_that_does_not_read_holds_up_the_client(guest: Guest) -> None:
    release = threading.Event()
    taken = bytearray()

    def late(connection: socket.socket) -> None:
        release.wait(WAIT)
        taken.extend(b"".join(iter(lambda: connection.recv(1 << 16), b"")))

    with on_tcp(late) as server, guest.forward(f"0:127.0.0.1:{port(server)}") as forward:
        with call(forward.bound) as sock:
            sock.setblocking(False)
            sent = 0
            patience = Deadline(1.0)
            while not patience.passed and sent < 64 << 20:
                with contextlib.suppress(BlockingIOError):
                    sent += sock.send(bytes(1 << 16))
                    patience = Deadline(1.0)
            assert sent < 64 << 20
            release.set()
        wait_for(lambda: len(taken) == sent, "what was held up")


def test_a_reset_of_one_is_not_another_s(guest: Guest) -> None:
    with (
        on_tcp(echo) as server,
        guest.forward(f"0:127.0.0.1:{port(server)}") as forward,
        call(forward.bound) as other,
    ):
        with call(forward.bound) as broken:
            broken.sendall(b"x")
            assert broken.recv(1) == b"x"
            broken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wait_for(lambda: forward.tally.open == 1, "the end of the one that was reset")
        other.sendall(b"y")
        assert other.recv(1) == b"y"


def test_nobody_there_is_told_to_both(guest: Guest, tmp_path: Path) -> None:
    free = socket.create_server(("127.0.0.1", 0))
    nobody = port(free)
    free.close()
    told: list[VmconnectError] = []
    for target in (f"127.0.0.1:{nobody}", f"{tmp_path}/nobody"):
        with guest.forward(f"0:{target}", on_trouble=told.append) as forward:
            with call(forward.bound) as sock, pytest.raises(ConnectionResetError):
                sock.recv(1)
            assert forward.tally.failed == 1
        error = told.pop()
        assert isinstance(error, GuestError)
        assert target in str(error)
        assert "does anything listen there" in str(error)
    assert not told


def test_where_it_cannot_listen(guest: Guest, tmp_path: Path) -> None:
    with (
        on_tcp(echo) as server,
        pytest.raises(ResourceError, match=r"in use .*port 0 takes a free"),
    ):
        guest.forward(f"{port(server)}:localhost:1")
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="a file of that name"):
        guest.forward(f"{tmp_path}/file:localhost:1")
    with pytest.raises(ResourceError, match="No such file"):
        guest.forward(f"{tmp_path}/none/s:localhost:1")
    with pytest.raises(ResourceError, match=r"cannot listen on no-such-host\.invalid:0"):
        guest.forward("no-such-host.invalid:0:localhost:1")
    with pytest.raises(TargetError):
        guest.forward("nonsense")
    assert (tmp_path / "file").exists()


# The guest listens.


def test_the_guest_listens_on_a_free_port(guest: Guest) -> None:
    with on_tcp(backwards) as server:
        with guest.forward(f"0:127.0.0.1:{port(server)}", "R") as forward:
            assert isinstance(forward.bound, Tcp)
            assert forward.bound.port not in {0, port(server)}
            data = random.Random(2).randbytes(1 << 20)
            assert asked(forward.bound, data) == data[::-1]
            bound = forward.bound

        def refused() -> bool:
            try:
                call(bound).close()
            except ConnectionRefusedError:
                return True
            return False

        wait_for(refused, "the guest to listen no more")


def test_the_guest_listens_on_a_path(guest: Guest, tmp_path: Path) -> None:
    served, listened = tmp_path / "served", tmp_path / "listened"
    with on_unix(served, backwards), guest.forward(f"{listened}:{served}", "R") as forward:
        assert asked(forward.bound, b"hello") == b"olleh"
    # sshd leaves it there.
    with pytest.raises(GuestError, match=r"refuses to listen on .*is there such a file"):
        guest.forward(f"{listened}:{served}", "R")


def test_nobody_here_is_told_to_both(guest: Guest, tmp_path: Path) -> None:
    told: list[VmconnectError] = []
    with guest.forward(f"0:{tmp_path}/nobody", "R", on_trouble=told.append) as forward:
        with call(forward.bound) as sock, contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""
        wait_for(lambda: told, "word of it")
        assert f"cannot connect to {tmp_path}/nobody" in str(told[0])
        assert forward.tally.failed == 1


def test_a_port_that_the_guest_has_no_more(guest: Guest) -> None:
    with on_tcp(echo) as server, pytest.raises(GuestError, match="is it in use there"):
        guest.forward(f"127.0.0.1:{port(server)}:localhost:1", "R")


# SOCKS.


@pytest.mark.parametrize("option", ["--socks4", "--socks4a", "--socks5", "--socks5-hostname"])
def test_curl_by_socks(guest: Guest, option: str, tmp_path: Path) -> None:
    (tmp_path / "page").write_text("all of it")

    class Pages(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object):
            super().__init__(*arguments, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server,
        guest.forward("0", "D") as forward,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = "127.0.0.1" if option in {"--socks4", "--socks5"} else "localhost"
        assert isinstance(forward.bound, Tcp)
        proxy = f"127.0.0.1:{forward.bound.port}"
        words = ["curl", "-sS", "--noproxy", "", option, proxy]
        page = subprocess.run(
            [*words, f"http://{host}:{server.server_port}/page"],
            capture_output=True,
            text=True,
            check=False,
            timeout=WAIT,
        )
        server.shutdown()
        assert (page.stdout, page.stderr) == ("all of it", "")
        nobody = subprocess.run(
            [*words, "http://127.0.0.1:1/"], capture_output=True, check=False, timeout=WAIT
        )
        assert nobody.returncode == 97  # the proxy says that it was refused
        wait_for(lambda: forward.tally.failed, "word of it")
        assert (forward.tally.opened, forward.tally.failed) == (1, 1)


def test_what_is_no_socks_is_told(guest: Guest) -> None:
    told: list[VmconnectError] = []
    with guest.forward("0", "D", on_trouble=told.append) as forward:
        assert asked(forward.bound, b"GET / HTTP/1.0\r\n\r\n") == b""
        wait_for(lambda: told, "word of it")
        assert "does not speak SOCKS" in str(told[0])


# What sshd allows, and the connection's end.


@pytest.mark.parametrize("kind", ["L", "R"])
def test_an_sshd_that_permits_none(played: PlayedGuest, kind: str, tmp_path: Path) -> None:
    played.serve("AllowTcpForwarding no", "AllowStreamLocalForwarding no")
    try:
        with played.logged_in() as guest, on_tcp(echo) as server:
            told: list[VmconnectError] = []
            if kind == "R":
                with pytest.raises(GuestError, match=r"permit it \(AllowTcpForwarding\)"):
                    guest.forward(f"0:localhost:{port(server)}", kind)
                with pytest.raises(GuestError, match=r"permit it \(AllowStreamLocalForwarding\)"):
                    guest.forward(f"{tmp_path}/s:localhost:{port(server)}", kind)
                return
            with guest.forward(f"0:localhost:{port(server)}", on_trouble=told.append) as forward:
                with call(forward.bound) as sock, pytest.raises(ConnectionResetError):
                    sock.recv(1)
                wait_for(lambda: told, "word of it")
                assert "permit it (AllowTcpForwarding)" in str(told[0])
            assert guest.run(["true"]).ok
    finally:
        played.serve()


def test_it_goes_on_over_another_connection(played: PlayedGuest, tmp_path: Path) -> None:
    told: list[VmconnectError] = []
    with played.logged_in() as guest, on_tcp(echo) as server:
        target = f"127.0.0.1:{port(server)}"
        with (
            guest.forward(f"0:{target}", on_trouble=told.append) as local,
            guest.forward(f"0:{target}", "R", on_trouble=told.append) as remote,
        ):
            with call(local.bound) as here, call(remote.bound) as there:
                for sock in (here, there):
                    sock.sendall(b"x")
                    assert sock.recv(1) == b"x"
                played.cut()
                with pytest.raises(ConnectionResetError):
                    here.recv(1)
                assert there.recv(1) == b""
            assert asked(local.bound, b"again") == b"again"
            answer = b""

            def again() -> bool:
                nonlocal answer
                with contextlib.suppress(OSError):
                    answer = asked(remote.bound, b"again")
                return bool(answer)

            wait_for(again, "the guest to listen again")
            assert answer == b"again"
        assert not told


def test_it_ends_with_the_guest_s_channel(played: PlayedGuest) -> None:
    with played.logged_in() as guest, on_tcp(echo) as server:
        before = threading.active_count()
        forward = guest.forward(f"0:127.0.0.1:{port(server)}")
        operations: list[Operation] = []
        guest.operations.subscribe(operations.append)
        with call(forward.bound) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            guest.close()
            assert forward.wait(WAIT)
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            call(forward.bound)
        (operation,) = operations
        assert (operation.name, operation.sent, operation.received) == ("forward", 1, 1)
        assert operation.details["connections"] == 1
        forward.close()
        with pytest.raises(ClosedError):
            guest.forward("0:localhost:1")
        wait_for(lambda: threading.active_count() <= before, "its threads to end")


def test_a_forward_that_is_closed_leaves_nothing(guest: Guest) -> None:
    assert guest.run(["true"]).ok  # Its connection stands.
    before = descriptors_open()
    with on_tcp(echo) as server:
        for kind in ("L", "R"):
            forward: Forward = guest.forward(f"0:127.0.0.1:{port(server)}", kind)
            with forward, call(forward.bound) as sock:
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
    assert forward._ssh is not None
    transport = forward._ssh.transport
    wait_for(lambda: not transport._peers, "its channels' ends")
    wait_for(lambda: descriptors_open() <= before, "its descriptors")
    assert not transport.takers
