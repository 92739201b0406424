"""A guest that costs next to nothing, for whoever has none of its own; and guests that lie."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.direct.liar import Far
from tests.direct.sshd import SshdGuest, sshd_guest
from vmconnect.direct import Guest


@pytest.fixture
def room() -> Iterator[Path]:
    """Give a directory whose path is short enough for a socket; it is the guest's home."""
    with tempfile.TemporaryDirectory(prefix="vmc-") as name:
        yield Path(name)


@pytest.fixture
def box(room: Path) -> Iterator[SshdGuest]:
    """Give the guest, and the way to it."""
    with sshd_guest(room) as box:
        yield box


@pytest.fixture
def guest(box: SshdGuest) -> Iterator[Guest]:
    """Give the guest, logged in to."""
    with box.open() as guest:
        yield guest


@pytest.fixture
def stranger() -> Iterator[Far]:
    """A server, and nobody is logged in yet."""
    far = Far()
    try:
        yield far
    finally:
        far.close()


@pytest.fixture
def far(stranger: Far) -> Iterator[Far]:
    stranger.connect()
    try:
        yield stranger
    finally:
        stranger.connection.close()
