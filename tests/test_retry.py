"""The one retry policy: how long it waits, and what wakes it."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.deadline import CancelScope, Deadline
from vmconnect.errors import AuthenticationError, ClosedError, ConnectError
from vmconnect.retry import Backoff, Retry

FOREVER = Backoff(3600.0, 3600.0)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def patient() -> Retry:
    """Pauses of an hour: whatever returns sooner was woken."""
    return Retry(FOREVER, random=lambda: 1.0)


@given(
    st.floats(0.001, 10), st.floats(0.001, 100), st.lists(st.floats(0, 1), min_size=1, max_size=99)
)
def test_pauses_grow_at_random_up_to_a_bound(
    first: float, most: float, chances: list[float]
) -> None:
    drawn = iter(chances)
    retry = Retry(Backoff(first, most), random=lambda: next(drawn))
    for tries, chance in enumerate(chances):
        longest = min(most, first * 2.0**tries)
        assert retry.pause() == pytest.approx(longest * chance)


def test_what_lasted_begins_with_short_pauses_again() -> None:
    clock = Clock()
    retry = Retry(Backoff(1.0, 8.0), random=lambda: 1.0, clock=clock)
    assert [retry.pause() for _ in range(5)] == [1, 2, 4, 8, 8]
    retry.succeeded()
    clock.now += 8.0
    assert [retry.pause() for _ in range(2)] == [1, 2]
    # What lasts a moment only is no reason to hurry.
    retry.succeeded()
    clock.now += 3.9
    assert [retry.pause() for _ in range(3)] == [4, 8, 8]


def test_it_is_woken_at_once() -> None:
    retry = patient()
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(retry.wait()))
    thread.start()
    retry.wake()
    thread.join()
    assert answers == [True]


def test_a_wake_before_the_wait_is_not_lost() -> None:
    retry = patient()
    retry.wake()
    assert retry.wait()
    retry.wake()
    retry.succeeded()  # What it was about is done.
    assert not retry.wait(0.01)


def test_a_wake_makes_pauses_short() -> None:
    retry = Retry(Backoff(1.0, 8.0), random=lambda: 1.0)
    assert [retry.pause() for _ in range(4)] == [1, 2, 4, 8]
    retry.wake()
    assert retry.pause() == 1


def test_closing_ends_the_wait_for_good() -> None:
    retry = patient()
    timer = threading.Timer(0.02, retry.close)
    timer.start()
    assert not retry.wait()
    assert not retry.wait()
    timer.join()


def test_a_cancelled_deadline_ends_the_wait() -> None:
    retry, scope = patient(), CancelScope()
    timer = threading.Timer(0.02, scope.cancel)
    timer.start()
    assert not retry.wait(scope.deadline(None))
    timer.join()
    with pytest.raises(ClosedError):
        retry.wait(scope.deadline(None))


def test_attempts_go_on_while_that_may_help() -> None:
    retry = Retry(Backoff(0.001, 0.001))
    answers = iter([None, None, 42])

    def ask() -> int:
        answer = next(answers)
        if answer is None:
            raise ConnectError("not yet")
        return answer

    assert retry.attempt(ask, Deadline(60)) == 42


def test_attempts_end_with_what_does_not_pass() -> None:
    tries: list[int] = []

    def ask() -> None:
        tries.append(1)
        raise AuthenticationError("no")

    with pytest.raises(AuthenticationError):
        Retry(Backoff(0.001, 0.001)).attempt(ask, Deadline(60))
    assert len(tries) == 1


def test_attempts_end_with_the_time_and_say_what_was_wrong_last() -> None:
    def ask() -> None:
        raise ConnectError("nobody there")

    with pytest.raises(ConnectError, match="nobody there"):
        Retry(Backoff(0.001, 0.001)).attempt(ask, Deadline(0.05))


def test_that_the_time_is_over_is_not_what_was_wrong() -> None:
    deadline = Deadline(0.05)

    def ask() -> None:
        deadline.check("asking")
        raise ConnectError("nobody there")

    for _ in range(5):
        with pytest.raises(ConnectError, match="nobody there"):
            Retry(Backoff(0.02, 0.02)).attempt(ask, deadline)
        deadline = Deadline(0.05)
