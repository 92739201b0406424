"""``vmconnect agent``: what a machine's QEMU guest agent tells and does."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from vmconnect.cli.command_words import dashed
from vmconnect.cli.fleet import add_timeout
from vmconnect.cli.password_options import add_password_options

__all__ = ["arrange", "configure", "run"]

# Each action, in which module it is, what it does, and how long it may take.
_ACTIONS = {
    "info": ("agent_facts", "tell what runs in the guest, and what its agent can", 30.0),
    "interfaces": ("agent_facts", "list the guest's network interfaces and addresses", 10.0),
    "exec": ("agent_exec", "run a command as root in the guest, through its agent", None),
    "powershell": ("agent_exec", "run PowerShell in a Windows guest, and get objects back", 60.0),
    "freeze": ("agent_freeze", "hold the guest's file systems still, as for a snapshot", 60.0),
    "thaw": ("agent_freeze", "let the guest's file systems go on", 60.0),
    "time": ("agent_change", "tell the guest's clock, or set it", 60.0),
    "set-password": ("agent_change", "set the password of a user of the guest", 60.0),
    "keys": ("agent_change", "list, add and remove the SSH keys that let a user in", 10.0),
    "shutdown": ("agent_change", "have the guest shut itself down", 10.0),
    "suspend": ("agent_change", "have the guest suspend itself", 10.0),
}
_VALUED = {"--env", "--cwd", "--timeout", "--depth", "--mount"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "qemu-guest-agent has to run in the guest, and to permit it; docs/agent.md has which "
        "version brought what. Who can reach an agent is root in its guest."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    subs: dict[str, argparse.ArgumentParser] = {}
    for action, (_, summary, seconds) in _ACTIONS.items():
        sub = actions.add_parser(action, help=summary, description=summary)
        sub.add_argument("target", metavar="TARGET", help="the machine")
        sub.add_argument("--json", action="store_true", help="print JSON")
        sub.add_argument(
            "-v", dest="verbose", action="store_true", help="say as whom, and how, we came in"
        )
        if seconds is not None:
            add_timeout(sub, seconds)
        subs[action] = sub
    _configure_programs(subs)
    _configure_changes(subs)


def _configure_programs(subs: dict[str, Any]) -> None:
    sub = subs["exec"]
    sub.epilog = (
        "Each COMMAND word reaches the guest as one argument. The exit code is the command's, "
        "128 + N when signal N ended it, and 255 when vmconnect itself failed. Its input, unless "
        "it is a terminal, is read to its end before it starts."
    )
    sub.usage_exit = 255
    sub.add_argument("-n", dest="no_stdin", action="store_true", help="give it no input")
    sub.add_argument(
        "--env",
        metavar="NAME[=VALUE]",
        action="append",
        default=[],
        help="set a variable for it; without a value to that of ours",
    )
    sub.add_argument("--cwd", metavar="DIR", help="run it in this directory of the guest's")
    sub.add_argument("--timeout", metavar="SECONDS", type=float, help="end it after that long")
    sub.add_argument("argv", metavar="COMMAND", nargs="+", help="the command and its arguments")
    sub = subs["powershell"]
    sub.epilog = (
        "What the script puts out is printed one object a line, as JSON but for texts; with --json "
        "all is one object, errors among it. The exit code is the script's, and 1 if it failed."
    )
    sub.add_argument("--depth", metavar="N", type=int, default=4, help="how deep objects are told")
    sub.add_argument("script", metavar="SCRIPT", nargs="?", help="default: standard input")
    sub = subs["freeze"]
    sub.epilog = (
        "With COMMAND the file systems are frozen while it runs, here, and thawed whatever "
        "happens; its exit code is ours. Without, until vmconnect agent thaw."
    )
    sub.add_argument(
        "--mount", metavar="DIR", action="append", help="only what is mounted there in the guest"
    )
    sub.add_argument("argv", metavar="COMMAND", nargs="*", help="a command of this host's")


def _configure_changes(subs: dict[str, Any]) -> None:
    subs["time"].add_argument(
        "--set",
        metavar="TIME",
        help="set it: to now, this host's time; to rtc, its own hardware's; or to one in ISO 8601",
    )
    sub = subs["set-password"]
    sub.epilog = "The password is asked for, unless an option says where it is."
    sub.add_argument("user", metavar="USER", help="whose it is")
    sub.add_argument(
        "--crypted", action="store_true", help="it is hashed already, as crypt(3) has it"
    )
    add_password_options(sub, "the password")
    sub = subs["keys"]
    sub.add_argument("user", metavar="USER", help="whose they are")
    for change in ("add", "remove"):
        sub.add_argument(
            f"--{change}", metavar="FILE", type=Path, help=f"{change} the public keys in FILE"
        )
    subs["shutdown"].add_argument(
        "--mode",
        choices=("powerdown", "reboot", "halt"),
        default="powerdown",
        help="what is to come after (default: powerdown)",
    )
    subs["suspend"].add_argument(
        "--mode", choices=("ram", "disk", "hybrid"), default="ram", help="to where (default: ram)"
    )


def arrange(arguments: list[str]) -> list[str]:
    """Put ``--`` before the command of exec and freeze where it is missing."""
    start = arguments.index("agent") + 1
    if arguments[start : start + 1] not in (["exec"], ["freeze"]):
        return arguments
    return dashed(arguments, start + 1, _VALUED)


def run(arguments: argparse.Namespace) -> int:
    """Do it, and return the exit code."""
    module = importlib.import_module(f"vmconnect.cli.{_ACTIONS[arguments.action][0]}")
    code: int = getattr(module, f"run_{arguments.action.replace('-', '_')}")(arguments)
    return code
