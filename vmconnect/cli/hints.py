"""``vmconnect hints``: what makes a machine reachable, and what to write for what it lacks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from typing import Any

from vmconnect.cli.table import print_table
from vmconnect.cli.voice import printable
from vmconnect.session import parse_target, resolve, take_inventory
from vmconnect.session.hints import Finding, general_hints, hints_for
from vmconnect.session.recipes import RECIPES, Recipe

__all__ = ["configure", "run"]

_SECONDS = 10.0
_ANSWERS = {True: "yes", False: "no", None: "-"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "With TARGET: what that machine has, what its guest answers to, and lines for what is "
        "missing. Without: the lines of all hypervisors, for a machine called NAME."
    )
    parser.add_argument("target", metavar="TARGET", nargs="?", help="the machine")
    parser.add_argument(
        "--for",
        dest="kind",
        choices=[*RECIPES, "guest"],
        help="without TARGET: only the lines for this",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print them, and return the exit code."""
    known = take_inventory(_SECONDS).machines
    if arguments.target is None:
        recipes = general_hints(known)
        if arguments.kind:
            recipes = {arguments.kind: recipes[arguments.kind]}
        if arguments.json:
            objects = {kind: [*map(_as_json, each)] for kind, each in recipes.items()}
            print(json.dumps(objects, indent=2))  # noqa: T201
        else:
            for number, (kind, each) in enumerate(recipes.items()):
                print(f"{chr(10) * bool(number)}=== {kind}")  # noqa: T201
                _print_recipes(each)
        return 0
    machine = resolve(parse_target(arguments.target), _SECONDS)
    hints = hints_for(machine, known)
    if arguments.json:
        told = {
            "machine": machine.name,
            "hypervisor": machine.hypervisor,
            "target": machine.target,
            "parts": [*map(_finding_as_json, hints.findings)],
            "lines": [*map(_as_json, hints.recipes)],
        }
        print(json.dumps(told, indent=2))  # noqa: T201
        return 0
    print(f"{printable(machine.name)} ({machine.hypervisor}, {machine.state.value})\n")  # noqa: T201
    print_table([_row(each) for each in hints.findings])
    _print_recipes(hints.recipes)
    return 0


def _row(finding: Finding) -> tuple[str, ...]:
    return f"  {finding.part.value}", _ANSWERS[finding.present], printable(finding.detail)


def _print_recipes(recipes: Iterable[Recipe]) -> None:
    """Print lines that can be copied: whatever is not to be written is a comment."""
    where = None
    for recipe in recipes:
        if recipe.where != where:
            where = recipe.where
            print(f"\n# {printable(where)}")  # noqa: T201
        note = f" ({recipe.note})" if recipe.note else ""
        print(f"# {recipe.part.value}{note}")  # noqa: T201
        for line in recipe.lines:
            print(printable(line))  # noqa: T201


def _as_json(recipe: Recipe) -> dict[str, Any]:
    return {
        "part": recipe.part.value,
        "where": recipe.where,
        "note": recipe.note or None,
        "lines": [*recipe.lines],
    }


def _finding_as_json(finding: Finding) -> dict[str, Any]:
    return {
        "part": finding.part.value,
        "present": finding.present,
        "detail": finding.detail or None,
    }
