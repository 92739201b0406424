"""Streams: connected byte pipes, whatever they run over.

`Endpoint`
    an address that can be dialled: `Tcp`, `Unix`, `Vsock`, `HybridVsock`; over any of them `Tls`
    and `WebSocket`; on another host, `ThroughSsh`
`Stream`
    the connected result, one small interface for all
`dial`
    from the one to the other, within a deadline
`SocketStream`, `LayeredStream`
    the two kinds of streams: of the kernel, and over another stream
`SshHost`, `through`
    another host, and an endpoint as it is reached through it
"""

from vmconnect.streams.base import Stream
from vmconnect.streams.dial import dial, dial_at_once
from vmconnect.streams.endpoint import (
    SSH_PORT,
    Endpoint,
    HybridVsock,
    Tcp,
    ThroughSsh,
    Tls,
    Unix,
    Vsock,
    WebSocket,
    certified,
    host_of,
    through,
)
from vmconnect.streams.layered import LayeredStream
from vmconnect.streams.sockets import SocketStream
from vmconnect.streams.ssh.host import SshHost

__all__ = [
    "SSH_PORT",
    "Endpoint",
    "HybridVsock",
    "LayeredStream",
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
