"""``vmconnect ssh-config``: the lines by which plain ssh reaches guests."""

from __future__ import annotations

import argparse

from vmconnect.cli.voice import say
from vmconnect.deadline import Deadline
from vmconnect.errors import VmconnectError
from vmconnect.session import TrustStore, parse_target, resolve, resolve_all
from vmconnect.session.ssh_config import (
    SUFFIX,
    block_for,
    block_for_all,
    known_keys,
    known_lines,
)

__all__ = ["configure", "run"]

_SECONDS = 10.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "Without TARGET: lines by which ssh, scp, sftp, rsync, git and editors reach every "
        f"machine as NAME{SUFFIX}: vmconnect ssh-config >> ~/.ssh/config. With: for these "
        "machines, under their own names. Their host keys are those that vmconnect has pinned."
    )
    parser.add_argument("target", metavar="TARGET", nargs="*", help="the machines")
    parser.add_argument(
        "--suffix",
        metavar="TEXT",
        help=f"what follows the machine's name, for all machines ({SUFFIX})",
    )
    parser.add_argument(
        "--known-hosts",
        nargs=2,
        metavar=("HOST", "REASON"),
        help="print the machine's host keys, for ssh's KnownHostsCommand",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the lines, and return the exit code."""
    targets: list[str] = arguments.target
    if arguments.known_hosts:
        return _known_hosts(arguments)
    if not targets:
        _print(block_for_all(arguments.suffix or SUFFIX))
        return 0
    deadline = Deadline(_SECONDS)
    machines = [
        machine for text in targets for machine in resolve_all(parse_target(text), deadline)
    ]
    blocks, failed = [], False
    for machine in machines:
        try:
            blocks.append(block_for(machine))
        except VmconnectError as error:
            say(str(error.with_machine(machine.name)))
            failed = True
    for number, block in enumerate(blocks):
        _print(["", *block] if number else block)
    return int(failed)


def _known_hosts(arguments: argparse.Namespace) -> int:
    host, reason = arguments.known_hosts
    target = "".join(arguments.target[:1]).removesuffix(arguments.suffix or "")
    deadline = Deadline(_SECONDS)
    machine = resolve(parse_target(target), deadline)
    keys = known_keys(machine, TrustStore(), deadline)
    lines = known_lines(host, keys)
    if not keys and reason == "HOSTNAME":
        # ssh asks more than once, and says itself that it knows no key.
        say(f"{machine.name}: its host key is not known yet (vmconnect trust add {target} has it)")
    _print(lines)
    return 0


def _print(lines: list[str]) -> None:
    for line in lines:
        print(line)  # noqa: T201
