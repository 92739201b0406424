"""Everything that can be asked of a QEMU, asked of real ones."""

import contextlib
import io
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.hypervisor.rig import qcow2, qemu, soon
from vmconnect.demo import DemoMachine
from vmconnect.errors import (
    AuthenticationError,
    DeadlineError,
    HypervisorError,
    QmpError,
    StateError,
    TargetError,
    UnsupportedError,
)
from vmconnect.hypervisor import EventKind, Machine, PowerState, Qemu, QmpClient
from vmconnect.streams import Tcp, Unix, dial
from vmconnect.vnc import Console


def ask(directory: Path, stem: str = "m") -> tuple[Qemu, Machine]:
    hypervisor = Qemu(directory)
    return hypervisor, hypervisor.inspect(directory / f"{stem}.qmp", soon())


def state(hypervisor: Qemu, machine: Machine) -> PowerState:
    return hypervisor.refresh(machine, soon()).state


def until(condition: Callable[[], bool]) -> None:
    deadline = soon()
    while not condition():
        deadline.check("waiting for the condition")
        time.sleep(0.02)


def human(directory: Path, command: str) -> str:
    with QmpClient.connect(Unix(str(directory / "m.qmp"))) as monitor:
        return str(monitor.execute("human-monitor-command", command_line=command))


def ticks(directory: Path) -> int:
    """The BIOS's tick counter, in the guest's memory."""
    return int(human(directory, "xp /1wx 0x46c").split()[-1], 16)


def wait_for_text(screen: Console, text: str) -> None:
    screen.wait_for(lambda it: any(text in line for line in it.text() or []), 120)


@contextlib.contextmanager
def console(hypervisor: Qemu, machine: Machine) -> Iterator[Console]:
    with Console.open(
        lambda deadline: hypervisor.open_console(machine, deadline), "m", timeout=60
    ) as opened:
        yield opened


def test_power_from_on_to_off(directory: Path) -> None:
    with qemu(directory, "m") as process:
        hypervisor, machine = ask(directory)
        assert machine.state is PowerState.PAUSED
        hypervisor.power_on(machine, soon())
        assert state(hypervisor, machine) is PowerState.RUNNING
        hypervisor.power_on(machine, soon())  # a running one is left alone
        hypervisor.pause(machine, soon())
        assert state(hypervisor, machine) is PowerState.PAUSED
        with pytest.raises(StateError, match="resume it"):
            hypervisor.shut_down(machine, soon())
        hypervisor.resume(machine, soon())
        assert state(hypervisor, machine) is PowerState.RUNNING
        hypervisor.reset(machine, soon())
        hypervisor.power_off(machine, soon())
        assert process.wait(60) == 0
        assert hypervisor.machines(soon()) == []


@pytest.mark.guest
def test_a_guest_that_is_asked_shuts_down(fresh_machine: type[DemoMachine]) -> None:
    with fresh_machine.start("downer") as demo:
        hypervisor = Qemu(demo.qmp_path.parent)
        machine = hypervisor.inspect(demo.qmp_path, soon())
        assert machine.agent == Unix(str(demo.agent_path))
        assert machine.serial == Unix(str(demo.serial_path))
        with console(hypervisor, machine) as screen:
            wait_for_text(screen, "login:")
        hypervisor.shut_down(machine, soon(120), wait=True)
        demo.wait(60)


def test_a_machine_that_stands_after_its_shutdown_starts_again(directory: Path) -> None:
    with qemu(directory, "m", "-no-shutdown", stopped=False):
        hypervisor, machine = ask(directory)
        # What a guest does to turn itself off: isa-debug-exit aside, a reset that is a shutdown.
        with QmpClient.connect(Unix(str(directory / "m.qmp"))) as monitor:
            monitor.execute("set-action", reboot="shutdown")
            monitor.execute("system_reset")
            monitor.wait_event("SHUTDOWN", 60)
            monitor.execute("set-action", reboot="reset")
        until(lambda: state(hypervisor, machine) is PowerState.OFF)
        hypervisor.power_on(machine, soon())
        assert state(hypervisor, machine) is PowerState.RUNNING


