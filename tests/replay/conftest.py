"""Recordings for the tests, and the real servers of the VNC tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.replay.tape import Tape
from tests.vnc.conftest import directory, qemu, xtigervnc

__all__ = ["directory", "qemu", "tape", "xtigervnc"]


@pytest.fixture
def tape(tmp_path: Path) -> Callable[..., Tape]:
    """Make recordings of screens of a size."""

    def make(width: int, height: int, form: str = "ours") -> Tape:
        return Tape(tmp_path / "session.vmrec", width, height, form)

    return make
