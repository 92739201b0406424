"""Arrows between rooms point down and only down, as docs/architecture.md draws them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import vmconnect

ROOT = Path(vmconnect.__file__).parent

# What each room may import of the others. What lies beside the rooms is for all.
BELOW: dict[str, set[str]] = {
    "streams": set(),
    "journal": set(),
    "vsock": set(),
    "hypervisor": {"streams"},
    "vnc": {"streams"},
    "direct": {"streams"},
    "replay": {"vnc"},
    "demo": {"hypervisor", "streams"},
    "session": {"direct", "hypervisor", "journal", "streams", "vnc"},
    "ui": {"direct", "session", "vnc"},
    "broker": {"direct", "hypervisor", "session", "streams"},
    "doctor": {"broker", "direct", "hypervisor", "journal", "session", "streams", "vnc"},
}
BELOW["cli"] = set(BELOW)


def imported(path: Path) -> Iterator[str]:
    """Give the rooms that a file imports from."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module == "vmconnect":
            names = [f"vmconnect.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            room = rest.partition(".")[0]
            if package == "vmconnect" and (ROOT / room).is_dir() and room:
                yield room


def test_every_room_is_in_the_table() -> None:
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert rooms == set(BELOW)


def test_rooms_import_from_those_below_them_alone() -> None:
    astray = [
        f"{path.relative_to(ROOT)} imports {room}"
        for here, below in BELOW.items()
        for path in sorted((ROOT / here).rglob("*.py"))
        for room in imported(path)
        if room not in below | {here}
    ]
    assert not astray


def test_what_lies_beside_the_rooms_imports_none() -> None:
    entries = {"__init__.py", "__main__.py"}
    astray = [
        f"{path.name} imports {room}"
        for path in sorted(ROOT.glob("*.py"))
        if path.name not in entries
        for room in imported(path)
    ]
    assert not astray