def disk_holds(directory: Path, byte: int) -> bool:
    """Whether the second disk begins with 512 of that byte; QEMU says so on its output."""
    output = directory / "m.out"
    before = len(output.read_text())
    human(directory, f'qemu-io virtio1 "read -P {byte} 0 512"')
    said = output.read_text()[before:]
    assert "read 512/512 bytes" in said
    return "Pattern verification failed" not in said


DISK = "if=virtio,format=qcow2,file="


def test_a_checkpoint_brings_back_memory_and_disk(directory: Path) -> None:
    disk, other = qcow2(directory / "a.qcow2"), qcow2(directory / "b.qcow2")
    drives = ("-drive", f"{DISK}{disk}", "-drive", f"{DISK}{other}")
    with qemu(directory, "m", *drives, stopped=False):
        hypervisor, machine = ask(directory)
        assert hypervisor.checkpoints(machine, soon()) == []
        until(lambda: ticks(directory) > 0)
        hypervisor.pause(machine, soon())
        human(directory, 'qemu-io virtio1 "write -P 0x41 0 512"')
        before = ticks(directory)
        hypervisor.create_checkpoint(machine, "clean", soon())
        hypervisor.resume(machine, soon())
        until(lambda: ticks(directory) > before + 5)
        human(directory, 'qemu-io virtio1 "write -P 0x42 0 512"')
        hypervisor.create_checkpoint(machine, "later", soon())
        assert [each.name for each in hypervisor.checkpoints(machine, soon())] == ["clean", "later"]

        hypervisor.pause(machine, soon())
        hypervisor.apply_checkpoint(machine, "clean", soon())
        assert state(hypervisor, machine) is PowerState.PAUSED
        assert ticks(directory) == before
        assert disk_holds(directory, 0x41)
        hypervisor.resume(machine, soon())
        hypervisor.apply_checkpoint(machine, "later", soon())
        assert state(hypervisor, machine) is PowerState.RUNNING
        assert not disk_holds(directory, 0x41)
        assert disk_holds(directory, 0x42)

        with pytest.raises(HypervisorError, match="already exists"):
            hypervisor.create_checkpoint(machine, "clean", soon())
        with pytest.raises(TargetError, match="there are: clean, later"):
            hypervisor.apply_checkpoint(machine, "claen", soon())
        hypervisor.delete_checkpoint(machine, "clean", soon())
        (left,) = hypervisor.checkpoints(machine, soon())
        assert left.name == "later"
        assert left.created is not None
        assert left.size
    text = subprocess.run(["qemu-img", "snapshot", "-l", other], capture_output=True, check=True)
    assert b"later" in text.stdout
    assert b"clean" not in text.stdout


def test_a_disk_that_can_hold_no_checkpoint_is_named(directory: Path) -> None:
    raw = directory / "raw.img"
    raw.write_bytes(bytes(1 << 20))
    with qemu(directory, "m", "-drive", f"if=virtio,format=raw,file={raw}"):
        hypervisor, machine = ask(directory)
        with pytest.raises(UnsupportedError, match=r"raw\.img is raw.*convert it"):
            hypervisor.create_checkpoint(machine, "one", soon())
    with qemu(directory, "m"):
        hypervisor, machine = ask(directory)
        with pytest.raises(UnsupportedError, match="no qcow2 disk"):
            hypervisor.create_checkpoint(machine, "one", soon())


def test_a_saved_machine_goes_on_where_it_was(directory: Path) -> None:
    disk = ("-drive", f"{DISK}{qcow2(directory / 'a.qcow2')}")
    for _ in range(2):  # The second time there is a saved state to replace.
        with qemu(directory, "m", *disk, stopped=False) as process:
            hypervisor, machine = ask(directory)
            until(lambda: ticks(directory) > 20)
            hypervisor.save(machine, soon())
            assert process.wait(60) == 0
    with qemu(directory, "m", *disk, "-loadvm", "vmconnect-saved"):
        assert ticks(directory) > 20


