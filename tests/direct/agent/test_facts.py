"""What a real qemu-ga tells of this machine, beside what its kernel does."""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path

import pytest

from vmconnect.direct.agent import AgentInfo, GuestAgent, OsInfo, TimeZone
from vmconnect.direct.agent.versions import SINCE
from vmconnect.errors import AgentError


def test_what_a_real_agent_tells(agent_here: GuestAgent) -> None:
    assert agent_here.host_name() == socket.gethostname()
    assert abs(agent_here.time() - time.time()) < 60
    assert agent_here.time_zone().offset_s == time.localtime().tm_gmtoff
    system = agent_here.os_info()
    assert (system.kernel, system.machine) == (os.uname().release, os.uname().machine)
    assert not system.windows
    assert not agent_here.is_windows()
    assert isinstance(agent_here.users(), tuple)
    numbers = {each.number for each in agent_here.processors() if each.online}
    assert len(numbers) == os.cpu_count()
    interfaces = {each.name: each for each in agent_here.interfaces()}
    assert set(interfaces) <= {each.name for each in Path("/sys/class/net").iterdir()}
    assert "127.0.0.1/8" in map(str, interfaces["lo"].addresses)
    for each in agent_here.file_systems():
        assert Path(each.mountpoint).is_dir()
        assert each.total_bytes is None or each.total_bytes >= (each.used_bytes or 0)
    for disk in agent_here.disks():
        assert disk.device.startswith("/dev/")


def test_all_that_is_used_is_known(agent_here: GuestAgent) -> None:
    """Every command is in the table of versions, which says of none that it is later than it is."""
    source = "".join(
        path.read_text()
        for path in (Path(__file__).parents[3] / "vmconnect/direct/agent").glob("*.py")
        if path.name != "versions.py"
    )
    used = set(re.findall(r'"(guest-[a-z-]+[a-z])"', source))
    used |= {f"guest-suspend-{mode}" for mode in ("ram", "disk", "hybrid")}
    assert used == set(SINCE)
    answer = agent_here.execute("guest-info")
    had = {each["name"] for each in answer["supported_commands"]}
    version = tuple(map(int, agent_here.info().version.split(".")[:2]))
    for command, since in SINCE.items():
        if tuple(map(int, since.split("."))) <= version:
            assert command in had, command


def test_texts_are_cut_and_cleaned() -> None:
    info = AgentInfo.read({"version": "1\x1b[2J" + "x" * 1000}, "guest-info")
    assert info.version.startswith("1?[2J")
    assert len(info.version) == 256
    assert OsInfo.read({"pretty-name": 7, "name": "plain"}, "x").name == "plain"
    assert TimeZone.read({"offset": -18000}, "x") == TimeZone("", -18000)
    with pytest.raises(AgentError, match="senseless answer to x"):
        TimeZone.read({"offset": 1 << 40}, "x")


def test_the_documentation_has_the_same_versions() -> None:
    text = (Path(__file__).parents[3] / "docs" / "agent.md").read_text()
    told: dict[str, str] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5:
            for command in re.findall(r"guest-[a-z-]+[a-z]", cells[3]):
                told.setdefault(command, cells[4])
    assert told == SINCE
