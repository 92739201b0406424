"""A device process, and a machine at it, for each test that asks."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .rig import Device, Machine


@pytest.fixture
def room() -> Iterator[Path]:
    """Give a directory whose paths are short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="vmc-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def device(room: Path) -> Iterator[Device]:
    """Give a device that has to end well, with its sockets gone."""
    device = Device(room)
    yield device
    device.stop()
    assert not any(room.glob("v*"))


@pytest.fixture
def machine(device: Device) -> Iterator[Machine]:
    """Give a machine that has started at the device."""
    machine = Machine(device)
    yield machine
    machine.close()
