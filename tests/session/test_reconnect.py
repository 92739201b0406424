"""What was acknowledged is not lost: a real guest, a link that is cut, a machine that dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import vmconnect
from tests.conftest import BOOT_SECONDS
from tests.session.cuttable import Link, link
from tests.session.heard import Heard
from tests.session.restartable import restartable
from vmconnect.channel import ChannelState, StateChange
from vmconnect.deadline import Deadline
from vmconnect.demo import DemoImage, DemoMachine
from vmconnect.direct import Guest, Login
from vmconnect.errors import (
    AuthenticationError,
    CommandLostError,
    ConnectionLostError,
    DeadlineError,
    HostKeyChangedError,
    VmconnectError,
)
from vmconnect.hypervisor import QmpClient
from vmconnect.retry import Backoff, Heartbeat, Retry
from vmconnect.session import Session, SessionState
from vmconnect.session.events import ChannelBack, ChannelLost, MachineReset
from vmconnect.streams import HybridVsock, Stream, Tcp, Unix, dial
from vmconnect.vnc import Console

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("nothing_left")]

WAIT = 60.0
SOON = 5.0
QUICK = Heartbeat(0.2, 0.4)


@pytest.fixture
def session(demo_machine: DemoMachine) -> Iterator[Session]:
    with vmconnect.connect(demo_machine.name) as session:
        yield session


@pytest.fixture
def guest(session: Session) -> Guest:
    return session.guest(timeout=WAIT, wait=True)


@pytest.fixture
def cuttable(demo_machine: DemoMachine) -> Iterator[Link]:
    """Give a link to the machine's screen, as a viewer on another host has it."""
    with link(demo_machine.vnc_path) as made:
        yield made


def far(link: Link) -> Session:
    """Return a session over the link, with a heartbeat that is quick to notice."""
    from vmconnect.session import parse_target, resolve

    return Session(resolve(parse_target(link.target)), heartbeat=QUICK)


def last_line(console: Console) -> str:
    lines = [line for line in console.text(WAIT) or [] if line]
    return lines[-1].rstrip("_ ") if lines else ""


def log_in(console: Console) -> None:
    try:
        console.wait_for(lambda each: last_line(each).endswith("login:"), SOON)
    except DeadlineError:
        # Whatever is on the screen, Enter makes getty ask again.
        console.keyboard.press("enter")
        console.wait_for(lambda each: last_line(each).endswith("login:"), WAIT)
    console.type("root\n")
    console.wait_for(lambda each: last_line(each).endswith("#"), WAIT)


def log_out(console: Console) -> None:
    console.keyboard.press("ctrl", "d")
    console.wait_for(lambda each: last_line(each).endswith("login:"), WAIT)


class Typist:
    """Types numbered lines into a file in the guest, and keeps account of what was acknowledged."""

    def __init__(self, session: Session, console: Console, file: str):
        self.console = console
        self.heard = Heard(session)
        self.acknowledged: list[int] = []
        self._losses = 0
        self._line = 0
        console.type(f"stty sane -echo; cat >{file}\n")
        console.confirm(WAIT)

    def line(self) -> None:
        """Type the next line, as a script does that wants to know what became of it."""
        self._line += 1
        try:
            self.console.type(f"{self._line}\n")
        except ConnectionLostError:
            typed = False
        else:
            typed = True
        self.console.wait_ready(WAIT)
        if self._lost():
            # What is left of a line in the guest must not become a part of the next one.
            self._clean()
        elif typed:
            self.acknowledged.append(self._line)

    def finish(self) -> None:
        self.console.confirm(WAIT)
        assert not self._lost()
        self.console.keyboard.press("ctrl", "c")
        self.console.type("stty sane\n")
        self.console.confirm(WAIT)

    def _lost(self) -> bool:
        """Take back what is reported lost, if anything is: so long it was acknowledged."""
        lost = self.heard.of(ChannelLost)
        for event in lost[self._losses :]:
            # Each line ends with an Enter; those of the last ones are among what was lost. The
            # present line was not acknowledged yet.
            doubtful = [*event.uncertain, *event.unsent].count("enter")
            del self.acknowledged[max(0, len(self.acknowledged) - doubtful) :]
        before, self._losses = self._losses, len(lost)
        return before != len(lost)

    def _clean(self) -> None:
        while True:
            with contextlib.suppress(ConnectionLostError):
                self.console.keyboard.press("ctrl", "u")
                self.console.confirm(WAIT)
                if not self._lost():
                    return
            self.console.wait_ready(WAIT)
            self._lost()


def lines_in(guest: Guest, file: str) -> list[int]:
    return [int(line) for line in guest.run(["cat", file], timeout=WAIT).text.split()]


