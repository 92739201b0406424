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
`connect_all`, `Fleet`, `Sweep`, `Outcome`
    many machines that are to do the same, and what came of it on each
`TrustStore`, `HostKey`, `PublicKey`
    whose host key is whose
`ask_on_terminal`, `ask_secret`
    a question to the person at the terminal
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Not when it is first named, as the others: its module has the same name.
from vmconnect.session.resolve import hypervisor_of, resolve, resolve_all

if TYPE_CHECKING:
    from vmconnect.session.credentials import ask_on_terminal, ask_secret
    from vmconnect.session.fleet import Fleet, connect_all
    from vmconnect.session.inventory import Inventory, list_machines, take_inventory
    from vmconnect.session.key_store import PublicKey
    from vmconnect.session.session import Session, connect
    from vmconnect.session.states import SessionState
    from vmconnect.session.sweep import Outcome, Sweep
    from vmconnect.session.target import Target, parse_target
    from vmconnect.session.trust import HostKey, TrustStore

__all__ = [
    "Fleet",
    "HostKey",
    "Inventory",
    "Outcome",
    "PublicKey",
    "Session",
    "SessionState",
    "Sweep",
    "Target",
    "TrustStore",
    "ask_on_terminal",
    "ask_secret",
    "connect",
    "connect_all",
    "hypervisor_of",
    "list_machines",
    "parse_target",
    "resolve",
    "resolve_all",
    "take_inventory",
]

# Whoever lists machines needs no sessions, and is to be quick.
_HOMES = {
    "Fleet": "fleet",
    "HostKey": "trust",
    "Inventory": "inventory",
    "Outcome": "sweep",
    "PublicKey": "key_store",
    "Session": "session",
    "SessionState": "states",
    "Sweep": "sweep",
    "Target": "target",
    "TrustStore": "trust",
    "ask_on_terminal": "credentials",
    "ask_secret": "credentials",
    "connect": "session",
    "connect_all": "fleet",
    "list_machines": "inventory",
    "parse_target": "target",
    "take_inventory": "inventory",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
