"""Guests that break the rules of forwarding."""

from __future__ import annotations

import socket
import threading
import tracemalloc
from pathlib import Path

import paramiko
import pytest

from tests.direct.liar import (
    ADJUST,
    CLOSE,
    DATA,
    EOF,
    OPENED,
    WAIT,
    Far,
    alive,
    forwarding,
    joined,
    wait_for,
)
from vmconnect.direct.forward import Forward, ForwardSpec, connection
from vmconnect.direct.transport import WINDOW_BYTES
from vmconnect.errors import ConnectionLostError, DeadlineError, GuestError, SshError
from vmconnect.operation import Operations
from vmconnect.streams import Tcp, Unix


def test_more_than_the_window_breaks_the_channel_alone(far: Far) -> None:
    with forwarding(far) as forward, joined(far, forward) as (sock, channel):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        block = bytes(1 << 15)
        for _ in range(6 * WINDOW_BYTES // len(block)):
            far.send(DATA, channel.remote_chanid, block)
        wait_for(lambda: channel.closed)
        assert alive(far, forward)
        assert forward.tally.received < 6 * WINDOW_BYTES


def test_what_is_kept_is_no_more_than_its_bytes_however_small_its_pieces(
    far: Far, tmp_path: Path
) -> None:
    pieces = 20_000
    with (
        forwarding(far, f"{tmp_path}/s:web:80") as forward,
        socket.socket(socket.AF_UNIX) as sock,
        socket.socket(socket.AF_UNIX) as later,
    ):
        sock.connect(f"{tmp_path}/s")
        channel = far.server.accept(WAIT)
        channel.sendall(bytes(1 << 20))  # More than the kernel keeps for who does not read.
        tracemalloc.start()
        try:
            for _ in range(pieces):
                far.send(DATA, channel.remote_chanid, b"x")
            later.connect(f"{tmp_path}/s")
            far.server.accept(WAIT).sendall(b"all have come")
            assert later.recv(100) == b"all have come"
            snapshot = tracemalloc.take_snapshot()
        finally:
            tracemalloc.stop()
        kept = snapshot.filter_traces([tracemalloc.Filter(True, connection.__file__)])
        size = sum(each.size for each in kept.statistics("filename"))
        assert forward.tally.received < 1 << 20
        assert size < 2 << 20
        left = (1 << 20) + pieces
        while left:
            left -= len(sock.recv(left))


@pytest.mark.parametrize("where", ["0", "s"])
def test_closing_takes_nobody_more_though_the_guest_holds_us_up(
    far: Far, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmconnect.direct.forward.loop._FAREWELL_SECONDS", 0.01)
    listen = where if where == "0" else f"{tmp_path}/{where}"
    held = threading.Event()
    with forwarding(far, f"{listen}:web:80") as forward:
        forward._loop.call(held.wait)
        try:
            forward.close()
            bound = forward.bound
            family = socket.AF_UNIX if isinstance(bound, Unix) else socket.AF_INET
            with socket.socket(family) as sock, pytest.raises(OSError, match=r"refused|No such"):
                sock.connect(bound.path if isinstance(bound, Unix) else ("127.0.0.1", bound.port))
        finally:
            held.set()
        assert not (tmp_path / "s").exists()


def test_what_comes_often_is_put_off_once(far: Far) -> None:
    held = threading.Event()
    with forwarding(far) as forward, joined(far, forward) as (sock, channel):
        channel.sendall(b"x")
        assert sock.recv(1) == b"x"  # Both ends are there.
        forward._loop.call(held.wait)
        try:
            block = bytes(1 << 12)  # A socket that is empty takes it whole, without the loop.
            for _ in range(WINDOW_BYTES // len(block) - 1):
                far.send(DATA, channel.remote_chanid, block)
                assert sock.recv(len(block), socket.MSG_WAITALL) == block
            for _ in range(50):
                far.send(EOF, channel.remote_chanid)
            for _ in range(50):
                far.send(CLOSE, channel.remote_chanid)
            # All of that has been read before an answer is.
            far.connection.open(WAIT)
            far.server.accept(WAIT)
            assert len(forward._loop._calls) <= 3
        finally:
            held.set()
        assert sock.recv(1) == b""
        assert alive(far, forward)


def test_ends_and_leave_that_come_twice_and_data_after_them(far: Far) -> None:
    with forwarding(far) as forward, joined(far, forward) as (sock, channel):
        number = channel.remote_chanid
        far.send(OPENED, number, 77, 5, 5)
        far.send(ADJUST, number, 0xFFFFFFFF)
        far.send(ADJUST, number, 0xFFFFFFFF)
        sock.sendall(b"hello")
        assert channel.recv(5) == b"hello"
        far.send(DATA, number, b"first")
        far.send(EOF, number)
        far.send(DATA, number, b", last")
        channel.close()  # It says its end once more.
        assert b"".join(iter(lambda: sock.recv(20), b"")).startswith(b"first")
        assert alive(far, forward)


def test_packets_of_no_size_are_sent_in_bytes(far: Far) -> None:
    # Whoever opens a channel says how big its packets may be.
    far.server.default_max_packet_size = 0
    with forwarding(far) as forward, joined(far, forward) as (sock, channel):
        sock.sendall(b"abc")
        taken = b""
        while len(taken) < 3:
            taken += channel.recv(1)
        assert taken == b"abc"


def test_channels_that_nobody_asked_for_are_refused(far: Far) -> None:
    with forwarding(far) as forward:
        for kind, where in (
            ("forwarded-tcpip", ("x", 4711, "y", 1)),
            ("forwarded-streamlocal@openssh.com", ("/etc/passwd", "")),
            ("forwarded-streamlocal@openssh.com", (b"\xff",)),
            ("session", ()),
            ("direct-tcpip", ("localhost", 22, "y", 1)),
        ):
            far.offer(kind, 3, 1 << 20, 1 << 15, *where)
        assert alive(far, forward)
        assert forward.tally.opened == 1


@pytest.mark.parametrize("port", [65536, 1 << 30])
def test_a_port_that_is_none(far: Far, port: int) -> None:
    far.liar.answer = lambda: port
    with pytest.raises(SshError, match=f"listens on port {port}"), forwarding(far, kind="R"):
        pass
    assert far.connection.alive


@pytest.mark.parametrize("port", [0, 4711])
def test_an_answer_that_comes_too_late(far: Far, port: int) -> None:
    asked_too_long = threading.Event()

    def late() -> int:
        asked_too_long.wait(WAIT)
        return 4711

    far.liar.answer = late
    try:
        with (
            pytest.raises(DeadlineError, match="whether it listens"),
            forwarding(far, f"{port}:web:80", "R", timeout=0.5),
        ):
            pass
    finally:
        asked_too_long.set()
    # Nobody would take what is connected to there.
    wait_for(lambda: far.liar.cancelled)
    assert far.liar.cancelled == [("localhost", 4711)]
    assert not far.connection.transport.takers


def test_answers_to_others_questions_are_not_ours(far: Far) -> None:
    # A question of paramiko's own is refused, ours is granted: in that order.
    answers = [4711, 0]
    far.liar.answer = lambda: answers.pop(0)
    asked = paramiko.Message()
    asked.add_byte(bytes((80,)))
    asked.add_string("keepalive@openssh.com")
    asked.add_boolean(True)
    transport = far.connection.transport
    transport.send(asked)
    with forwarding(far, kind="R") as forward:
        assert forward.bound == Tcp("localhost", 4711)
    with pytest.raises(GuestError), forwarding(far, kind="R"):
        pass


def test_a_connection_that_ends_while_it_asks(far: Far) -> None:
    def leave() -> int:
        far.server.sock.close()
        return 0

    far.liar.answer = leave
    with pytest.raises(ConnectionLostError), forwarding(far, kind="R"):
        pass


def test_many_refusals_at_once_are_each_told(far: Far) -> None:
    far.liar.connects = False
    told: list[str] = []
    spec = ForwardSpec.read("0:web:80")
    with Forward(
        spec,
        "liar",
        lambda _until: far.connection,
        Operations(),
        on_trouble=lambda error: told.append(str(error)),
    ) as forward:
        assert isinstance(forward.bound, Tcp)
        for _ in range(40):
            socket.create_connection(("127.0.0.1", forward.bound.port)).close()
        wait_for(lambda: len(told) == 40)
        assert forward.tally.failed == 40
        assert all("cannot connect to web:80" in each for each in told)
