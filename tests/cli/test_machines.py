"""list, power, checkpoint, media, keys and screenshot, on real QEMUs and a real libvirtd.

Cloud Hypervisor and Firecracker need /dev/kvm: they are servers of the tests that follow the
published documents (tests/hypervisor/rest_servers.py).
"""

import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.hypervisor.libvirtd import session_daemon
from tests.hypervisor.rest_servers import CloudHypervisorModel, FirecrackerModel, serving
from tests.hypervisor.rig import qcow2, qemu, soon
from vmconnect.cli import main
from vmconnect.cli.keys import chord
from vmconnect.demo import DemoMachine
from vmconnect.errors import TargetError
from vmconnect.hypervisor import Libvirt, QmpClient
from vmconnect.session import connect, hypervisor_of
from vmconnect.streams import Unix

UUID = "0a0b0c0d-0001-4002-8003-000000000004"


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only place where machines are looked for."""
    path = Path(tempfile.mkdtemp(prefix="vmc-"))
    monkeypatch.setenv("VMCONNECT_HYPERVISORS", str(path))
    monkeypatch.setenv("XDG_STATE_HOME", str(path / "state"))
    yield path
    shutil.rmtree(path)


class Cli:
    """The command, in this process: what it returns and prints."""

    def __init__(self, capsys: pytest.CaptureFixture[str]):
        self._capsys = capsys

    def __call__(self, *words: str, code: int = 0) -> str:
        """Return standard output; nothing may be on standard error."""
        out, err = self.both(*words, code=code)
        assert err == ""
        return out

    def both(self, *words: str, code: int = 0) -> tuple[str, str]:
        result = main(words)
        out, err = self._capsys.readouterr()
        assert result == code, err
        return out, err

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json"))

    def fails(self, *words: str) -> str:
        """Return the one line on standard error."""
        out, err = self.both(*words, code=1)
        assert out == ""
        assert err.startswith("vmconnect: ")
        assert err.count("\n") == 1
        return err


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def until(condition: Callable[[], bool]) -> None:
    deadline = soon()
    while not condition():
        deadline.check("waiting for the condition")
        time.sleep(0.02)


def states(cli: Cli) -> dict[str, str]:
    return {each["name"]: each["state"] for each in cli.json("list")}


def test_list_has_the_machines_of_every_hypervisor(directory: Path, cli: Cli) -> None:
    cloud = CloudHypervisorModel({"vsock": {"cid": 3, "socket": "/run/ch.vsock"}})
    cloud.state = "Running"
    with (
        qemu(directory, "web02", "-vnc", f"unix:{directory}/web02.vnc", "-uuid", UUID),
        serving(cloud, directory / "web01.ch"),
        serving(FirecrackerModel({}), directory / "web03.fc"),
    ):
        rows = [line.split() for line in cli("list").splitlines()]
        assert rows[0] == ["NAME", "STATE", "HYPERVISOR", "CONSOLE", "GUEST", "UUID"]
        assert [row[:3] for row in rows[1:]] == [
            ["web01", "running", "cloud-hypervisor"],
            ["web02", "paused", "qemu"],
            ["web03", "off", "firecracker"],
        ]
        assert rows[2][3:] == ["vnc", "-", UUID]
        long = cli("list", "--long").splitlines()
        assert long[0].split()[-5:] == ["CONSOLE", "AT", "GUEST", "AT", "TARGET"]
        assert long[1].split()[-2:] == ["vsock-mux/run/ch.vsock:22", f"ch:{directory}/web01.ch"]
        told = {each["name"]: each for each in cli.json("list")}
        assert told["web02"] == {
            "name": "web02",
            "uuid": UUID,
            "state": "paused",
            "hypervisor": "qemu",
            "target": f"qemu:{directory}/web02.qmp",
            "console": f"{directory}/web02.vnc",
            "guest": None,
            "agent": None,
            "serial": None,
            "trouble": None,
        }
        assert connect("web01").machine.target == told["web01"]["target"]
        assert connect(UUID.upper()).machine.name == "web02"
        assert connect(f"fc:{directory}/web03.fc").machine.name == "web03"
        _, err = cli.both("keys", "web*", "a", "--timeout", "30", code=1)
        assert [line.split()[1] for line in err.splitlines()] == ["web01:", "web03:"]
        assert "has no way to send keys (these have: qemu, libvirt)" in err


def test_who_hangs_or_refuses_does_not_stop_the_list(
    directory: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = directory / "libvirt-sock"
    places = [
        directory,
        f"libvirt:///system?socket={silent}",
        f"libvirt:///session?socket={directory}/none",
        directory / "no-such-directory",
    ]
    monkeypatch.setenv("VMCONNECT_HYPERVISORS", " ".join(map(str, places)))
    with contextlib.ExitStack() as stack:
        for path in (silent, directory / "stuck.qmp", directory / "stuck.ch"):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen()  # and nobody accepts
        stack.enter_context(qemu(directory, "well"))
        out, err = cli.both("list", "--timeout", "3", code=1)
        names = [line.split()[:2] for line in out.splitlines()[1:]]
        assert names == [["stuck", "unknown"], ["stuck", "unknown"], ["well", "paused"]]
        lines = err.splitlines()
        assert all(line.startswith("vmconnect: ") for line in lines)
        assert len(lines) == 5
        for words in (
            ("qemu:///system", "in time", "systemctl restart"),
            ("qemu:///session", "No such file", "is libvirtd or virtqemud running?"),
            ("no-such-directory", "No such file"),
            ("stuck: ", "another program may hold this monitor"),
            ("stuck: ",),
        ):
            assert any(all(word in line for word in words) for line in lines), (words, lines)
        # A machine that answers is found all the same; one that is nowhere may be theirs.
        assert connect("well", 20).machine.name == "well"
        error = cli.fails("power", "wel", "pause", "--timeout", "20")
        assert "known: well" in error
        assert "no answer from qemu:///system" in error


def test_a_name_that_two_machines_bear_is_not_guessed(directory: Path, cli: Cli) -> None:
    with (
        serving(FirecrackerModel({}), directory / "web.fc"),
        qemu(directory, "web"),
    ):
        error = cli.fails("power", "web", "pause")
        assert "2 machines are called 'web'" in error
        assert f"qemu:{directory}/web.qmp" in error
        assert f"fc:{directory}/web.fc" in error
        assert "exec -m" not in cli.both("exec", "web", "true", code=255)[1]
        cli("power", f"qemu:{directory}/web.qmp", "resume")
        error = cli.fails("checkpoint", "list", "w*")
        assert "2 machines match 'w*'" in error
        assert "exec -m" not in error
        _, error = cli.both("exec", "w*", "--", "true", code=255)
        assert "2 machines match 'w*'" in error
        assert "exec -m runs on all of them" in error


def test_power(directory: Path, cli: Cli) -> None:
    with qemu(directory, "a1") as one, qemu(directory, "a2") as two, qemu(directory, "b"):
        (told,) = cli.json("power", "b", "on")
        assert told == {
            "name": "b",
            "hypervisor": "qemu",
            "target": f"qemu:{directory}/b.qmp",
            "error": None,
            "action": "on",
            "state": "running",
        }
        assert cli("power", "a*", "resume") == ""
        assert states(cli) == {"a1": "running", "a2": "running", "b": "running"}
        cli("power", "b", "reset")
        cli("power", "b", "pause")
        assert "resume it" in cli.fails("power", "b", "shutdown")
        assert states(cli)["b"] == "paused"
        assert [each["state"] for each in cli.json("power", "a?", "off")] == [None, None]
        assert (one.wait(60), two.wait(60)) == (0, 0)
        assert states(cli) == {"b": "paused"}
        assert "no machine" in cli.fails("power", "a*", "on")


def test_one_that_fails_does_not_keep_the_others_from_it(directory: Path, cli: Cli) -> None:
    with qemu(directory, "a1"), serving(FirecrackerModel({}), directory / "a2.fc"):
        out, err = cli.both("power", "a*", "reset", "--json", code=1)
        one, two = json.loads(out)
        assert (one["error"], one["state"]) == (None, "paused")
        assert "firecracker has no way to reset" in two["error"]
        assert err == f"vmconnect: {two['error']}\n"


def test_an_address_has_no_hypervisor(cli: Cli) -> None:
    assert "as vmconnect list does" in cli.fails("power", "vnc://localhost", "off")


def test_checkpoints(directory: Path, cli: Cli) -> None:
    disk = qcow2(directory / "a.qcow2")
    with qemu(directory, "m", "-drive", f"if=virtio,format=qcow2,file={disk}", stopped=False):
        assert cli("checkpoint", "list", "m").split() == ["NAME", "CREATED", "MEMORY"]
        assert cli.json("checkpoint", "list", "m") == []
        assert cli("checkpoint", "create", "m", "clean") == ""
        named = cli("checkpoint", "create", "m").strip()
        told = cli.json("checkpoint", "list", "m")
        assert [each["name"] for each in told] == ["clean", named]
        assert told[0]["size"] > 0
        table = cli("checkpoint", "list", "m").splitlines()
        assert table[1].split()[0] == "clean"
        assert table[1].endswith("MiB")
        assert cli.json("checkpoint", "apply", "m", "clean") == {
            "machine": "m",
            "action": "apply",
            "checkpoint": "clean",
        }
        cli("checkpoint", "delete", "m", named)
        error = cli.fails("checkpoint", "apply", "m", named)
        assert f"there is no checkpoint '{named}'" in error
        assert "there are: clean" in error
        assert "is no name for a checkpoint" in cli.fails("checkpoint", "create", "m", "a/b")


def test_media(directory: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    image = directory / "disc.iso"
    image.write_bytes(bytes(1 << 16))
    drives = ("-drive", "if=none,id=cd", "-device", "ide-cd,drive=cd,id=cd0")
    with qemu(directory, "m", *drives), qemu(directory, "bare"):
        (drive,) = cli.json("media", "m")
        assert drive["medium"] is None
        monkeypatch.chdir(directory)
        assert cli("media", "m", "insert", "disc.iso") == ""
        rows = [line.split() for line in cli("media", "m").splitlines()]
        assert rows == [["DRIVE", "MEDIUM"], [drive["id"], str(image)]]
        assert "say which" in cli.fails("media", "m", "insert", "nonsense", str(image))
        assert "No such file" in cli.fails("media", "m", "insert", drive["id"], "none.iso")
        told = json.loads(cli("media", "--json", "m", "eject", drive["id"]))
        assert told == [drive]
        assert cli.json("media", "bare") == []
        assert "give it a CD-ROM drive" in cli.fails("media", "bare", "eject")


def test_keys_reach_the_machine(directory: Path, cli: Cli) -> None:
    def asked(command: str) -> str:
        with QmpClient.connect(Unix(str(directory / "m.qmp"))) as monitor:
            return str(monitor.execute("human-monitor-command", command_line=command))

    def flags() -> int:
        return int(asked("xp /1bx 0x417").split()[-1], 16)  # the BIOS's keyboard flags

    with qemu(directory, "m", "-boot", "menu=on", stopped=False):
        # The BIOS takes Caps Lock once its keyboard is set up.
        caps_lock = 0x40
        before = flags() & caps_lock

        def pressed() -> bool:
            cli("keys", "m", "capslock")
            time.sleep(0.2)
            return flags() & caps_lock != before

        until(pressed)
        (told,) = cli.json("keys", "m", "ctrl-alt-delete", "a")
        assert told["keys"] == ["ctrl-alt-delete", "a"]
        assert "no key is called 'nonsense'" in cli.fails("keys", "m", "ctrl-nonsense")


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("ctrl-alt-delete", [0x1D, 0x38, 0xD3]),
        ("a", [0x1E]),
        ("A", [0x2A, 0x1E]),
        ("shift-A", [0x2A, 0x1E]),
        ("-", [0x0C]),
        ("ctrl--", [0x1D, 0x0C]),
    ],
)
def test_a_chord_is_scancodes(text: str, codes: list[int]) -> None:
    assert chord(text) == codes


@pytest.mark.parametrize("text", ["", "ctrl-", "-ctrl", "--", "---", "ctrl-é", "Ω", "ctrl-nokey"])
def test_what_is_no_chord_is_refused(text: str) -> None:
    with pytest.raises(TargetError) as caught:
        chord(text)
    assert caught.value.hint


def test_a_screenshot_needs_no_vnc(directory: Path, cli: Cli) -> None:
    target = directory / "screen.png"
    # With no VNC at all; and with one that wants a password, which nobody knows.
    locked = ("-vnc", f"unix:{directory}/b.vnc,password=on")
    with qemu(directory, "a", "-vga", "std"), qemu(directory, "b", "-vga", "std", *locked):
        cli("screenshot", "a", "-o", str(target))
        with Image.open(target) as image:
            assert image.format == "PNG"
            assert image.width >= 640
        target.unlink()
        cli("screenshot", "--hypervisor", "b", "-o", str(target))
        assert target.stat().st_size > 0
        error = cli.fails("screenshot", "a", "-o", str(directory / "none" / "x.png"))
        assert "No such file" in error
    with serving(FirecrackerModel({}), directory / "c.fc"):
        error = cli.fails("screenshot", "c", "-o", str(target))
        assert "firecracker has no way to screenshot" in error


def test_a_console_that_listens_nowhere_is_handed_over(directory: Path) -> None:
    with qemu(directory, "m", "-vga", "std", "-vnc", "none"), connect("m") as session:
        assert session.machine.console is None
        assert session.console(timeout=60).width >= 640


def test_a_connection_file_is_a_console_and_its_ticket(directory: Path, cli: Cli) -> None:
    target, file = directory / "screen.png", directory / "console.vv"
    with qemu(directory, "m", "-vga", "std", "-vnc", "127.0.0.1:0,to=999,password=on"):
        (machine,) = cli.json("list")
        host, port = machine["console"].split(":")
        with connect("m") as session, hypervisor_of(session.machine) as hypervisor:
            hypervisor.set_console_password(session.machine, "s3cret", soon())

        def written(password: str) -> str:
            text = f"[virt-viewer]\ntype=vnc\nhost={host}\nport={port}\ndelete-this-file=1\n"
            file.write_text(f"{text}password={password}\n", encoding="utf-8")
            return str(file)

        cli("screenshot", written("s3cret"), "-o", str(target))
        assert target.read_bytes().startswith(b"\x89PNG")
        assert not file.exists()
        error = cli.fails("screenshot", written("wr0ng"), "-o", str(target))
        assert "wr0ng" not in error
        error = cli.fails("power", written("s3cret"), "off")
        assert "no hypervisor" in error


@pytest.mark.guest
def test_a_guest_that_is_asked_shuts_down(fresh_machine: type[DemoMachine], cli: Cli) -> None:
    with fresh_machine.start("downer") as demo:
        target = f"qemu:{demo.qmp_path}"
        with connect(target) as session, session.console(timeout=60) as console:
            console.wait_for(lambda it: any("login:" in line for line in it.text() or []), 120)
        (told,) = cli.json("power", target, "shutdown", "--wait")
        assert told["error"] is None
        demo.wait(60)


def test_libvirt(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon of a user's own does all that QEMU alone does."""
    import libvirt

    from tests.hypervisor.test_libvirt import DOMAIN

    with session_daemon() as (address, room):
        room.chmod(0o777)
        monkeypatch.setenv("VMCONNECT_HYPERVISORS", address.target("").rstrip("/"))
        monkeypatch.setenv("XDG_STATE_HOME", str(room / "state"))
        qcow2(room / "web01.qcow2").chmod(0o666)
        connection = libvirt.open(address.uri)
        try:
            connection.defineXML(DOMAIN.format(name="web01", room=room))
        finally:
            connection.close()
        found = {each["name"]: each for each in cli.json("list")}
        assert found["web01"]["state"] == "off"
        target = found["web01"]["target"]
        assert target == address.target("web01")
        try:
            with watching("--json") as watch:
                assert watch.until(event="listed")["target"] == target
                (told,) = cli.json("power", "web01", "on")
                assert told["state"] == "running"
                told = watch.until(event="started")
                assert told["hypervisor"] == "libvirt"
                assert told["identity"] == found["web01"]["uuid"]
            cli("power", target.replace("libvirt:", "qemu:"), "pause")
            cli("power", found["web01"]["uuid"], "resume")
            cli("keys", target, "ctrl-alt-delete")
            cli("screenshot", "--hypervisor", "web01", "-o", str(room / "screen.png"))
            assert (room / "screen.png").read_bytes().startswith(b"\x89PNG")
            cli("checkpoint", "create", "web01", "clean")
            (told,) = cli.json("checkpoint", "list", "web01")
            assert told["name"] == "clean"
            assert told["current"]
            cli("checkpoint", "delete", "web01", "clean")
            assert [each["id"] for each in cli.json("media", "web01")] == ["hdc"]
            (told,) = cli.json("power", "web*", "save")
            assert told["state"] == "saved"
            cli("power", target.replace("web01", "we*"), "on")
            assert "known: web01" in cli.fails("power", target.replace("web01", "wep"), "off")
        finally:
            with Libvirt(address) as hypervisor:
                for machine in hypervisor.look_up("web01", soon()):
                    with contextlib.suppress(Exception):
                        hypervisor.power_off(machine, soon())


