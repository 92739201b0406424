"""Channels that a guest offers: as many as it likes, and answers that come late."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.direct.liar import CLOSE, WAIT, Far, forwarding, wait_for
from vmconnect.direct.forward import Forward
from vmconnect.direct.transport import SHORTAGE

MOST = 6
PORT = 4711


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmconnect.direct.forward.forward._MOST_OFFERED", MOST)


@pytest.fixture
def granting(far: Far) -> Far:
    """The guest listens where it is asked to."""
    far.liar.answer = lambda: PORT
    return far


@contextlib.contextmanager
def listening(path: Path, backlog: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen(backlog)
        yield sock


def offer(far: Far, number: int) -> None:
    far.offer("forwarded-tcpip", number, 1 << 20, 1 << 15, "localhost", PORT, "127.0.0.1", 1)


def test_offers_that_wait_for_a_dial_are_bounded(granting: Far, tmp_path: Path) -> None:
    # A UNIX socket whose backlog is full lets who connects wait.
    with listening(tmp_path / "s", 0), forwarding(granting, f"0:{tmp_path}/s", "R"):
        for number in range(MOST + 5):
            offer(granting, number)
        wait_for(lambda: len(granting.server.refusals) == 5)
        assert granting.server.refusals == dict.fromkeys(range(MOST, MOST + 5), SHORTAGE)


def test_connections_that_a_guest_opens_are_bounded(granting: Far, tmp_path: Path) -> None:
    server = granting.server
    with (
        listening(tmp_path / "s", 2 * MOST) as sock,
        forwarding(granting, f"0:{tmp_path}/s", "R") as forward,
    ):
        for number in range(MOST):
            offer(granting, number)
        wait_for(lambda: len(server.taken) == MOST)
        offer(granting, MOST)
        wait_for(lambda: server.refusals)
        assert server.refusals == {MOST: SHORTAGE}
        assert forward.tally.opened == MOST
        # One that ends makes room for another.
        granting.send(CLOSE, server.taken[0])
        wait_for(lambda: forward.tally.open == MOST - 1)
        offer(granting, MOST + 1)
        wait_for(lambda: MOST + 1 in server.taken)
        for _ in range(MOST + 1):
            sock.accept()[0].close()


def test_a_dial_that_ends_after_the_forward_has(granting: Far, tmp_path: Path) -> None:
    with listening(tmp_path / "s", 0) as sock, socket.socket(socket.AF_UNIX) as before:
        before.connect(str(tmp_path / "s"))
        # Who comes now waits for the one before to be taken.
        with forwarding(granting, f"0:{tmp_path}/s", "R") as forward:
            offer(granting, 1)
            wait_for(lambda: dialling(forward))
        wait_for(lambda: granting.server.refusals)
        assert granting.server.refusals == {1: SHORTAGE}
        sock.accept()[0].close()
        dialled, _ = sock.accept()
        with dialled:
            dialled.settimeout(WAIT)
            assert dialled.recv(1) == b""
        assert not granting.server.taken


def dialling(forward: Forward) -> bool:
    assert forward._diallers is not None
    return bool(forward._diallers._threads) and not forward._diallers._work_queue.qsize()
