"""Deadlines, and scopes that end them."""

from __future__ import annotations

import socket
import threading

import pytest

from vmconnect.deadline import CancelScope, Deadline
from vmconnect.errors import ClosedError, ConnectError, DeadlineError
from vmconnect.streams import Tcp, dial


def test_a_deadline_passes_down() -> None:
    deadline = Deadline(60)
    assert Deadline.of(deadline) is deadline
    assert not deadline.passed
    sooner = deadline.sooner(0)
    assert sooner.passed
    assert sooner.remaining() == 0
    with pytest.raises(DeadlineError, match="timed out while asking"):
        sooner.check("asking")
    assert Deadline(None).remaining() is None
    assert Deadline(None).remaining(at_most=3) == 3


def test_cancelling_ends_every_deadline_of_the_scope() -> None:
    scope = CancelScope()
    deadlines = [scope.deadline(None), scope.deadline(60), scope.deadline(Deadline(60))]
    deadlines += [each.sooner(30) for each in deadlines] + [deadlines[0].renewed(30)]
    assert not any(each.passed or each.cancelled for each in deadlines)
    scope.cancel()
    for each in deadlines:
        assert each.passed
        assert each.cancelled
        assert each.remaining() == 0
        with pytest.raises(ClosedError, match="closed while asking"):
            each.check("asking")
    assert scope.deadline(60).passed
    assert not Deadline(60).cancelled


def test_cancelling_wakes_who_waits() -> None:
    scope, woken = CancelScope(), threading.Event()
    with scope.deadline(None).waking(woken.set):
        scope.cancel()
        assert woken.is_set()
    with pytest.raises(ClosedError), scope.deadline(None).waking(woken.set):
        raise AssertionError("the block was entered")


def test_who_has_left_is_not_woken() -> None:
    scope, woken = CancelScope(), threading.Event()
    with scope.deadline(None).waking(woken.set):
        pass
    scope.cancel()
    assert not woken.is_set()


def test_dialling_ends_when_it_is_cancelled() -> None:
    """A listener whose queue is full answers nobody: connecting to it takes minutes."""
    scope = CancelScope()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        with socket.create_connection(address), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(address)
            timer = threading.Timer(0.1, scope.cancel)
            timer.start()
            with pytest.raises((ConnectError, ClosedError)):
                dial(Tcp(*address), scope.deadline(100))
            timer.join()
