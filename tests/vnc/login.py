"""A login against a server that the test plays: up to where it begins, and from its end on.

The servers' halves are written from rfbproto, apart from the client's, which they do not use.
"""

from __future__ import annotations

from vmconnect.vnc.credentials import Credentials
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.events import Connected
from vmconnect.vnc.policy import Policy

from .wire import long, server_init

USER, PASSWORD = "älice", "öpen sesame"
VERSION = b"RFB 003.008\n"
PRIVATE = Policy(private=True)


def start(
    number: int,
    *,
    policy: Policy = PRIVATE,
    user: str | None = USER,
    password: str | None = PASSWORD,
) -> Engine:
    """Return an engine to which a security type has just been given."""
    engine = Engine(Credentials(password, user), policy=policy)
    engine.receive(VERSION + bytes((1, number)))
    assert engine.data_to_send().startswith(VERSION + bytes((number,)))
    return engine


def finish(engine: Engine) -> None:
    """Let the server be content."""
    engine.receive(long(0))
    assert engine.data_to_send() == b"\1"
    assert engine.receive(server_init(4, 3, b"desk")) == [Connected(4, 3, "desk")]
