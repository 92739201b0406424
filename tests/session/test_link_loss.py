"""A network that is cut: a VNC server in one network namespace, we in another, a cable between.

Both namespaces are the test's own: nothing of it can be reached from outside, or reach it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import vmconnect
from tests.session.heard import Heard
from tests.session.restartable import Restartable
from vmconnect.errors import ConnectionLostError
from vmconnect.retry import Heartbeat
from vmconnect.session import Session, SessionState
from vmconnect.session.events import ChannelBack, ChannelLost, MachineStateChanged
from vmconnect.streams import Tcp
from vmconnect.vnc import Console

pytestmark = pytest.mark.usefixtures("nothing_left")

WAIT = 60.0
OURS, THEIRS = "10.0.0.1", "10.0.0.2"
_CLONE_NEWNET = 0x40000000


class Cable:
    """A cable between two namespaces; its far end can be pulled out."""

    def __init__(self, name: str):
        self.near, self.far = f"{name}a", f"{name}b"

    @property
    def there(self) -> tuple[str, ...]:
        """The command that runs others at the far end."""
        return "ip", "netns", "exec", self.far

    def pull(self) -> None:
        ip("-n", self.far, "link", "set", "cable", "down")

    def plug(self) -> None:
        ip("-n", self.far, "link", "set", "cable", "up")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """Let this thread, and those that it starts, be in a network namespace (setns(2))."""

    def enter(descriptor: int) -> None:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns to {name}")

    with Path("/proc/thread-self/ns/net").open("rb") as before:
        with Path("/run/netns", name).open("rb") as after:
            enter(after.fileno())
        try:
            yield
        finally:
            enter(before.fileno())


@pytest.fixture
def cable() -> Iterator[Cable]:
    if os.getuid() != 0:
        pytest.skip("only root can make a network namespace")
    if shutil.which("ip") is None:
        pytest.skip("needs ip (apt install iproute2)")
    made = Cable(f"vmc{os.getpid()}")
    with contextlib.ExitStack() as stack:
        for name in (made.near, made.far):
            try:
                ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespace can be made here: {error.stderr.decode()}")
            stack.callback(ip, "netns", "delete", name)
            if name == made.far:
                peer = ("peer", "name", "cable", "netns", made.far)
                ip("-n", made.near, "link", "add", "cable", "type", "veth", *peer)
        for name, address in ((made.near, OURS), (made.far, THEIRS)):
            ip("-n", name, "address", "add", f"{address}/30", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
        stack.enter_context(inside(made.near))
        yield made


def firmware(console: Console) -> bool:
    return "SeaBIOS (version" in "".join((console.text(WAIT) or [])[:1])


def test_a_cable_that_is_pulled_out(web01: Restartable, cable: Cable) -> None:
    """Nobody says goodbye: the silence tells. And the machine is known to run all the while."""
    web01.start(vnc=f"{THEIRS}:7", within=cable.there)
    machine = vmconnect.connect("web01").machine
    assert machine.console == Tcp(THEIRS, 5907)
    with Session(machine, heartbeat=Heartbeat(0.2, 0.4)) as session:
        heard = Heard(session)
        console = session.console()
        console.wait_for(firmware, WAIT)
        for number in (1, 2):
            console.keyboard.press("a")
            console.confirm(WAIT)
            cable.pull()
            console.keyboard.press("b")  # The kernel takes it, and it goes nowhere.
            lost = heard.wait(ChannelLost, count=number)
            assert "has not answered" in str(lost.reason)
            assert lost.uncertain == ("b",)
            with pytest.raises(ConnectionLostError):
                console.keyboard.press("c")
            cable.plug()
            heard.wait(ChannelBack, count=number)
            console.wait_for(firmware, WAIT)
        assert session.state is SessionState.RUNNING
        assert not heard.of(MachineStateChanged)


def test_closing_with_the_cable_out(web01: Restartable, cable: Cable) -> None:
    """Nobody answers, neither yes nor no; closing does not wait for that."""
    web01.start(vnc=f"{THEIRS}:7", within=cable.there)
    with vmconnect.connect("web01") as session:
        console = session.console()
        console.wait_for(firmware, WAIT)
        cable.pull()
        assert console._connection is not None
        console._connection._stream.close()
        console.wait_for(lambda each: each.reason is not None, WAIT)
    assert not console.alive
