"""A directory for sockets, whose paths must be short."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="vmc-"))
    yield path
    shutil.rmtree(path)
