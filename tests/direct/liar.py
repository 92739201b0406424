"""A guest that breaks the rules: an SSH server of paramiko's, made to lie.

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

from vmconnect.deadline import Deadline
from vmconnect.direct import Login, SshConnection
from vmconnect.direct.forward import Forward, ForwardKind, ForwardSpec
from vmconnect.operation import Operations
from vmconnect.secret import Secret
from vmconnect.streams import SocketStream, Tcp

WAIT = 60.0
OPEN, OPENED, ADJUST, DATA, EOF, CLOSE = 90, 91, 93, 94, 96, 97


class Liar(paramiko.ServerInterface):
    """Lets everybody in, takes every channel, and answers requests as it is told to."""

    def __init__(self) -> None:
        self.answer: Callable[[], int] = lambda: 0
        self.connects = True
        self.cancelled: list[tuple[str, int]] = []
        self.before_login: Callable[[], object] = lambda: None
        self.before_channel: Callable[[], object] = lambda: None
        self.sftp: Callable[[paramiko.Channel], object] = lambda _channel: None

    def check_auth_password(self, username: str, password: str) -> int:
        self.before_login()
        return paramiko.common.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        self.before_channel()
        return 0

    def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
        self.sftp(channel)
        return True

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_channel_direct_tcpip_request(self, chanid: int, origin: Any, destination: Any) -> int:
        return 0 if self.connects else 2

    def check_port_forward_request(self, address: str, port: int) -> int:
        return self.answer()  # 0 refuses

    def cancel_port_forward_request(self, address: str, port: int) -> None:
        self.cancelled.append((address, port))


class LyingTransport(paramiko.Transport):
    """The server's transport; what is said of the channels that it has offered is kept."""

    def __init__(self, sock: socket.socket):
        super().__init__(sock)
        self.refusals: dict[int, int] = {}
        """Reasons, by the channel's number here."""
        self.taken: dict[int, int] = {}
        """Their numbers there, by those here."""

    def _parse_channel_open_success(self, message: paramiko.Message) -> None:
        here, there = message.get_int(), message.get_int()
        self.taken[here] = there

    def _parse_channel_open_failure(self, message: paramiko.Message) -> None:
        here, reason = message.get_int(), message.get_int()
        self.refusals[here] = reason


class Far:
    """The server, and the connection to it, once that was made."""

    def __init__(self, sockets: tuple[socket.socket, socket.socket] | None = None) -> None:
        self._ours, theirs = sockets or socket.socketpair()
        self.liar = Liar()
        self.server: Any = LyingTransport(theirs)
        self.server.add_server_key(paramiko.RSAKey.generate(2048))
        self.server.start_server(event=threading.Event(), server=self.liar)

    def connect(self) -> None:
        """Log in."""
        self.connection = SshConnection(
            SocketStream(self._ours, "the liar"),
            "liar",
            Login("me", (), use_agent=False, password=Secret("x")),
            lambda _kind, _blob: None,
            timeout=WAIT,
        )

    def send(self, kind: int, number: int, *fields: int | str | bytes) -> None:
        """Send a message to a channel of the connection's."""
        self.server._send_user_message(packet(kind, number, *fields))

    def say(self, kind: int, *fields: int | str | bytes) -> None:
        """Send any message, in the server's own thread."""
        self.server._send_message(packet(kind, *fields))

    def offer(self, kind: str, number: int, *fields: int | str | bytes) -> None:
        """Offer a channel: its number here, its window and packet, where it was connected to."""
        self.server.channels_seen[number] = True
        self.server._send_user_message(packet(OPEN, kind, number, *fields))

    def close(self) -> None:
        self._ours.close()
        self.server.close()


def packet(kind: int, *fields: int | str | bytes) -> paramiko.Message:
    """Return a message."""
    message = paramiko.Message()
    message.add_byte(bytes((kind,)))
    for field in fields:
        if isinstance(field, bool):
            message.add_boolean(field)
        elif isinstance(field, int):
            message.add_int(field)
        else:
            message.add_string(field)
    return message


@contextlib.contextmanager
def forwarding(
    far: Far, text: str = "0:web:80", kind: str = "L", timeout: float = WAIT
) -> Iterator[Forward]:
    spec = ForwardSpec.read(text, ForwardKind(kind))
    with Forward(
        spec, "liar", lambda _until: far.connection, Operations(), timeout=timeout
    ) as forward:
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
