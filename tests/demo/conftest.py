"""Caches of the tests' own, with the packages that the user's cache has already."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from vmconnect.demo import DemoImage
from vmconnect.demo.packages import Package, resolve

# Builds in a process of its own. The packages come from a file: asking apt takes seconds, and
# it is asked elsewhere. A step's label is a line of output.
_BUILD = """
import json, sys
from pathlib import Path
from vmconnect.demo import image
from vmconnect.demo.packages import Package
from vmconnect.progress import Silent

class Lines(Silent):
    def step(self, text):
        print(text, flush=True)

found = tuple(Package(**each) for each in json.loads(Path(sys.argv[1]).read_bytes()))
image.resolve = lambda: found
print("KEY", image.build(Lines()).kernel.parent.name)
"""

Builder = Callable[[Path], "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def found() -> tuple[Package, ...]:
    """Give what apt offers now."""
    return resolve()


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def fill(cache: Path, image: DemoImage) -> Path:
    """Put the packages of the user's cache into ``cache`` and return the demo's room there."""
    room = cache / "vmconnect/demo"
    room.mkdir(mode=0o700, parents=True)
    source = image.kernel.parents[2] / "packages"
    shutil.copytree(source, room / "packages", copy_function=_linked)
    return room


@pytest.fixture(scope="module")
def cache(demo_image: DemoImage) -> Iterator[Path]:
    """Give a cache directory that a test module's tests share, with packages and no image."""
    with tempfile.TemporaryDirectory(prefix="vmc-") as name:
        fill(Path(name), demo_image)
        yield Path(name)


@pytest.fixture(scope="session")
def building(found: tuple[Package, ...]) -> Iterator[Builder]:
    """Give what starts a build in a process of its own, in a given cache directory."""
    with tempfile.TemporaryDirectory(prefix="vmc-") as name:
        offer = Path(name, "packages.json")
        offer.write_text(json.dumps([asdict(each) for each in found]))

        def start(cache: Path) -> subprocess.Popen[str]:
            return subprocess.Popen(
                [sys.executable, "-c", _BUILD, str(offer)],
                env={**os.environ, "XDG_CACHE_HOME": str(cache)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

        yield start
