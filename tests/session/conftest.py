"""Machines to be killed and started again, in a runtime directory that only they are in."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.session.restartable import Restartable, restartable
from vmconnect.deadline import Deadline
from vmconnect.paths import runtime_directory

PATIENCE = 60.0


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a runtime directory of the test's own."""
    with tempfile.TemporaryDirectory(prefix="vmc-") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        yield runtime_directory()


@pytest.fixture
def web01(rooms: Path) -> Iterator[Restartable]:
    """Give a machine with nothing in it but firmware; it is not started."""
    with restartable(rooms) as machine:
        yield machine


def our_threads() -> list[str]:
    """Return the names of the threads of sessions; libvirt's one loop is for all, and for good."""
    names = [thread.name for thread in threading.enumerate()]
    return [
        name
        for name in names
        if name.startswith("vmconnect") and name != "vmconnect libvirt events"
    ]


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Fail if a session has left threads."""
    before = our_threads()
    yield
    deadline = Deadline(PATIENCE)
    # Calls into libvirt end when libvirt ends them.
    while any(name.startswith("vmconnect qemu") for name in our_threads()):
        deadline.check("waiting for libvirt")
        time.sleep(0.01)
    assert our_threads() == before


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="vmc-"))
    yield path
    shutil.rmtree(path)