def test_a_save_that_fails_leaves_the_machine_running(directory: Path) -> None:
    with qemu(directory, "m", stopped=False):
        hypervisor, machine = ask(directory)
        with pytest.raises(UnsupportedError):
            hypervisor.save(machine, soon())
        assert state(hypervisor, machine) is PowerState.RUNNING


def test_media_come_and_go(directory: Path) -> None:
    first, second = directory / "first.iso", directory / "second.iso"
    for image in (first, second):
        image.write_bytes(bytes(1 << 16))
    with qemu(directory, "m", "-device", "ide-cd,id=cd0"):
        hypervisor, machine = ask(directory)
        (drive,) = hypervisor.drives(machine, soon())
        assert (drive.id, drive.medium) == ("cd0", None)
        hypervisor.insert_medium(machine, first, soon())
        hypervisor.insert_medium(machine, second, soon(), drive="cd0")
        (drive,) = hypervisor.drives(machine, soon())
        assert drive.medium == str(second)
        hypervisor.eject_medium(machine, soon())
        (drive,) = hypervisor.drives(machine, soon())
        assert drive.medium is None
        with pytest.raises(TargetError, match="say which: cd0"):
            hypervisor.insert_medium(machine, first, soon(), drive="cd1")
        with pytest.raises(HypervisorError, match="No such file"):
            hypervisor.insert_medium(machine, directory / "none.iso", soon())
    with qemu(directory, "m", "-device", "ide-cd,id=cd0", "-device", "ide-cd,id=cd1"):
        hypervisor, machine = ask(directory)
        with pytest.raises(TargetError, match=r"it has 2 drives.*say which: cd0, cd1"):
            hypervisor.eject_medium(machine, soon())
    with qemu(directory, "m"):
        hypervisor, machine = ask(directory)
        with pytest.raises(UnsupportedError, match="CD-ROM drive"):
            hypervisor.insert_medium(machine, first, soon())


def picture(hypervisor: Qemu, machine: Machine) -> Image.Image:
    return Image.open(io.BytesIO(hypervisor.screenshot(machine, soon())))


def test_a_screenshot_needs_no_viewer_and_leaves_no_file(directory: Path) -> None:
    with qemu(directory, "m", "-vga", "std", stopped=False):
        hypervisor, machine = ask(directory)
        before = set(directory.iterdir())
        images = [picture(hypervisor, machine) for _ in range(2)]
        assert {(image.format, image.size > (300, 200)) for image in images} == {("PNG", True)}
        # The firmware's message: the screen is not all one colour.
        until(lambda: picture(hypervisor, machine).convert("L").getextrema() != (0, 0))
        assert set(directory.iterdir()) == before
        with QmpClient.connect(Unix(str(directory / "m.qmp"))) as monitor:
            (left,) = monitor.execute("query-fdsets")
            assert left["fds"] == []


def test_a_machine_with_no_screen_has_no_screenshot(directory: Path) -> None:
    with qemu(directory, "m"):
        hypervisor, machine = ask(directory)
        with pytest.raises(HypervisorError, match="screendump"):
            hypervisor.screenshot(machine, soon())


def test_a_console_with_no_listening_port(directory: Path) -> None:
    with qemu(directory, "m", "-vga", "std", "-vnc", "none", stopped=False) as process:
        hypervisor, machine = ask(directory)
        assert (machine.console, machine.handed_console) == (None, True)
        with console(hypervisor, machine) as first, console(hypervisor, machine) as second:
            for each in (first, second):
                wait_for_text(each, "No bootable device")
        # Nothing was opened in passing: QEMU listens on its monitor alone.
        listening = Path("/proc/net/unix").read_text(encoding="ascii")
        assert sum(str(directory) in line for line in listening.splitlines()) == 1
        assert process.poll() is None
    with qemu(directory, "m"):
        hypervisor, machine = ask(directory)
        assert not machine.handed_console
        with pytest.raises(UnsupportedError, match="start QEMU with -vnc"):
            hypervisor.open_console(machine, soon())