class Watching:
    """``vmconnect list --watch``, a process of its own."""

    def __init__(self, *options: str):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vmconnect", "list", "--watch", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
        self._data = b""

    def line(self) -> str:
        assert self.process.stdout
        deadline = soon()
        while b"\n" not in self._data:
            deadline.check("waiting for a line")
            if select.select([self.process.stdout], [], [], 0.2)[0]:
                data = os.read(self.process.stdout.fileno(), 4096)
                assert data, self.process.communicate()[1]
                self._data += data
        line, _, self._data = self._data.partition(b"\n")
        return line.decode()

    def until(self, **wanted: str) -> dict[str, Any]:
        while True:
            told: dict[str, Any] = json.loads(self.line())
            if wanted.items() <= told.items():
                return told

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate()


@contextlib.contextmanager
def watching(*options: str) -> Iterator[Watching]:
    watch = Watching(*options)
    try:
        yield watch
    finally:
        watch.stop()


def test_watch_follows_the_machines(directory: Path, cli: Cli) -> None:
    def events(stem: str) -> tuple[str, str]:
        return "-qmp", f"unix:{directory}/{stem}.events,server=on,wait=off"

    cloud = CloudHypervisorModel({})
    with (
        qemu(directory, "a", *events("a")),
        serving(cloud, directory / "c.ch"),
        watching("--json") as watch,
    ):
        assert watch.until(event="listed")["name"] == "a"
        assert watch.until(event="listed")["name"] == "c"
        cli("power", "a", "resume")
        told = watch.until(event="resumed")
        assert told == {
            "event": "resumed",
            "name": "a",
            "identity": f"qemu:{directory}/a.qmp",
            "hypervisor": "qemu",
        }
        cloud.state = "Running"
        assert watch.until(event="started")["name"] == "c"
        with qemu(directory, "b", *events("b")):
            assert watch.until(event="appeared")["name"] == "b"
        assert watch.until(event="gone")["name"] == "b"


