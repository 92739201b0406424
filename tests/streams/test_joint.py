"""A stream joined to descriptors: what ends it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from vmconnect.streams import SocketStream
from vmconnect.streams.joint import join

WAIT = 60.0


class Joined:
    """A far end that never says its end, joined to descriptors of ours in a thread."""

    def __init__(self, source: int, sink: int):
        stream, self.far = socket.socketpair()
        self.far.settimeout(WAIT)
        self._thread = threading.Thread(
            target=join, args=(SocketStream(stream, "the far end"), source, sink), daemon=True
        )
        self._thread.start()

    def ends(self) -> bool:
        self._thread.join(WAIT)
        return not self._thread.is_alive()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, ours = socket.socketpair()
    with near, ours:
        yield near, ours


def heard(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(1 << 16), b""))


def test_a_socket_that_is_closed_ends_both_directions(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, ours = pair
    joined = Joined(ours.fileno(), ours.fileno())
    with joined.far:
        near.sendall(b"last words")
        near.close()
        assert heard(joined.far) == b"last words"
        assert joined.ends()


def test_a_socket_that_is_closed_though_the_far_end_takes_nothing(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmconnect.streams.joint._LAST_SECONDS", 0.1)
    near, ours = pair
    joined = Joined(ours.fileno(), ours.fileno())
    with joined.far:
        near.settimeout(1.0)
        with pytest.raises(TimeoutError):
            near.sendall(bytes(16 << 20))
        near.close()
        assert joined.ends()


def test_pipes_of_one_who_is_gone() -> None:
    (source, theirs), (read, sink) = os.pipe(), os.pipe()
    joined = Joined(source, sink)
    with joined.far:
        os.write(theirs, b"last words")
        os.close(theirs)
        os.close(read)
        assert heard(joined.far) == b"last words"
        assert joined.ends()
    os.close(source)


def test_what_is_left_to_send_is_sent_after_the_far_end_s_own() -> None:
    (source, theirs), (read, sink) = os.pipe(), os.pipe()
    joined = Joined(source, sink)
    with joined.far:
        joined.far.shutdown(socket.SHUT_WR)
        assert os.read(read, 1) == b""
        os.write(theirs, b"one")
        assert joined.far.recv(3) == b"one"
        os.write(theirs, b"two")
        os.close(theirs)
        assert heard(joined.far) == b"two"
        assert joined.ends()
    os.close(source)
    os.close(read)


def test_an_end_alone_is_passed_on(pair: tuple[socket.socket, socket.socket]) -> None:
    near, ours = pair
    near.settimeout(WAIT)
    joined = Joined(ours.fileno(), ours.fileno())
    with joined.far:
        near.sendall(b"a question")
        near.shutdown(socket.SHUT_WR)
        assert heard(joined.far) == b"a question"
        joined.far.sendall(b"an answer")
        joined.far.shutdown(socket.SHUT_WR)
        assert heard(near) == b"an answer"
        assert joined.ends()
