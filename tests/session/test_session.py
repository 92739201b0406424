"""A session with a machine that comes and goes: real QEMUs with nothing but firmware in them."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import vmconnect
from tests.session.heard import Heard
from tests.session.restartable import Restartable, restartable
from vmconnect.channel import ChannelState
from vmconnect.deadline import Deadline
from vmconnect.errors import (
    ClosedError,
    ConnectError,
    DeadlineError,
    MachineNotFoundError,
    MachineOffError,
    MachineReplacedError,
    UnsupportedError,
)
from vmconnect.hypervisor import Machine, PowerState
from vmconnect.session import SessionState
from vmconnect.session.events import (
    ChannelBack,
    ChannelClosed,
    ChannelLost,
    MachineMoved,
    MachineReset,
    MachineStateChanged,
    SessionEvent,
)
from vmconnect.streams import Tcp, Unix
from vmconnect.vnc import Console

pytestmark = pytest.mark.usefixtures("nothing_left")

WAIT = 60.0


def firmware(console: Console) -> bool:
    """Whether the firmware's first line is on the screen."""
    return "SeaBIOS (version" in "".join((console.text(WAIT) or [])[:1])


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# A machine that is killed, and started again.


def test_a_console_survives_its_hypervisor(web01: Restartable) -> None:
    """Killed, and started again with its screen at a TCP port instead of a socket."""
    socket = web01.start()
    with vmconnect.connect("web01") as session:
        heard = Heard(session)
        console = session.console()
        console.wait_for(firmware, WAIT)
        framebuffer, picture = console.framebuffer, console.pixels()

        web01.kill()
        lost = heard.wait(ChannelLost)
        assert (lost.machine, lost.channel) == ("web01", "console")
        heard.wait(MachineStateChanged, lambda event: event.after is SessionState.GONE)
        assert session.state is SessionState.GONE
        console.wait_for(lambda each: isinstance(each.reason, MachineOffError), WAIT)
        assert console.state in {ChannelState.LOST, ChannelState.RECONNECTING}
        assert (framebuffer.pixels == picture).all()

        port = free_port()
        web01.start(vnc=f"127.0.0.1:{port - 5900}", stopped=True)
        back = heard.wait(ChannelBack)
        assert back.channel == "console"
        assert back.after_s > 0
        moved = heard.wait(MachineMoved)
        assert (moved.before.console, moved.after.console) == (
            Unix(str(socket)),
            Tcp("127.0.0.1", port),
        )
        # It is there before the machine's first instruction.
        console.pixels(WAIT)
        assert console.framebuffer is framebuffer
        assert console.size == (640, 480)
        web01.qmp("cont")
        console.wait_for(firmware, WAIT)
    assert heard.wait(ChannelClosed).reason is None
    assert isinstance(heard.events[-1], MachineStateChanged | ChannelClosed)


def test_it_is_found_at_another_monitor(web01: Restartable) -> None:
    web01.start()
    with vmconnect.connect("web01") as session:
        console = session.console()
        web01.kill()
        web01.start(stem="elsewhere")
        console.wait_for(lambda each: each.state is not ChannelState.READY, WAIT)
        console.wait_ready(WAIT)
        assert session.machine.target == f"qemu:{web01.directory}/elsewhere.qmp"
        assert session.machine.uuid == web01.uuid
        (web01.directory / "elsewhere.qmp").unlink()


def test_another_machine_in_its_place_is_refused(web01: Restartable) -> None:
    web01.start()
    other = "99999999-9999-4999-8999-999999999999"
    with vmconnect.connect("web01") as session:
        heard = Heard(session)
        console = session.console()
        console.wait_for(firmware, WAIT)
        picture = console.framebuffer.pixels.copy()
        web01.kill()
        web01.start(identity=other)
        closed = heard.wait(ChannelClosed)
        assert isinstance(closed.reason, MachineReplacedError)
        assert other in str(closed.reason)
        assert session.state is SessionState.GONE
        with pytest.raises(MachineReplacedError, match="web01: another machine"):
            console.type("secret\n")
        # Nothing of the other one was ever shown.
        assert (console.framebuffer.pixels == picture).all()
        # When the right one is back it is known again.
        web01.kill()
        web01.start()
        session.wait_running(WAIT)
        session.console().wait_for(firmware, WAIT)


