"""What is kept of a machine's output until its command is over."""

from __future__ import annotations

import tempfile
import tracemalloc
from pathlib import Path

import pytest

from vmconnect.cli.outputs import Grouped
from vmconnect.cli.screen import Screen
from vmconnect.errors import ResourceError

PIECE = bytes(1 << 16)


def test_much_of_it_is_not_in_memory() -> None:
    with Screen(1) as screen:
        output = Grouped(screen)
        tracemalloc.start()
        try:
            for _ in range(200):
                output.stdout("web01", PIECE)
            assert tracemalloc.get_traced_memory()[1] < 20 * len(PIECE)
        finally:
            tracemalloc.stop()
        file = output._taken("web01", 1)
        assert file is not None
        with file:
            assert len(file.read()) == 200 * len(PIECE)


def test_a_host_that_cannot_keep_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with Screen(1) as screen:
        output = Grouped(screen)
        with pytest.raises(ResourceError, match="cannot keep its output: No such file"):
            for _ in range(200):
                output.stdout("web01", PIECE)
        file = output._taken("web01", 1)
        assert file is not None
        file.close()
