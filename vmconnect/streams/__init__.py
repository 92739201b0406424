"""Streams: connected byte pipes, whatever they run over.

`Endpoint`
    an address that can be dialled: `Tcp`, `Unix`, `Vsock`, `HybridVsock`
`Stream`
    the connected result, one small interface for all
`dial`
    from the one to the other, within a deadline
"""

from vmconnect.streams.base import Stream
from vmconnect.streams.dial import dial, dial_at_once
from vmconnect.streams.endpoint import SSH_PORT, Endpoint, HybridVsock, Tcp, Unix, Vsock
from vmconnect.streams.sockets import SocketStream

__all__ = [
    "SSH_PORT",
    "Endpoint",
    "HybridVsock",
    "SocketStream",
    "Stream",
    "Tcp",
    "Unix",
    "Vsock",
    "dial",
    "dial_at_once",
]
