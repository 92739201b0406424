"""What the tests of forwarding share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.direct.forward.liar import Far


@pytest.fixture
def far() -> Iterator[Far]:
    far = Far()
    try:
        yield far
    finally:
        far.close()
