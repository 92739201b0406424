"""Streams: connected byte pipes, whatever they run over.

`Endpoint`
    an address that can be dialled: `Tcp`, `Unix`, `Vsock`, `HybridVsock`; over any of them `Tls`
    and `WebSocket`; on another host, `ThroughSsh`
`Stream`
    the connected result, one small interface for all
`dial`
    from the one to the other, within a deadline
`SocketStream`
    a stream over the kernel's sockets; over another stream is `vmconnect.streams.layered`
`SshHost`, `through`
    another host, and an endpoint as it is reached through it
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vmconnect.streams.base import Stream
from vmconnect.streams.dial import dial, dial_at_once
from vmconnect.streams.endpoint import SSH_PORT, Endpoint, HybridVsock, Tcp, Unix, Vsock
from vmconnect.streams.sockets import SocketStream

if TYPE_CHECKING:
    from vmconnect.streams.overlay import Tls, WebSocket, certified
    from vmconnect.streams.ssh.host import SshHost
    from vmconnect.streams.ssh.through import ThroughSsh, host_of, through

__all__ = [
    "SSH_PORT",
    "Endpoint",
    "HybridVsock",
    "SocketStream",
    "SshHost",
    "Stream",
    "Tcp",
    "ThroughSsh",
    "Tls",
    "Unix",
    "Vsock",
    "WebSocket",
    "certified",
    "dial",
    "dial_at_once",
    "host_of",
    "through",
]

# What most commands never need is imported when it is first named.
_HOMES = {
    "SshHost": "vmconnect.streams.ssh.host",
    "ThroughSsh": "vmconnect.streams.ssh.through",
    "Tls": "vmconnect.streams.overlay",
    "WebSocket": "vmconnect.streams.overlay",
    "certified": "vmconnect.streams.overlay",
    "host_of": "vmconnect.streams.ssh.through",
    "through": "vmconnect.streams.ssh.through",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