@pytest.mark.parametrize("silently", [False, True])
def test_lines_that_were_typed_are_there_exactly_once(
    cuttable: Link, guest: Guest, silently: bool
) -> None:
    """While the link is cut again and again, openly or without a word."""
    file = f"/tmp/typed-{silently}"
    with far(cuttable) as session:
        console = session.console()
        log_in(console)
        typist = Typist(session, console, file)

        def cut() -> None:
            for number, pause in enumerate((0.31, 0.17, 0.43, 0.11), 1):
                time.sleep(pause)
                (cuttable.freeze if silently else cuttable.cut)()
                typist.heard.wait(ChannelLost, count=number)
                if silently:
                    cuttable.thaw()
                typist.heard.wait(ChannelBack, count=number)

        cutter = threading.Thread(target=cut)
        cutter.start()
        while cutter.is_alive():
            typist.line()
        cutter.join()
        for _ in range(3):
            typist.line()
        typist.finish()
        assert len(typist.heard.of(ChannelLost)) == 4
        found = lines_in(guest, file)
        log_out(console)
    assert len(typist.acknowledged) >= 3
    # Exactly once, in order; and of the others none twice.
    assert len(set(found)) == len(found)
    assert [line for line in found if line in set(typist.acknowledged)] == typist.acknowledged


def test_commands_that_were_acknowledged_have_their_effect_exactly_once(
    demo_machine: DemoMachine, session: Session
) -> None:
    """While sshd is killed in the guest, again and again."""
    heard = Heard(session)
    guest = session.guest(timeout=WAIT, wait=True)
    killer = session.guest(timeout=WAIT, wait=True)
    acknowledged: list[int] = []
    lost: dict[int, CommandLostError] = {}
    number = 0
    for _ in range(4):
        for place in range(4):
            number += 1
            command = f"echo {number} >>/tmp/done"
            if place == 2:
                # It takes the connection with it that it runs over.
                command += "; kill -9 $PPID; sleep 60"
            try:
                assert guest.run(["sh", "-c", command], timeout=WAIT).ok
            except CommandLostError as error:
                lost[number] = error
            else:
                acknowledged.append(number)
    done = lines_in(killer, "/tmp/done")
    assert sorted(lost) == [3, 7, 11, 15]
    for of, known in lost.items():
        assert known.started
        assert known.argv[2].startswith(f"echo {of} ")
        assert "how it ended is not known" in str(known)
    # None was run again by itself, and none was lost.
    assert done == sorted([*acknowledged, *lost])
    assert heard.wait(ChannelBack, count=4).channel == "guest"
    losses = heard.of(ChannelLost)
    assert [event.uncertain[0].startswith("sh -c") for event in losses] == [True] * 4
    killer.run(["rm", "/tmp/done"])


def test_a_guest_behind_a_link_that_goes_silent(
    demo_machine: DemoMachine, session: Session
) -> None:
    """Commands end when nobody answers any more, and the channel is back when somebody does."""
    note = session.machine.note
    with link(demo_machine.vsock_path) as silent:

        def opener(deadline: Deadline) -> Stream:
            stream = dial(Tcp("127.0.0.1", silent.port), deadline)
            stream.settimeout(deadline.remaining())
            stream.sendall(b"CONNECT 22\n")
            while stream.recv(1) != b"\n":
                pass
            return stream

        login = Login("root", (Path(note.identity_file or ""),), use_agent=False)
        retry = Retry(Backoff(0.05, 0.1))
        with Guest.open(
            opener, "far", login, lambda _kind, _key: None, retry=retry, heartbeat=QUICK
        ) as guest:
            changes: list[StateChange] = []
            guest.on_state(changes.append)
            assert guest.run(["echo", "here"], timeout=WAIT).text == "here\n"
            # It may be silent for longer than that, if it answers when it is asked.
            assert guest.run(["sh", "-c", "sleep 1.5; echo on"], timeout=WAIT).text == "on\n"
            timer = threading.Timer(0.2, silent.freeze)
            timer.start()
            with pytest.raises(CommandLostError, match="far: the connection broke"):
                guest.run(["sleep", "60"], timeout=WAIT)
            timer.join()
            assert "has not answered for" in str(changes[0].reason)
            assert changes[0].lost.uncertain == ("sleep 60",)
            silent.thaw()
            assert guest.run(["echo", "back"], timeout=WAIT).text == "back\n"


@pytest.mark.parametrize("reason", [AuthenticationError, HostKeyChangedError])
def test_who_is_refused_does_not_come_again(
    demo_machine: DemoMachine, session: Session, reason: type[VmconnectError]
) -> None:
    """The second time the guest refuses us, or we refuse it: that is the end, and no more tries."""
    key = Path(session.machine.note.identity_file or "")
    times: list[int] = []

    def login() -> Login:
        times.append(1)
        wrong = len(times) > 1 and reason is AuthenticationError
        return Login("root", () if wrong else (key,), use_agent=False)

    def check(_kind: str, _key: bytes) -> None:
        if len(times) > 1 and reason is HostKeyChangedError:
            raise HostKeyChangedError("it was another one before")

    with Guest.open(
        lambda deadline: dial(HybridVsock(str(demo_machine.vsock_path), 22), deadline),
        "web01",
        login,
        check,
        retry=Retry(Backoff(0.01, 0.01)),
    ) as guest:
        with pytest.raises(CommandLostError):
            guest.run(["sh", "-c", "kill -9 $PPID; sleep 60"], timeout=WAIT)
        with pytest.raises(reason, match="web01: "):
            guest.run(["true"], timeout=WAIT)
        assert guest.state is ChannelState.CLOSED
        assert isinstance(guest.reason, reason)
    assert len(times) == 2


