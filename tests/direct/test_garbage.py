"""SSH servers that send what cannot be read, or break off without an end."""

from __future__ import annotations

import queue
import socket
import struct
import threading

import paramiko
import pytest

from tests.direct.liar import WAIT, Far, alive, forwarding, joined
from vmconnect.errors import AuthenticationError, ConnectionLostError, SshError

DISCONNECT, GLOBAL_REQUEST, AUTH_FAILURE = 1, 80, 51
EXTENDED_DATA, REQUEST, SUCCESS, FAILURE = 95, 98, 99, 100
NO_TEXT = b"\xff\xfe"


@pytest.mark.parametrize("where", ["a command's", "a forward's"])
def test_a_signal_whose_name_is_no_text(far: Far, where: str) -> None:
    signal = (b"exit-signal", False, NO_TEXT, False, b"", b"")
    if where == "a command's":
        channel = far.connection.open(WAIT)
        far.send(REQUEST, channel.chanid, *signal)
        assert channel.status_event.wait(WAIT)
        assert far.connection.exit_signal(channel) == "\ufffd\ufffd"
        assert far.connection.open(WAIT)
        return
    with forwarding(far) as forward, joined(far, forward) as (_sock, played):
        far.send(REQUEST, played.remote_chanid, *signal)
        assert alive(far, forward)


def test_messages_that_a_forward_s_channel_has_no_use_for(far: Far) -> None:
    with forwarding(far) as forward, joined(far, forward) as (sock, channel):
        number = channel.remote_chanid
        far.send(SUCCESS, number)
        far.send(FAILURE, number)
        far.send(EXTENDED_DATA, number, 1, b"standard error")
        far.send(EXTENDED_DATA, number, 7, b"another")
        far.send(REQUEST, number, b"exit-status", False, 0)
        channel.sendall(b"data")
        assert sock.recv(100) == b"data"
        assert alive(far, forward)


@pytest.mark.parametrize(
    "message",
    [(GLOBAL_REQUEST, NO_TEXT, True), (90, NO_TEXT, 1, 1, 1), (200,)],
    ids=["a request", "a channel", "of no kind that there is"],
)
def test_garbage_while_something_is_asked(far: Far, message: tuple[int, ...]) -> None:
    far.liar.before_channel = lambda: far.say(*message)
    with pytest.raises(SshError, match="cannot be read"):
        far.connection.open(WAIT)
    assert not far.connection.alive
    lost = far.connection.wait_end()
    assert isinstance(lost, ConnectionLostError)


def test_a_farewell_that_is_no_text(far: Far) -> None:
    far.liar.before_channel = lambda: far.say(DISCONNECT, 2, NO_TEXT, b"")
    with pytest.raises(ConnectionLostError):
        far.connection.open(WAIT)


@pytest.mark.parametrize(
    ("greeting", "answer"),
    [
        (b"\2\0\0\0\3", b"\x65\0\0\0\1\0\0\0\4\0\0\0\2" + NO_TEXT + bytes(4)),
        (b"\2\0", b""),
    ],
    ids=["a refusal", "a greeting"],
)
def test_an_sftp_server_that_sends_garbage(far: Far, greeting: bytes, answer: bytes) -> None:
    channels: queue.Queue[paramiko.Channel] = queue.Queue()
    far.liar.sftp = channels.put

    def serve() -> None:
        channel = channels.get()
        for each in filter(None, (greeting, answer)):
            size = int.from_bytes(channel.recv(4))
            channel.recv(size)
            channel.sendall(len(each).to_bytes(4) + each)

    threading.Thread(target=serve, daemon=True).start()
    with (
        pytest.raises(SshError, match="the SFTP server sent what cannot be read"),
        far.connection.sftp() as client,
    ):
        client.stat("file")
    assert far.connection.alive


def test_a_refusal_that_is_no_text(stranger: Far) -> None:
    stranger.liar.before_login = lambda: stranger.say(AUTH_FAILURE, NO_TEXT, False)
    with pytest.raises(SshError, match="cannot be read while logging in"):
        stranger.connect()


def test_a_farewell_that_is_no_text_while_we_log_in(stranger: Far) -> None:
    stranger.liar.before_login = lambda: stranger.say(DISCONNECT, 2, NO_TEXT, b"")
    with pytest.raises(AuthenticationError):
        stranger.connect()


def test_a_connection_that_is_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        far = Far((ours, server.accept()[0]))
    try:
        far.connect()
        reset = struct.pack("ii", 1, 0)
        far.server.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        far.liar.before_channel = far.server.sock.close
        with pytest.raises(ConnectionLostError):
            far.connection.open(WAIT)
        assert isinstance(far.connection.wait_end(), ConnectionLostError)
        assert not far.connection.alive
    finally:
        far.close()
