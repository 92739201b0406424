"""The QEMU guest agent: programs, files and facts of a guest, with no login and no network.

`GuestAgent`
    the commands; `AgentQuestions` are those that only ask
`GuestFile`, `PowerShellResult`, and what `facts` has
    what they give
`AgentFiles`
    copies of files, where there is no other way
`AgentChannel`, `StreamChannel`
    what carries requests: a virtio-serial port's socket here, a hypervisor elsewhere
`AgentParser`, `encode_request`, `encode_sync`
    the protocol, sans-I/O: lines of JSON, and how to find their beginning again
`temporary_key`
    a way in through the agent: an SSH key of ours, for the time of a login

Who is on the other side runs in the guest, and may be anybody.
"""

from vmconnect.direct.agent.channel import AgentChannel, StreamChannel
from vmconnect.direct.agent.facts import (
    AgentInfo,
    Disk,
    FileSystem,
    Interface,
    LoggedInUser,
    OsInfo,
    Processor,
    TimeZone,
)
from vmconnect.direct.agent.file import GuestFile
from vmconnect.direct.agent.files import AgentFiles
from vmconnect.direct.agent.guest_agent import GuestAgent
from vmconnect.direct.agent.powershell import PowerShellResult
from vmconnect.direct.agent.protocol import AgentParser, encode_request, encode_sync

__all__ = [
    "AgentChannel",
    "AgentFiles",
    "AgentInfo",
    "AgentParser",
    "Disk",
    "FileSystem",
    "GuestAgent",
    "GuestFile",
    "Interface",
    "LoggedInUser",
    "OsInfo",
    "PowerShellResult",
    "Processor",
    "StreamChannel",
    "TimeZone",
    "encode_request",
    "encode_sync",
]
