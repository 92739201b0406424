r"""The states of a session: what the machine is, as far as its hypervisor tells.

::

    RUNNING <--> PAUSED         it can be seen; when it runs, its guest can be talked to
        \          /
         OFF    GONE            it cannot, and can be waited for
           \    /
          UNKNOWN               nobody can be asked: a bare address, or no answer

A machine may go from any of these to any other, also in ways that nobody sees; CLOSED is the end of
the session, not of the machine.
"""

from __future__ import annotations

import enum

from vmconnect.hypervisor import PowerState
from vmconnect.state_machine import Table

__all__ = ["TRANSITIONS", "SessionState", "state_of"]


class SessionState(enum.Enum):
    """What a session's machine is."""

    UNKNOWN = "unknown"
    RUNNING = "running"
    PAUSED = "paused"
    OFF = "off"
    """Off, saved or crashed: its hypervisor has it, and can start it."""
    GONE = "gone"
    """Its hypervisor does not know it now: its process has ended, or it is not defined any more."""
    CLOSED = "closed"


_S = SessionState
_ANY = frozenset(SessionState)

TRANSITIONS: Table[SessionState] = {
    _S.UNKNOWN: _ANY - {_S.UNKNOWN},
    _S.RUNNING: _ANY - {_S.RUNNING},
    _S.PAUSED: _ANY - {_S.PAUSED},
    _S.OFF: _ANY - {_S.OFF},
    _S.GONE: _ANY - {_S.GONE},
    _S.CLOSED: frozenset(),
}

_STATES = {
    PowerState.RUNNING: _S.RUNNING,
    PowerState.PAUSED: _S.PAUSED,
    PowerState.OFF: _S.OFF,
    PowerState.SAVED: _S.OFF,
    PowerState.CRASHED: _S.OFF,
    PowerState.UNKNOWN: _S.UNKNOWN,
}


def state_of(power: PowerState) -> SessionState:
    """Return a session's state with a machine in that state."""
    return _STATES[power]