def test_what_a_paused_machine_and_a_reset_are(web01: Restartable) -> None:
    web01.start(events=True)
    with vmconnect.connect("web01") as session:
        heard = Heard(session)
        console = session.console()
        console.wait_for(firmware, WAIT)
        session.wait_running(WAIT)
        web01.qmp("stop")
        assert session.wait_state(SessionState.PAUSED, timeout=WAIT) is SessionState.PAUSED
        heard.wait(MachineStateChanged, lambda event: event.after is SessionState.PAUSED)
        web01.qmp("cont")
        heard.wait(MachineStateChanged, lambda event: event.before is SessionState.PAUSED)
        web01.qmp("system_reset")
        assert heard.wait(MachineReset) == MachineReset("web01")
        # The console was never away.
        console.wait_for(firmware, WAIT)
        assert not heard.of(ChannelLost)
        assert console.state is ChannelState.READY


def test_without_a_second_monitor_it_is_asked_and_not_held(web01: Restartable) -> None:
    web01.start()
    with vmconnect.connect("web01") as session:
        heard = Heard(session)
        web01.qmp("stop")
        heard.wait(MachineStateChanged, lambda event: event.after is SessionState.PAUSED)
        # Everybody else can ask too.
        for _ in range(5):
            with vmconnect.connect("web01", 5) as other:
                assert other.state is SessionState.PAUSED
        web01.qmp("cont")
        heard.wait(MachineStateChanged, lambda event: event.after is SessionState.RUNNING)


def test_whoever_hears_of_an_answer_may_ask_in_his_turn(web01: Restartable) -> None:
    web01.start()
    found: list[Machine] = []
    asked = threading.Event()
    with vmconnect.connect("web01") as session:
        locator = session._observer.locator

        def ask(event: SessionEvent) -> None:
            if isinstance(event, MachineStateChanged) and event.after is SessionState.PAUSED:
                found.append(locator.look(Deadline(1.0)))
                asked.set()

        session.subscribe(ask)
        web01.qmp("stop")
        locator.look(Deadline(WAIT))
        assert asked.wait(WAIT)
    assert found[0].state is PowerState.PAUSED


def test_a_hypervisor_that_stands_still_goes_on(web01: Restartable) -> None:
    web01.start()
    with vmconnect.connect("web01") as session:
        heard = Heard(session)
        console = session.console()
        console.wait_for(firmware, WAIT)
        web01.signal(signal.SIGSTOP)
        # Nobody can be asked now.
        assert session.wait_state(SessionState.UNKNOWN, timeout=WAIT) is SessionState.UNKNOWN
        console.keyboard.press("a")
        web01.signal(signal.SIGCONT)
        session.wait_running(WAIT)
        console.confirm(WAIT)
        assert not heard.of(ChannelLost)


# A machine that is off.


def test_a_machine_that_was_killed_is_off(web01: Restartable) -> None:
    web01.start()
    web01.kill()
    with vmconnect.connect("web01") as session, vmconnect.connect(web01.target) as by_path:
        for each in (session, by_path):
            assert each.state is SessionState.OFF
            with pytest.raises(MachineOffError, match="web01: it is off"):
                each.console()
            with pytest.raises(MachineOffError, match="web01: it is off"):
                each.guest()
            with pytest.raises(DeadlineError, match=r"web01: still .* when the time was over"):
                each.wait_running(0.05)
        with pytest.raises(MachineOffError):
            session.console(wait=True, timeout=0.05)
        waiting = session.console(at_once=True)
        with pytest.raises(DeadlineError, match="it is off"):
            waiting.pixels(0.5)
        starter = threading.Thread(target=web01.start)
        starter.start()
        for attached in (session.console(wait=True, timeout=WAIT), waiting):
            attached.wait_for(firmware, WAIT)
        by_path.wait_running(WAIT)
        starter.join()
        # It was known by its place; now it has an identity, and keeps that.
        assert session.machine.uuid == web01.uuid
        web01.kill()
        web01.start(identity="99999999-9999-4999-8999-999999999999")
        with pytest.raises(MachineReplacedError):
            waiting.wait_for(lambda _: False, WAIT)