def test_calls_wait_for_the_guest_within_their_deadline(session: Session, guest: Guest) -> None:
    with pytest.raises(CommandLostError):
        guest.run(["sh", "-c", "kill -STOP $(pidof socat); kill -9 $PPID; sleep 60"], timeout=WAIT)
    try:
        # Nobody answers now.
        with pytest.raises(DeadlineError, match=r"still .* when the time was over"):
            guest.run(["true"], timeout=0.3)
        assert guest.state in {ChannelState.LOST, ChannelState.RECONNECTING}
    finally:
        console = session.console()
        log_in(console)
        console.type("kill -CONT $(pidof socat); echo done\n")
        console.wait_for(lambda each: "done" in (each.text(WAIT) or []), WAIT)
        console.wait_for(lambda each: last_line(each).endswith("#"), WAIT)
        log_out(console)
    assert guest.run(["echo", "on"], timeout=WAIT).text == "on\n"


def test_a_machine_that_stands_still_loses_nothing(
    demo_machine: DemoMachine, session: Session, guest: Guest
) -> None:
    """Stopped by its monitor, and its process by the kernel: what was sent arrives later."""
    heard = Heard(session)
    console = session.console()
    log_in(console)
    for hold in (paused, suspended):
        results: list[str] = []

        def run(into: list[str] = results) -> None:
            into.append(guest.run(["sh", "-c", "sleep 0.5; echo went on"], timeout=WAIT).text)

        runner = threading.Thread(target=run)
        runner.start()
        time.sleep(0.2)
        name = hold.__name__
        with hold(demo_machine):
            console.type("x\b")  # As much as a keyboard holds.
            time.sleep(0.5)
        console.type(f"touch /tmp/{name}\n")
        runner.join()
        assert results == ["went on\n"]
        deadline = Deadline(WAIT)
        while not guest.run(["test", "-e", f"/tmp/{name}"], timeout=WAIT).ok:
            deadline.check("waiting for what was typed")
        guest.run(["rm", f"/tmp/{name}"], timeout=WAIT)
    log_out(console)
    assert not heard.of(ChannelLost)


@contextlib.contextmanager
def paused(machine: DemoMachine) -> Iterator[None]:
    """Stop the machine's processors; its hypervisor goes on."""
    with QmpClient.connect(Unix(str(machine.qmp_path)), WAIT) as monitor:
        monitor.execute("stop")
    yield
    with QmpClient.connect(Unix(str(machine.qmp_path)), WAIT) as monitor:
        monitor.execute("cont")


@contextlib.contextmanager
def suspended(machine: DemoMachine) -> Iterator[None]:
    """Stop the hypervisor."""
    assert machine.pid is not None
    os.kill(machine.pid, signal.SIGSTOP)
    yield
    os.kill(machine.pid, signal.SIGCONT)


def test_a_guest_is_reached_through_resets_and_restarts(rooms: Path, demo_image: DemoImage) -> None:
    """Reset; then killed and started with another socket, another CID, another vsock path."""
    with restartable(rooms, image=demo_image) as web01:
        # It waits for a machine that is not there yet, and for its guest.
        waiting = subprocess.Popen(
            [
                *(sys.executable, "-m", "vmconnect"),
                *("exec", "-n", "--wait", "90", "web01", "--", "echo", "up"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        web01.start(events=True)
        with vmconnect.connect("web01") as session:
            heard = Heard(session)
            console = session.console()
            guest = session.guest(timeout=BOOT_SECONDS, wait=True)
            boots = [boot_id(guest)]
            out, err = waiting.communicate(timeout=BOOT_SECONDS)
            assert (waiting.returncode, out, err) == (0, b"up\n", b"")

            with pytest.raises(CommandLostError):
                reset = threading.Timer(0.2, web01.qmp, ["system_reset"])
                reset.start()
                guest.run(["sleep", "600"], timeout=WAIT)
            reset.join()
            heard.wait(MachineReset)
            # The next call waits for the guest to be up again.
            boots.append(boot_id(guest))
            assert {event.channel for event in heard.of(ChannelLost)} == {"guest"}
            before = session.machine

            web01.kill()
            heard.wait(ChannelLost, lambda event: event.channel == "console")
            web01.start()
            console.wait_for(firmware_or_later, BOOT_SECONDS)
            boots.append(boot_id(guest))
            assert before.guest != session.machine.guest
            assert before.console != session.machine.console
            console.wait_for(lambda each: last_line(each).endswith("login:"), BOOT_SECONDS)
            assert session.state is SessionState.RUNNING
    assert len(set(boots)) == 3


def boot_id(guest: Guest) -> str:
    return guest.run(["cat", "/proc/sys/kernel/random/boot_id"], timeout=BOOT_SECONDS).text


def firmware_or_later(console: Console) -> bool:
    return any(console.text(WAIT) or [])
