"""Direct: commands and files inside guests, over any stream, with no network in the guest.

`Guest`
    the channel: run commands, copy files, come back after the guest's reset
`Login`
    who we are there: user, keys, password
`Result`
    what a command gave
`SshConnection`
    one SSH connection over one stream, paramiko's errors translated

What needs no SSH, such as `vmconnect.direct.agent`, does not wait for paramiko's import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmconnect.direct.guest import Guest
    from vmconnect.direct.login import Login
    from vmconnect.direct.result import Result
    from vmconnect.direct.ssh import SshConnection

__all__ = ["Guest", "Login", "Result", "SshConnection"]

_HOMES = {"Guest": "guest", "Login": "login", "Result": "result", "SshConnection": "ssh"}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
