"""What the fuzzer found is run again, with all comparisons: ``data/finds/TARGET.NAME``."""

from pathlib import Path

import pytest

from fuzz.seeds import seeds
from fuzz.targets import TARGETS

FINDS = sorted((Path(__file__).parent / "data" / "finds").iterdir())


@pytest.mark.parametrize("find", FINDS, ids=lambda find: find.name)
def test_finds(find: Path) -> None:
    TARGETS[find.name.partition(".")[0]](find.read_bytes(), always=True)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_what_the_fuzzer_begins_with(name: str) -> None:
    some = seeds(name)[::7]
    assert some
    for data in some:
        TARGETS[name](data, always=True)
