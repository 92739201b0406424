"""Machines for the tests: real guests, in a runtime directory of the tests' own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import vmconnect
from vmconnect.demo import DemoImage, DemoMachine, build

BOOT_SECONDS = 90.0

# No test asserts a time, and the machine may be busy with guests.
settings.register_profile("vmconnect", deadline=None)
settings.load_profile("vmconnect")


@pytest.fixture(scope="session", autouse=True)
def rooms_of_our_own() -> Iterator[Path]:
    """Keep the tests out of the user's runtime, state and configuration directories.

    The cache stays the user's: a demo image is built once. Paths are short, for UNIX sockets.
    """
    with tempfile.TemporaryDirectory(prefix="vmc-") as name, pytest.MonkeyPatch.context() as patch:
        for variable, room in (
            ("XDG_RUNTIME_DIR", "run"),
            ("XDG_STATE_HOME", "state"),
            ("XDG_CONFIG_HOME", "config"),
        ):
            path = Path(name, room)
            path.mkdir(mode=0o700)
            patch.setenv(variable, str(path))
        # A broker would outlive the tests; those of the broker see to that.
        patch.setenv("VMCONNECT_BROKER", "0")
        # The agent of whoever runs the tests has keys that the guests must not be offered.
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        yield Path(name)


@pytest.fixture(scope="session")
def demo_image() -> DemoImage:
    """Give the image that the demo machines start from, built if need be."""
    return build()


@pytest.fixture(scope="session")
def demo_machine(demo_image: DemoImage) -> Iterator[DemoMachine]:
    """Give one machine, whose guest can be logged in to, to all tests that leave it running."""
    with DemoMachine.start("shared", image=demo_image) as machine:
        with vmconnect.connect(machine.name) as session:
            session.guest(timeout=BOOT_SECONDS, wait=True)
        yield machine


@pytest.fixture
def fresh_machine(demo_image: DemoImage) -> type[DemoMachine]:
    """Give the class whose ``start`` gives a machine of the test's own; the image is there."""
    assert demo_image.kernel.exists()
    return DemoMachine