def test_keys_reach_the_firmware(directory: Path) -> None:
    options = ("-vga", "std", "-vnc", "none", "-boot", "menu=on,splash-time=60000")
    with qemu(directory, "m", *options, stopped=False):
        hypervisor, machine = ask(directory)
        with console(hypervisor, machine) as screen:
            wait_for_text(screen, "Press ESC")
            hypervisor.send_keys(machine, [0x01], soon())
            wait_for_text(screen, "Select boot device")
        for chord in ([], [0], [256], [1] * 17):
            with pytest.raises(UnsupportedError, match="no chord"):
                hypervisor.send_keys(machine, chord, soon())


def log_in(machine: Machine, password: str) -> None:
    """Log in to the VNC server by its socket, as a viewer would."""
    endpoint = machine.console
    assert endpoint is not None
    Console.open(
        lambda deadline: dial(endpoint, deadline), "m", password=password, timeout=60
    ).close()


def test_one_time_passwords(directory: Path) -> None:
    with qemu(directory, "m", "-vga", "std", "-vnc", f"unix:{directory}/m.vnc,password=on"):
        hypervisor, machine = ask(directory)
        hypervisor.set_console_password(machine, "sesame", soon(), valid_s=3600)
        log_in(machine, "sesame")
        with pytest.raises(AuthenticationError):
            log_in(machine, "wrong")
        hypervisor.set_console_password(machine, "once", soon(), valid_s=1)
        time.sleep(2.1)
        with pytest.raises(AuthenticationError):
            log_in(machine, "once")
        hypervisor.set_console_password(machine, "ever", soon())
        log_in(machine, "ever")
        with console(hypervisor, machine):
            pass  # who has the monitor needs no password
    with qemu(directory, "m", "-vga", "std"):
        hypervisor, machine = ask(directory)
        with pytest.raises(HypervisorError, match="password=on"):
            hypervisor.set_console_password(machine, "sesame", soon())


def test_channels_of_the_guest(directory: Path) -> None:
    options = (
        *("-device", "virtio-serial"),
        *("-chardev", f"socket,id=qga,path={directory}/m.qga,server=on,wait=off"),
        *("-device", "virtserialport,chardev=qga,name=org.qemu.guest_agent.0"),
        *("-serial", "tcp:127.0.0.1:0,server=on,wait=off"),
    )
    with qemu(directory, "m", *options):
        _, machine = ask(directory)
        assert machine.agent == Unix(f"{directory}/m.qga")
        assert isinstance(machine.serial, Tcp)
        assert machine.serial.host == "127.0.0.1"
        # The description is the same while somebody is connected.
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(f"{directory}/m.qga")
            assert ask(directory)[1].agent == machine.agent
    with qemu(directory, "m", "-serial", "pty"):
        _, machine = ask(directory)
        assert isinstance(machine.serial, Path)
        assert machine.serial.is_char_device()


EVENTS = ("-qmp", "unix:{}/m.events,server=on,wait=off")


def test_events_come_while_others_ask(directory: Path) -> None:
    events = [word.format(directory) for word in EVENTS]
    with Qemu(directory).watch(soon()) as watch:
        with qemu(directory, "m", *events) as process:
            assert watch.next(soon()).kind is EventKind.APPEARED
            hypervisor, machine = ask(directory)
            hypervisor.resume(machine, soon())
            hypervisor.reset(machine, soon())
            hypervisor.pause(machine, soon())
            seen = [watch.next(soon()) for _ in range(3)]
            assert [each.kind for each in seen] == [
                EventKind.RESUMED,
                EventKind.RESET,
                EventKind.PAUSED,
            ]
            assert {each.identity for each in seen} == {machine.identity}
            hypervisor.power_off(machine, soon())
            process.wait()
        assert [watch.next(soon()).kind for _ in range(2)] == [EventKind.STOPPED, EventKind.GONE]
        with pytest.raises(DeadlineError):
            watch.next(0.01)


def test_the_only_monitor_is_watched_once_it_is_free(directory: Path) -> None:
    with qemu(directory, "m", stopped=False):
        monitor = QmpClient.connect(Unix(str(directory / "m.qmp")))
        with Qemu(directory).watch(soon()) as watch:  # held by another: no failure
            with pytest.raises(DeadlineError):
                watch.next(0.01)
            monitor.close()
            assert watch.next(soon()).kind is EventKind.APPEARED
            with pytest.raises(DeadlineError, match="one at a time"):
                Qemu(directory).inspect(directory / "m.qmp", soon(0.2))


