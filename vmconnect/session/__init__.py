"""Sessions: one machine, live, whatever runs it and however it is reached.

`parse_target`
    what a person typed, read
`resolve`, `resolve_all`, `hypervisor_of`
    the machine or machines it means; what runs them
`take_inventory`, `list_machines`
    the machines there are
`connect`, `Session`, `SessionState`
    our relationship with one machine: opens its `Console` and its `Guest`, which come back
`vmconnect.session.events`
    what a session tells
`TrustStore`, `HostKey`, `PublicKey`
    whose host key is whose
`ask_on_terminal`
    a question to the person at the terminal
"""

from vmconnect.session.credentials import ask_on_terminal
from vmconnect.session.inventory import Inventory, list_machines, take_inventory
from vmconnect.session.key_store import PublicKey
from vmconnect.session.resolve import hypervisor_of, resolve, resolve_all
from vmconnect.session.session import Session, connect
from vmconnect.session.states import SessionState
from vmconnect.session.target import Target, parse_target
from vmconnect.session.trust import HostKey, TrustStore

__all__ = [
    "HostKey",
    "Inventory",
    "PublicKey",
    "Session",
    "SessionState",
    "Target",
    "TrustStore",
    "ask_on_terminal",
    "connect",
    "hypervisor_of",
    "list_machines",
    "parse_target",
    "resolve",
    "resolve_all",
    "take_inventory",
]
