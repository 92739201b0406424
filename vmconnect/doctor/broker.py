"""The check of the broker, which keeps sessions open between commands."""

from __future__ import annotations

import os

from vmconnect.broker import wire
from vmconnect.broker.ask import ask
from vmconnect.deadline import Deadline
from vmconnect.doctor.check import Verdict, fine, skipped, warn
from vmconnect.errors import ConnectionLostError, StateError

__all__ = ["try_broker"]

_STOP = "it ends by itself when it is idle; at once: vmconnect sessions stop"


def try_broker(_host: object, deadline: Deadline) -> Verdict:
    """Ask the broker that runs what it keeps open; none is started."""
    if os.environ.get("VMCONNECT_BROKER") == "0":
        return skipped("it is turned off: VMCONNECT_BROKER=0")
    seconds = deadline.remaining(at_most=5.0) or 0.001
    connection = wire.connect(seconds)
    if connection is None:
        return fine("none runs; vmconnect exec starts one")
    process, _user = wire.peer(connection)
    connection.close()
    try:
        sessions = sum(1 for _ in ask(wire.SESSIONS, timeout=seconds))
    except StateError:
        return warn(f"process {process} is of another version of vmconnect", _STOP)
    except ConnectionLostError:
        return warn(
            f"process {process} does not answer: commands do without it",
            f"kill {process}; the next command starts another",
        )
    return fine(f"process {process} keeps {sessions} session{'s' * (sessions != 1)} open")
