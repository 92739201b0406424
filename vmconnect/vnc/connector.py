"""Connecting to one VNC server, again and again: who we are there, and what it has to prove."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from vmconnect.deadline import Deadline
from vmconnect.streams import Stream
from vmconnect.vnc.clock import Clock
from vmconnect.vnc.connection import Connection
from vmconnect.vnc.credentials import Answer
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.events import Event
from vmconnect.vnc.framebuffer import Framebuffer
from vmconnect.vnc.link import LADDER, LOCAL, Link
from vmconnect.vnc.policy import Policy
from vmconnect.vnc.preference import Preference
from vmconnect.vnc.route import Route

__all__ = ["Connector", "Opener", "Tap"]

Opener = Callable[[Deadline], Stream | Route]
"""Finds the server and dials it; asked for each connection anew."""

Tap = Callable[[memoryview], object]

# More hardly ever have something to do: a server sends few rectangles at once that are worth it.
_MOST_THREADS = 4


class Connector:
    """Makes connections, one at a time; the arguments are `Console.open`'s.

    What a person has answered is remembered, and a server that has once proved who it is has to
    do so ever after.
    """

    def __init__(
        self,
        opener: Opener,
        name: str,
        *,
        password: Answer = None,
        user: Answer = None,
        policy: Policy | None = None,
        preference: Preference | None = None,
        local: bool = False,
        shared: bool = True,
        tap: Tap | None = None,
    ):
        self.clock = Clock(Deadline(None))
        self.link = Link(preference, LOCAL if local else LADDER)
        self._opener = opener
        self._name = name
        self._credentials = self.clock.credentials(password, user)
        self._policy = policy or Policy()
        self._preference = preference
        self._local = local
        self._shared = shared
        self._tap = tap
        self._proved = False

    def connect(
        self, framebuffer: Framebuffer, deadline: Deadline
    ) -> tuple[Connection, list[Event]]:
        """Connect, and return the connection and what the server has told.

        Raises what the opener does, and as `Connection.shake_hands`.
        """
        self.clock.deadline = deadline
        found = self._opener(deadline)
        route = found if isinstance(found, Route) else Route(found, self._policy, self._local)
        policy = self.clock.policy(route.policy)
        if self._proved:
            policy = replace(policy, verified=True)
        link = Link(self._preference, LOCAL if route.local else LADDER)
        engine = Engine(
            self._credentials,
            policy=policy,
            framebuffer=framebuffer,
            shared=self._shared,
            encodings=link.choice.numbers,
            threads=min(_MOST_THREADS, len(os.sched_getaffinity(0))),
            tap=self._tap,
        )
        connection = Connection(route.stream, engine, link, self._name, route.heartbeat)
        events = connection.shake_hands(self.clock)
        self.link = link
        self._proved = self._proved or engine.proved
        # A recording is of one connection: another one begins anew.
        self._tap = None
        return connection, events
