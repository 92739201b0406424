"""Guests that break the rules of forwarding: an SSH server of paramiko's, made to lie.

It is played: no real server can be brought to do this.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import paramiko
import pytest

from vmconnect.deadline import Deadline
from vmconnect.direct import Login, SshConnection
from vmconnect.direct.forward import Forward, ForwardKind, ForwardSpec
from vmconnect.direct.transport import WINDOW_BYTES
from vmconnect.errors import ConnectionLostError, DeadlineError, GuestError, SshError
from vmconnect.operation import Operations
from vmconnect.secret import Secret
from vmconnect.streams import SocketStream, Tcp

WAIT = 60.0
OPEN, OPENED, ADJUST, DATA, EOF = 90, 91, 93, 94, 96


class Liar(paramiko.ServerInterface):
    """Lets everybody in, takes every channel, and answers requests as it is told to."""

    def __init__(self) -> None:
        self.answer: Callable[[], int] = lambda: 0
        self.connects = True

    def check_auth_password(self, username: str, password: str) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_channel_direct_tcpip_request(self, chanid: int, origin: Any, destination: Any) -> int:
        return 0 if self.connects else 2

    def check_port_forward_request(self, address: str, port: int) -> int:
        return self.answer()  # 0 refuses


class Far:
    """The server, and the connection to it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.liar = Liar()
        self.server: Any = paramiko.Transport(theirs)
        self.server.add_server_key(paramiko.RSAKey.generate(2048))
        self.server.start_server(event=threading.Event(), server=self.liar)
        self.connection = SshConnection(
            SocketStream(ours, "the liar"),
            "liar",
            Login("me", (), use_agent=False, password=Secret("x")),
            lambda _kind, _blob: None,
            timeout=WAIT,
        )

    def send(self, kind: int, number: int, *fields: int | str | bytes) -> None:
        """Send a message to a channel of the connection's."""
        message = paramiko.Message()
        message.add_byte(bytes((kind,)))
        message.add_int(number)
        for field in fields:
            if isinstance(field, int):
                message.add_int(field)
            else:
                message.add_string(field)
        self.server._send_user_message(message)

    def close(self) -> None:
        self.connection.close()
        self.server.close()


@pytest.fixture
def far() -> Iterator[Far]:
    far = Far()
    try:
        yield far
    finally:
        far.close()


@contextlib.contextmanager
def forwarding(far: Far, text: str = "0:web:80", kind: str = "L") -> Iterator[Forward]:
    spec = ForwardSpec.read(text, ForwardKind(kind))
    with Forward(spec, "liar", lambda _until: far.connection, Operations(), timeout=2.0) as forward:
        yield forward


@contextlib.contextmanager
def joined(far: Far, forward: Forward) -> Iterator[tuple[socket.socket, Any]]:
    """Give a client, and the channel that it was joined to."""
    assert isinstance(forward.bound, Tcp)
    with socket.create_connection(("127.0.0.1", forward.bound.port)) as sock:
        sock.settimeout(WAIT)
        channel = far.server.accept(WAIT)
        assert channel is not None
        yield sock, channel


def wait_for(condition: Callable[[], object]) -> None:
    deadline = Deadline(WAIT)
    while not condition():
        deadline.check("waiting")
        time.sleep(0.01)


def alive(far: Far, forward: Forward) -> bool:
    """Return whether another connection still goes through."""
    with joined(far, forward) as (sock, channel):
        channel.sendall(b"still")
        answer = sock.recv(5) == b"still"
        channel.close()
    return answer and far.connection.alive


def test_more_than_the_window_breaks_the_channel_alone(far: Far) -> None:
    with forwarding(far) as forward, joined(far, forward) as (sock, channel):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        block = bytes(1 << 15)
        for _ in range(6 * WINDOW_BYTES // len(block)):
            far.send(DATA, channel.remote_chanid, block)
        wait_for(lambda: channel.closed)
        assert alive(far, forward)
        assert forward.tally.received < 6 * WINDOW_BYTES


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
            ("forwarded-streamlocal@openssh.com", ("\udcff",)),
            ("session", ()),
            ("direct-tcpip", ("localhost", 22, "y", 1)),
        ):
            message = paramiko.Message()
            message.add_byte(bytes((OPEN,)))
            message.add_string(kind)
            for each in (3, 1 << 20, 1 << 15):
                message.add_int(each)
            for field in where:
                if isinstance(field, int):
                    message.add_int(field)
                else:
                    message.add_string(field.encode("utf-8", "surrogateescape"))
            far.server._send_user_message(message)
        assert alive(far, forward)
        assert forward.tally.opened == 1


@pytest.mark.parametrize("port", [65536, 1 << 30])
def test_a_port_that_is_none(far: Far, port: int) -> None:
    far.liar.answer = lambda: port
    with pytest.raises(SshError, match=f"listens on port {port}"), forwarding(far, kind="R"):
        pass
    assert far.connection.alive


def test_an_answer_that_never_comes(far: Far) -> None:
    def late() -> int:
        time.sleep(4)
        return 0

    far.liar.answer = late
    with pytest.raises(DeadlineError, match="whether it listens"), forwarding(far, kind="R"):
        pass


def test_answers_to_others_questions_are_not_ours(far: Far) -> None:
    # A question of paramiko's own is refused, ours is granted: in that order.
    answers = [4711, 0]
    far.liar.answer = lambda: answers.pop(0)
    asked = paramiko.Message()
    asked.add_byte(bytes((80,)))
    asked.add_string("keepalive@openssh.com")
    asked.add_boolean(True)
    transport: Any = far.connection.transport
    transport._send_user_message(asked)
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
