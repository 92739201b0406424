"""The QEMU guest agent: a few requests to a guest, with no login and no network.

`AgentParser`, `encode_request`, `encode_sync`
    the protocol, sans-I/O: lines of JSON, and how to find their beginning again
`AgentChannel`, `StreamChannel`
    what carries requests: a virtio-serial port's socket here, a hypervisor elsewhere
`GuestAgent`
    the commands
`temporary_key`
    a way in through the agent: an SSH key of ours, for the time of a login

Who is on the other side runs in the guest, and may be anybody.
"""

from vmconnect.direct.agent.channel import AgentChannel, StreamChannel
from vmconnect.direct.agent.guest_agent import AgentInfo, GuestAgent, OsInfo
from vmconnect.direct.agent.protocol import AgentParser, encode_request, encode_sync

__all__ = [
    "AgentChannel",
    "AgentInfo",
    "AgentParser",
    "GuestAgent",
    "OsInfo",
    "StreamChannel",
    "encode_request",
    "encode_sync",
]
