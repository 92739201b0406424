"""Lines of ssh_config of machines whose names and paths would make others."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vmconnect.errors import TargetError
from vmconnect.hypervisor import GuestNote, Machine
from vmconnect.session.ssh_config import block_for
from vmconnect.streams import HybridVsock

UUID = "7ea1e3cc-3d3c-4b4e-9c65-3d3a8d4d9a11"
MACHINE = Machine(
    "web01",
    UUID,
    "vsock-mux/run/web01.vsock",
    uuid=UUID,
    guest=HybridVsock("/run/web01.vsock", 22),
    note=GuestNote("ann", "/home/ann/key file"),
)


@pytest.mark.parametrize("end", ["\n", "\r", "\0", "\x1b", "\x85", "\u2028"])
@pytest.mark.parametrize(
    "made",
    [
        lambda text: {"target": f"vsock-mux/run/{text}"},
        lambda text: {"uuid": text, "name": "*"},
        lambda text: {"uuid": text},
        lambda text: {"note": GuestNote(user=text)},
        lambda text: {"note": GuestNote(identity_file=text)},
    ],
)
def test_what_would_make_lines_of_its_own_is_refused(made: Any, end: str) -> None:
    machine = replace(MACHINE, **made(f"a{end}ProxyCommand touch /tmp/owned"))
    with pytest.raises(TargetError, match="control character") as caught:
        block_for(machine)
    assert caught.value.machine == machine.name


def test_what_would_make_lines_of_its_own_as_a_name_is_called_by_its_uuid() -> None:
    assert block_for(replace(MACHINE, name="a\nHost *"))[0] == f"Host {UUID}"


@pytest.mark.parametrize("path", ["/home/ann/é", "/home/ann/\udcff", '/home/ann/"key"'])
def test_other_paths_are_lines_as_before(path: str) -> None:
    lines = block_for(replace(MACHINE, note=GuestNote("ann", path)))
    assert len([each for each in lines if "IdentityFile" in each]) == 1


@pytest.mark.parametrize("name", ["vmconnect", "vmconnect-python"])
def test_the_program_is_the_command_whichever_of_its_parts_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for each in ("vmconnect", "vmconnect-python"):
        (tmp_path / each).touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / name)])
    assert f"ProxyCommand {tmp_path}/vmconnect proxy" in "\n".join(block_for(MACHINE))


def test_where_there_is_no_command_no_module_of_the_directory_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert f"ProxyCommand {sys.executable} -P -m vmconnect proxy" in "\n".join(block_for(MACHINE))