def test_watch_is_a_table_and_lines_for_people(directory: Path, cli: Cli) -> None:
    events = ("-qmp", f"unix:{directory}/a.events,server=on,wait=off")
    with qemu(directory, "a", *events), watching() as watch:
        assert watch.line().split()[:2] == ["NAME", "STATE"]
        assert watch.line().split()[:3] == ["a", "paused", "qemu"]
        cli("power", "a", "resume")
        assert watch.line().split()[1:] == ["a", "resumed"]
        cli("power", "a", "off")
        assert watch.line().split()[1:] == ["a", "stopped"]
        assert watch.line().split()[1:] == ["a", "gone"]


def test_who_watches_the_only_monitor_is_told_what_it_costs(directory: Path) -> None:
    with qemu(directory, "a"), watching("--json") as watch:
        told = watch.until(event="listed")
        assert told["state"] == "paused"
        assert f"unix:{directory}/a.events,server=on" in told["trouble"]
        assert watch.process.stderr
        assert b"a: whoever else asks its monitor has to wait" in watch.process.stderr.readline()


def test_a_libvirt_that_cannot_be_asked_is_told_what_it_needs(
    directory: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMCONNECT_HYPERVISORS", f"{directory} libvirt:///system")
    monkeypatch.setitem(sys.modules, "libvirt", None)
    with qemu(directory, "a"):
        out, err = cli.both("list", code=1)
        assert out.splitlines()[1].split()[0] == "a"
        assert "pip install 'vmconnect[libvirt]'" in err
        cli("power", "a", "pause")


def test_a_hypervisor_that_is_lost_is_told_and_taken_up_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = directory / "vms"
    place.mkdir()
    monkeypatch.setenv("VMCONNECT_HYPERVISORS", str(place))
    with watching("--json") as watch:
        with serving(CloudHypervisorModel({}), place / "c.ch"):
            assert watch.until(name="c")["event"] in {"listed", "appeared"}
        assert watch.until(name="c")["event"] == "gone"
        place.rmdir()
        assert watch.process.stderr
        assert b"No such file" in watch.process.stderr.readline()
        place.mkdir()
        with serving(CloudHypervisorModel({}), place / "c.ch"):
            watch.until(name="c")
