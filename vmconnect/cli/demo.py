"""``vmconnect demo``: boot a real guest, show its console, run commands in it."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import secrets
import shlex
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from vmconnect.cli.progress import TerminalProgress
from vmconnect.errors import VmconnectError

if TYPE_CHECKING:
    from vmconnect.demo import DemoMachine
    from vmconnect.direct import Guest
    from vmconnect.session import Session
    from vmconnect.vnc import Console

__all__ = ["configure", "run"]

_FIRMWARE_SECONDS = 30.0
_BOOT_SECONDS = 120.0
_COPY_BYTES = 4 << 20
_COMMANDS = (
    ["uname", "-a"],
    ["sh", "-c", ". /etc/os-release; echo $PRETTY_NAME"],
    ["ls", "/sys/class/net"],
    ["sh", "-c", "echo to stderr >&2; exit 3"],
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = "Needs no root, no KVM and no network but the distribution's packages, once."
    parser.add_argument("--once", action="store_true", help="end after the tour")
    parser.add_argument("--no-window", action="store_true", help="show the console as text")
    parser.add_argument("--name", default="demo", help="the machine's name (%(default)s)")
    parser.add_argument(
        "-o",
        dest="picture",
        metavar="FILE.png",
        type=Path,
        help="write a picture of the console; without a window to vmconnect-demo.png",
    )


def run(arguments: argparse.Namespace) -> int:
    """Boot the machine, make the tour, end the machine; return the exit code."""
    started = time.monotonic()
    windowed = not arguments.no_window and _has_display()
    with _termination_interrupts(), TerminalProgress() as progress:
        # Here, not above: QEMU starts while numpy, pygame and paramiko are being imported.
        from vmconnect.demo import DemoMachine

        with DemoMachine.start(arguments.name, progress=progress) as machine:
            from vmconnect.session import connect

            with connect(f"qemu:{machine.qmp_path}") as session:
                tour = _Tour(session, machine, progress, arguments, started)
                if windowed:
                    _in_window(tour, stay=not arguments.once)
                else:
                    _in_terminal(tour, stay=not arguments.once)
    return 0


def _has_display() -> bool:
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


@contextlib.contextmanager
def _termination_interrupts() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the demo as Ctrl-C does: with everything put away."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_terminal(tour: _Tour, *, stay: bool) -> None:
    """Make the tour with the console shown as text."""
    tour.firmware()
    tour.show_text("The machine's screen, read off its pixels before any kernel runs")
    tour.guest()
    tour.login_prompt()
    tour.show_text("The machine's screen now")
    tour.commands()
    tour.picture(Path("vmconnect-demo.png"))
    tour.finish(stay=stay)
    if stay:
        tour.progress.say("Ctrl-C ends it.")
        tour.machine.wait(None)


def _in_window(tour: _Tour, *, stay: bool) -> None:
    """Make the tour in a thread, while the window has the main one, as it must."""
    from vmconnect.ui.window import Window

    over = threading.Event()
    failed: list[BaseException] = []
    with Window(tour.console) as window:

        def make() -> None:
            try:
                tour.firmware()
                tour.guest()
                tour.login_prompt()
                tour.commands()
                tour.picture(None)
                tour.finish(stay=stay)
                if stay:
                    tour.progress.say("Close the window to end it.")
                    return
            except BaseException as error:  # noqa: BLE001 (raised again in the main thread)
                failed.append(error)
            over.set()
            window.wake()

        thread = threading.Thread(target=make, name="vmconnect-tour", daemon=True)
        thread.start()
        try:
            window.run(until=over)
        finally:
            # A closed window ends the tour wherever it is: its channels close under it.
            ended_early = not over.is_set()
            tour.session.close()
            thread.join(10)
    if failed and not ended_early:
        raise failed[0]


class _Tour:
    """The stations of the demo, in order; each prints what it shows."""

    def __init__(
        self,
        session: Session,
        machine: DemoMachine,
        progress: TerminalProgress,
        arguments: argparse.Namespace,
        started: float,
    ):
        self.session = session
        self.machine = machine
        self.progress = progress
        self._picture: Path | None = arguments.picture
        self._started = started
        self._reached: list[tuple[str, float]] = []
        self._guest: Guest | None = None
        # The machine does not come back: neither does its console.
        self.console: Console = session.console(reconnect=False)
        self._mark("console attached")

    def firmware(self) -> None:
        """Wait for the firmware's first line on the screen."""
        self.progress.step("Waiting for the firmware's first line")
        self.console.wait_for(lambda _: any(self._text()), _FIRMWARE_SECONDS)
        self.progress.done()
        self._mark("firmware's first line on the console")

    def guest(self) -> None:
        """Log in over vsock as soon as the guest lets us, and run a first command."""
        self.progress.step("Waiting for the guest's SSH server on vsock")
        self._guest = self.session.guest(timeout=_BOOT_SECONDS, wait=True)
        self.progress.done()
        self._run(_COMMANDS[0])
        self._mark("first command in the guest")

    def login_prompt(self) -> None:
        """Wait until the console asks for a login."""
        self.progress.step("Waiting for the login prompt on the console")
        self.console.wait_for(
            lambda _: any(line.endswith("login:") for line in self._text()), _BOOT_SECONDS
        )
        self.progress.done()
        self._mark("login prompt on the console")

    def commands(self) -> None:
        """Run more commands in the guest, and copy a file in and out."""
        for argv in _COMMANDS[1:]:
            self._run(argv)
        self._copy()

    def show_text(self, title: str) -> None:
        """Print the screen's text in a frame."""
        lines = self._text()
        while lines and not lines[-1]:
            lines.pop()
        self.progress.say(f"┌─ {title} ".ljust(82, "─"))
        for line in lines:
            self.progress.say(f"│ {line}")
        self.progress.say("└".ljust(82, "─"))

    def picture(self, default: Path | None) -> None:
        """Write a picture of the screen, where one is wanted."""
        path = self._picture or default
        if path is not None:
            self.console.screenshot(path)
            self.progress.say(f"The screen as a picture: {path}")

    def finish(self, *, stay: bool) -> None:
        """Say what took how long, and what one can do next."""
        self.progress.say("")
        self.progress.say("From the start of the command, in seconds:")
        for what, seconds in sorted(self._reached, key=lambda mark: mark[1]):
            self.progress.say(f"  {seconds:6.2f}  {what}")
        if stay:
            name = self.machine.name
            self.progress.say("")
            self.progress.say("It runs on. In another terminal:")
            self.progress.say(f"  vmconnect exec {name} -- uname -a")
            self.progress.say(f"  vmconnect screenshot {name} -o {name}.png")

    def _run(self, argv: list[str]) -> None:
        assert self._guest is not None  # noqa: S101 (only called by guest())
        self.progress.say(f"$ vmconnect exec {self.machine.name} -- {shlex.join(argv)}")
        result = self._guest.run(argv, timeout=30)
        for line in (result.stdout + result.stderr).decode("utf-8", "replace").splitlines():
            self.progress.say(f"  {line}")
        if result.exit_code:
            self.progress.say(f"  exit code {result.exit_code}")

    def _copy(self) -> None:
        """Copy random bytes in and out and compare the three checksums."""
        assert self._guest is not None  # noqa: S101 (only called by guest())
        data = secrets.token_bytes(_COPY_BYTES)
        before = hashlib.sha256(data).hexdigest()
        with tempfile.TemporaryDirectory(prefix="vmconnect-") as directory:
            sent, back = Path(directory, "sent"), Path(directory, "back")
            sent.write_bytes(data)
            self.progress.step(f"Copying {_COPY_BYTES >> 20} MiB of random bytes into the guest")
            self._guest.put(sent, "/tmp/sent", progress=self.progress)  # noqa: S108 (the guest's)
            self.progress.done()
            there = self._guest.run(["sha256sum", "/tmp/sent"]).text.split()[0]  # noqa: S108
            self.progress.step("Copying them out again")
            self._guest.get("/tmp/sent", back, progress=self.progress)  # noqa: S108
            self.progress.done()
            after = hashlib.sha256(back.read_bytes()).hexdigest()
        if not before == there == after:
            raise VmconnectError(
                f"the copy differs: {before} sent, {there} in the guest, {after} back",
                machine=self.machine.name,
            )
        self.progress.say(f"  SHA-256 the same at all three places: {before[:16]}...")

    def _text(self) -> list[str]:
        return self.console.text() or []

    def _mark(self, what: str) -> None:
        self._reached.append((what, time.monotonic() - self._started))