def test_a_closed_watch_wakes_who_waits(directory: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with qemu(directory, "m"):
        watch = Qemu(directory).watch(soon())
        seen: list[object] = []
        thread = threading.Thread(target=lambda: seen.extend(watch))
        thread.start()
        time.sleep(0.1)
        watch.close()
        thread.join()
        assert seen == []
        watch.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_hypervisor_that_hangs_meets_the_deadline(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(directory / "m.qmp"))
        silent.listen()
        machine = Machine("m", "m", f"qemu:{directory}/m.qmp")
        for action in (Qemu(directory).reset, Qemu(directory).screenshot, Qemu(directory).drives):
            with pytest.raises(DeadlineError, match="m: "):
                action(machine, soon(0.05))


@pytest.mark.parametrize(
    "answer", ['{"return": 7}', '{"return": [7]}', '{"return": {"x": []}}', '{"error": 3}']
)
def test_nonsense_is_a_protocol_error(directory: Path, answer: str) -> None:
    """The monitor is the test's own: no QEMU answers like this."""
    hypervisor, machine = Qemu(directory), Machine("m", "m", f"qemu:{directory}/m.qmp")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "m.qmp"))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer, peer.makefile("rb") as lines, contextlib.suppress(OSError):
                    peer.sendall(b'{"QMP": {}}\n')
                    for number, _ in enumerate(lines, 1):
                        text = '{"return": {}}' if number == 1 else answer
                        peer.sendall(f'{text[:-1]}, "id": {number}}}\n'.encode())

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            for action in (
                hypervisor.refresh,
                hypervisor.drives,
                hypervisor.checkpoints,
                hypervisor.screenshot,
            ):
                with pytest.raises((QmpError, UnsupportedError)) as caught:
                    action(machine, soon())
                assert isinstance(caught.value, QmpError) or answer == '{"return": []}'
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


DENIED = """
import grp, os, pwd, sys
from pathlib import Path
from vmconnect.deadline import Deadline
from vmconnect.errors import ConnectError
from vmconnect.hypervisor import Qemu
os.setgroups([]), os.setgid(65534), os.setuid(65534)
path = Path(sys.argv[1])
print([machine.state.value for machine in Qemu(path.parent).machines(Deadline(5))])
try:
    Qemu(path.parent).inspect(path, Deadline(5))
except ConnectError as error:
    print(error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(
    ("mode", "words"), [(0o770, "open to the group root: join it"), (0o700, "the user root only")]
)
def test_permission_denied_says_who_is_permitted(directory: Path, mode: int, words: str) -> None:
    with qemu(directory, "m"):
        directory.chmod(0o755)
        (directory / "m.qmp").chmod(mode)
        result = subprocess.run(
            [sys.executable, "-c", DENIED, directory / "m.qmp"],
            capture_output=True,
            text=True,
            check=True,
        )
    listed, error = result.stdout.splitlines()
    assert listed == "['unknown']"
    assert "Permission denied" in error
    assert words in error


def test_a_machine_is_found_by_name_uuid_and_pattern(directory: Path) -> None:
    uuid = "0a0b0c0d-0001-4002-8003-000000000004"
    with (
        qemu(directory, "web1", "-uuid", uuid),
        qemu(directory, "web2"),
        qemu(directory, "db", "-name", "web[1]"),
    ):
        hypervisor = Qemu(directory)

        def names(text: str) -> list[str]:
            return [machine.name for machine in hypervisor.look_up(text, soon())]

        assert names("web1") == names(uuid) == names(uuid.upper().replace("-", "")) == ["web1"]
        assert names("web?") == ["web1", "web2"]
        assert names("*") == ["web1", "web2", "web[1]"]
        assert names("web[1]") == ["web[1]"]  # its name, not a pattern
        assert names("web") == []
        (machine,) = hypervisor.look_up("web2", soon())
        assert hypervisor.refresh(machine, soon()) == machine
        assert replace(machine, state=PowerState.OFF) != machine
