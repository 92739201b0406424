"""How a command comes to a machine's guest agent."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator

from vmconnect.cli.voice import say
from vmconnect.deadline import Deadline
from vmconnect.direct.agent import GuestAgent
from vmconnect.session import connect

__all__ = ["agent_of"]


@contextlib.contextmanager
def agent_of(arguments: argparse.Namespace, deadline: Deadline) -> Iterator[GuestAgent]:
    """Give the agent of the target, for a ``with`` block, and say so if that is wanted.

    Raises as `connect` and `Session.agent` do.
    """
    with connect(arguments.target, deadline) as session, session.agent(deadline) as agent:
        if arguments.verbose:
            user = "SYSTEM" if agent.is_windows(deadline) else "root"
            say(f"{agent.machine}: by the guest agent, as {user}")
        yield agent
