"""A broker with a session open, for a module."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.broker.rig import NAME, Rig
from vmconnect.demo import DemoMachine


@pytest.fixture(scope="module")
def rig(demo_machine: DemoMachine) -> Iterator[Rig]:
    """A broker with a session open with the shared machine."""
    assert demo_machine.name == NAME
    rig = Rig(os.environ)
    try:
        rig.warm(NAME, "true")
        yield rig
    finally:
        rig.stop()
