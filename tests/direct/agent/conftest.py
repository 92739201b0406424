"""Real guest agents for the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.direct.agent.real import RealAgent, agent_program
from vmconnect.direct.agent import GuestAgent


@pytest.fixture(scope="session")
def qemu_ga(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the program."""
    return agent_program(tmp_path_factory.mktemp("qemu-ga"))


@pytest.fixture
def real_agent(qemu_ga: Path, rooms_of_our_own: Path, tmp_path: Path) -> Iterator[RealAgent]:
    """Give one that runs on this machine."""
    assert rooms_of_our_own.exists()
    with RealAgent(qemu_ga, tmp_path).running() as agent:
        yield agent


@pytest.fixture
def agent_here(real_agent: RealAgent) -> Iterator[GuestAgent]:
    """Give a connection to it."""
    with real_agent.open() as agent:
        yield agent
