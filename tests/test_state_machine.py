"""State machines: the tables are the rule, whatever is tried."""

from __future__ import annotations

import enum
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.channel import TRANSITIONS as CHANNEL
from vmconnect.channel import ChannelState
from vmconnect.deadline import CancelScope, Deadline
from vmconnect.errors import ConnectionLostError, StateError
from vmconnect.session.states import TRANSITIONS as SESSION
from vmconnect.session.states import SessionState
from vmconnect.state_machine import StateMachine

TABLES: list[tuple[Any, enum.Enum]] = [
    (CHANNEL, ChannelState.CONNECTING),
    (SESSION, SessionState.UNKNOWN),
]


@pytest.mark.parametrize(("table", "first"), TABLES)
def test_a_table_is_whole(table: Any, first: enum.Enum) -> None:
    states = set(type(first))
    assert set(table) == states
    assert all(after <= states for after in table.values())
    # Nothing follows the end, and it can be reached from everywhere else.
    (end,) = (state for state, after in table.items() if not after)
    assert end.value == "closed"
    assert all(end in after for state, after in table.items() if state is not end)
    # And all can be reached at all.
    reached, before = {first}, set[enum.Enum]()
    while reached != before:
        before = set(reached)
        reached |= {after for state in before for after in table[state]}
    assert reached == states


@given(st.data())
@pytest.mark.parametrize(("table", "first"), TABLES)
def test_any_course_keeps_to_the_table(table: Any, first: enum.Enum, data: st.DataObject) -> None:
    machine: StateMachine[Any] = StateMachine("it", table, first)
    reason = ConnectionLostError("gone")
    for after in data.draw(st.lists(st.sampled_from(list(type(first))), max_size=30)):
        before, because, version = machine.state, machine.because, machine.version
        if after in table[before]:
            assert machine.enter(after, reason) is before
            assert (machine.state, machine.because) == (after, reason)
            assert machine.version == version + 1
        else:
            with pytest.raises(StateError, match=f"it cannot go from {before.value}"):
                machine.enter(after, reason)
            assert (machine.state, machine.because, machine.version) == (before, because, version)


def test_waiting_for_a_state() -> None:
    machine = StateMachine("it", SESSION, SessionState.OFF)
    assert machine.wait_for(lambda state: state is SessionState.OFF, Deadline(0))
    assert not machine.wait_for(lambda state: state is SessionState.RUNNING, Deadline(0.01))
    timer = threading.Timer(0.02, machine.enter, [SessionState.RUNNING])
    timer.start()
    assert machine.wait_for(lambda state: state is SessionState.RUNNING, Deadline(60))
    timer.join()


def test_waiting_ends_when_it_is_cancelled() -> None:
    machine, scope = StateMachine("it", SESSION, SessionState.OFF), CancelScope()
    timer = threading.Timer(0.02, scope.cancel)
    timer.start()
    assert not machine.wait_for(lambda state: state is SessionState.RUNNING, scope.deadline(None))
    timer.join()