def test_a_machine_that_is_not_there_yet(web01: Restartable) -> None:
    with pytest.raises(MachineNotFoundError):
        vmconnect.connect("web01")
    with pytest.raises(ConnectError):
        vmconnect.connect(web01.target)
    with pytest.raises(MachineNotFoundError):
        vmconnect.connect("web01", 0.1, wait=True)
    starter = threading.Timer(0.2, web01.start)
    starter.start()
    with vmconnect.connect("web01", WAIT, wait=True) as session:
        session.wait_running(WAIT)
        # Also for a console that does not come back.
        console = session.console(wait=True, timeout=WAIT, reconnect=False)
        console.wait_for(firmware, WAIT)
        starter.join()
        web01.kill()
        with pytest.raises(vmconnect.VmconnectError):
            console.wait_for(lambda _: False, WAIT)
        assert console.state is ChannelState.CLOSED


def test_an_address_has_no_state(web01: Restartable) -> None:
    socket = web01.start()
    with vmconnect.connect(f"vnc+unix:{socket}") as session:
        heard = Heard(session)
        assert session.state is SessionState.UNKNOWN
        with pytest.raises(UnsupportedError, match="does not tell whether"):
            session.wait_running(1)
        console = session.console()
        console.wait_for(firmware, WAIT)
        web01.kill()
        heard.wait(ChannelLost)
        socket.unlink()
        web01.start(vnc=f"unix:{socket}")
        heard.wait(ChannelBack)
        console.wait_for(firmware, WAIT)


# Closing.


def dialling(session: vmconnect.Session, web01: Restartable) -> None:
    """Its monitor takes the connection, and says nothing."""
    web01.signal(signal.SIGSTOP)
    session._observer.locator.doubt()
    session.console()


def greeting(session: vmconnect.Session, web01: Restartable) -> None:
    """Its VNC server does so."""
    web01.signal(signal.SIGSTOP)
    session.console()


def waiting_for_it(session: vmconnect.Session, web01: Restartable) -> None:
    web01.kill()
    session._observer.locator.doubt()
    session.console(wait=True, timeout=WAIT)


def waiting_for_a_picture(session: vmconnect.Session, _web01: Restartable) -> None:
    session.console().wait_for(lambda _: False, WAIT)


def waiting_for_a_state(session: vmconnect.Session, _web01: Restartable) -> None:
    session.wait_state(SessionState.OFF, timeout=WAIT)


def coming_back(session: vmconnect.Session, web01: Restartable) -> None:
    console = session.console()
    web01.signal(signal.SIGSTOP)
    assert console._connection is not None
    console._connection._stream.close()
    console.wait_for(lambda _: False, WAIT)


@pytest.mark.parametrize(
    "act",
    [
        dialling,
        greeting,
        waiting_for_it,
        waiting_for_a_picture,
        waiting_for_a_state,
        coming_back,
    ],
)
def test_closing_ends_everything(
    web01: Restartable, act: Callable[[vmconnect.Session, Restartable], None]
) -> None:
    web01.start()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    session = vmconnect.connect("web01")
    failed: list[BaseException] = []
    heard = Heard(session)

    def run() -> None:
        try:
            act(session, web01)
        except BaseException as error:  # noqa: BLE001 (looked at below)
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.3)
    assert thread.is_alive()
    closers = [threading.Thread(target=session.close) for _ in range(2)]
    for closer in closers:
        closer.start()
    for each in (*closers, thread):
        each.join(5)
        assert not each.is_alive()
    (error,) = failed
    assert isinstance(error, ClosedError), error
    assert session.state is SessionState.CLOSED
    for use in (session.console, session.guest, session.wait_running):
        with pytest.raises(ClosedError, match="web01: the session is closed"):
            use()
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert not [event for event in heard.of(ChannelClosed) if event.reason is not None]


def test_a_subscriber_may_close_it(web01: Restartable) -> None:
    web01.start()
    session = vmconnect.connect("web01")
    session.subscribe(lambda event: session.close() if isinstance(event, ChannelLost) else None)
    console = session.console()
    web01.kill()
    console.wait_for(lambda each: not each.alive, WAIT)
    session.close()
    with pytest.raises(ClosedError):
        session.console()


def test_sessions_do_not_know_of_each_other(rooms: Path) -> None:
    with restartable(rooms, "one") as one, restartable(rooms, "two") as two:
        one.start()
        two.start()
        with vmconnect.connect("one") as first, vmconnect.connect("two") as second:
            consoles = [first.console(), second.console()]
            for console in consoles:
                console.wait_for(firmware, WAIT)
            one.kill()
            consoles[0].wait_for(lambda each: each.state is not ChannelState.READY, WAIT)
            first.close()
            assert consoles[1].state is ChannelState.READY
            consoles[1].keyboard.press("a")
            consoles[1].confirm(WAIT)
