"""Sessions: one machine, live, whatever runs it and however it is reached.

`parse_target`
    what a person typed, read
`resolve`, `list_machines`
    the machine it means; the machines there are
`connect`, `Session`
    our relationship with one machine: opens its `Console` and its `Guest`
`TrustStore`, `HostKey`
    whose host key is whose
"""

from vmconnect.session.resolve import list_machines, resolve
from vmconnect.session.session import Session, connect
from vmconnect.session.target import Target, parse_target
from vmconnect.session.trust import HostKey, TrustStore

__all__ = [
    "HostKey",
    "Session",
    "Target",
    "TrustStore",
    "connect",
    "list_machines",
    "parse_target",
    "resolve",
]
