"""What the tests of guests that lie share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.direct.liar import Far


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
