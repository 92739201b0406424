"""``vmconnect media``: what lies in a machine's CD-ROM and floppy drives."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from vmconnect.cli.fleet import add_timeout, for_one
from vmconnect.cli.table import print_table
from vmconnect.cli.voice import printable
from vmconnect.deadline import Deadline
from vmconnect.hypervisor import Drive, Hypervisor, Machine

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "With no action the drives are listed. DRIVE may be left out where there is only one. "
        "FILE is a raw image (ISO, floppy) that the hypervisor must be able to read; for a "
        "hypervisor on another host it is that host's."
    )
    parser.add_argument("target", metavar="TARGET", help="the machine")
    parser.add_argument("--json", action="store_true", help="print the drives as JSON")
    add_timeout(parser, 30.0)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    insert = actions.add_parser("insert", help="put an image into a drive")
    insert.add_argument("drive", metavar="DRIVE", nargs="?", help="the drive")
    insert.add_argument("file", metavar="FILE", type=Path, help="the image")
    eject = actions.add_parser("eject", help="take the medium out of a drive")
    eject.add_argument("drive", metavar="DRIVE", nargs="?", help="the drive")
    eject.add_argument(
        "--force", action="store_true", help="also where the guest has locked the drive"
    )


def run(arguments: argparse.Namespace) -> int:
    """Do it, and return the exit code."""

    def act(hypervisor: Hypervisor, machine: Machine, deadline: Deadline) -> list[Drive]:
        drive = getattr(arguments, "drive", None)
        if arguments.action == "insert":
            # Whether it is there is the hypervisor's to see: it may be on another host.
            hypervisor.insert_medium(machine, arguments.file.absolute(), deadline, drive=drive)
        elif arguments.action == "eject":
            hypervisor.eject_medium(machine, deadline, drive=drive, force=arguments.force)
        if arguments.action is None or arguments.json:
            return hypervisor.drives(machine, deadline)
        return []

    _, drives = for_one(arguments, act)
    if arguments.json:
        print(json.dumps([asdict(each) for each in drives], indent=2))  # noqa: T201
    elif arguments.action is None:
        print_table([("DRIVE", "MEDIUM", ""), *map(_row, drives)])
    return 0


def _row(drive: Drive) -> tuple[str, ...]:
    return printable(drive.id), printable(drive.medium or "-"), "locked" if drive.locked else ""
