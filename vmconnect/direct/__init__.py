"""Direct: commands and files inside guests, over any stream, with no network in the guest.

`Guest`
    the channel: run commands, copy files, come back after the guest's reset
`Login`
    who we are there: user, keys, password
`Result`
    what a command gave
`Process`, `Control`
    a command while it runs: speaking with it, reaching it from another thread
`Jobs`, `Job`
    commands that run on in the guest, to be collected later
`NamedSession`
    a shell, or a Python, in the guest that keeps its state between calls
`Script`, `GuestFunction`, `in_guest`
    a script, and a function, of ours that runs there
`SshConnection`
    one SSH connection over one stream, paramiko's errors translated

What not every command needs is imported from its own module:

`vmconnect.direct.shell.Shell`
    a shell on a terminal of its own: type, read, wait for what it writes
`vmconnect.direct.terminal.Terminal`
    what that terminal is: its type, size and modes
`vmconnect.direct.asciicast.AsciicastRecorder`
    a recording of what is shown there
`vmconnect.direct.facts.Facts`
    what a guest tells of itself

What needs no SSH, such as `vmconnect.direct.agent`, does not wait for paramiko's import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmconnect.direct.control import Control
    from vmconnect.direct.guest import Guest
    from vmconnect.direct.guest_function import GuestFunction, in_guest
    from vmconnect.direct.job import Job, Jobs
    from vmconnect.direct.login import Login
    from vmconnect.direct.named import NamedSession
    from vmconnect.direct.process import Process
    from vmconnect.direct.result import Result
    from vmconnect.direct.script import Script
    from vmconnect.direct.ssh import SshConnection

__all__ = [
    "Control",
    "Guest",
    "GuestFunction",
    "Job",
    "Jobs",
    "Login",
    "NamedSession",
    "Process",
    "Result",
    "Script",
    "SshConnection",
    "in_guest",
]

_HOMES = {
    "Control": "control",
    "Guest": "guest",
    "GuestFunction": "guest_function",
    "Job": "job",
    "Jobs": "job",
    "Login": "login",
    "NamedSession": "named",
    "Process": "process",
    "Result": "result",
    "Script": "script",
    "SshConnection": "ssh",
    "in_guest": "guest_function",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
