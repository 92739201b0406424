"""Sessions: one machine, live, whatever runs it and however it is reached.

`parse_target`
    what a person typed, read
`resolve`, `list_machines`
    the machine it means; the machines there are
`connect`, `Session`
    our relationship with one machine: opens its `Console` and its `Guest`
`TrustStore`, `HostKey`, `PublicKey`
    whose host key is whose
`ask_on_terminal`
    a question to the person at the terminal
"""

from vmconnect.session.credentials import ask_on_terminal
from vmconnect.session.key_store import PublicKey
from vmconnect.session.resolve import list_machines, resolve
from vmconnect.session.session import Session, connect
from vmconnect.session.target import Target, parse_target
from vmconnect.session.trust import HostKey, TrustStore

__all__ = [
    "HostKey",
    "PublicKey",
    "Session",
    "Target",
    "TrustStore",
    "ask_on_terminal",
    "connect",
    "list_machines",
    "parse_target",
    "resolve",
]
