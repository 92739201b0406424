"""vmconnect: the console window and the command channel for every virtual machine.

::

    with vmconnect.connect("web01") as session:
        console = session.console()             # its screen, from the first firmware line on
        guest = session.guest(user="root")      # commands over vsock, with no network
        print(guest.run(["uname", "-a"]).text)

Names are imported when they are first used, so ``import vmconnect`` costs nothing.
"""

# typing.TYPE_CHECKING, without the import: it takes as long as all of the broker's client.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmconnect.deadline import Deadline
    from vmconnect.direct import Guest, Login, Result, Script, in_guest
    from vmconnect.direct.shell import Shell
    from vmconnect.direct.terminal import Terminal
    from vmconnect.errors import VmconnectError
    from vmconnect.session import Fleet, Outcome, Session, connect, connect_all, list_machines
    from vmconnect.vnc import Console

__all__ = [
    "Console",
    "Deadline",
    "Fleet",
    "Guest",
    "Login",
    "Outcome",
    "Result",
    "Script",
    "Session",
    "Shell",
    "Terminal",
    "VmconnectError",
    "connect",
    "connect_all",
    "in_guest",
    "list_machines",
]

_HOMES = {
    "Console": "vmconnect.vnc",
    "Deadline": "vmconnect.deadline",
    "Fleet": "vmconnect.session",
    "Guest": "vmconnect.direct",
    "Login": "vmconnect.direct",
    "Outcome": "vmconnect.session",
    "Result": "vmconnect.direct",
    "Script": "vmconnect.direct",
    "Session": "vmconnect.session",
    "Shell": "vmconnect.direct.shell",
    "Terminal": "vmconnect.direct.terminal",
    "VmconnectError": "vmconnect.errors",
    "connect": "vmconnect.session",
    "connect_all": "vmconnect.session",
    "in_guest": "vmconnect.direct",
    "list_machines": "vmconnect.session",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
