"""A hypervisor that hangs, stops, drips or is closed to us: every command ends, and says so."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hypervisor.rest_servers import CloudHypervisorModel, FirecrackerModel, serving
from tests.hypervisor.rig import qemu, soon
from vmconnect.cli import main
from vmconnect.deadline import Deadline
from vmconnect.errors import DeadlineError, VmconnectError
from vmconnect.hypervisor import CloudHypervisor, Firecracker, PowerState, Qemu
from vmconnect.hypervisor.place import Place
from vmconnect.hypervisor.qemu.survey import survey
from vmconnect.session import connect, take_inventory

ROOT = Path(__file__).parents[2]

COMMANDS = [
    ["power", "{}", "reset", "--timeout", "1"],
    ["power", "{}", "shutdown", "--wait", "--timeout", "1"],
    ["checkpoint", "list", "{}", "--timeout", "1"],
    ["checkpoint", "create", "{}", "x", "--timeout", "1"],
    ["checkpoint", "apply", "{}", "x", "--timeout", "1"],
    ["media", "{}", "--timeout", "1"],
    ["keys", "{}", "a", "--timeout", "1"],
    ["screenshot", "{}", "-o", "x.png", "--hypervisor", "--timeout", "1"],
]


@pytest.fixture(autouse=True)
def only_place(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMCONNECT_HYPERVISORS", str(directory))
    monkeypatch.setenv("XDG_STATE_HOME", str(directory / "state"))
    monkeypatch.setenv("DISPLAY", ":99")  # A window would be asked for a machine first.
    monkeypatch.chdir(directory)


@contextlib.contextmanager
def stopped(directory: Path) -> Iterator[str]:
    with qemu(directory, "m", "-vga", "std", "-vnc", f"unix:{directory}/m.vnc") as process:
        process.send_signal(signal.SIGSTOP)
        try:
            yield "m"
        finally:
            process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def slow(model: CloudHypervisorModel | FirecrackerModel, path: Path) -> Iterator[None]:
    model.slow = threading.Event()
    with serving(model, path):
        try:
            yield
        finally:
            model.slow.set()


@contextlib.contextmanager
def silent(directory: Path) -> Iterator[str]:
    """A libvirt daemon that takes calls and never answers."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "libvirt-sock"))
        listener.listen()
        yield f"libvirt:///system/m?socket={directory}/libvirt-sock"


def told(capsys: pytest.CaptureFixture[str], words: list[str], target: str) -> str:
    """Run a command that must fail, and return the one line that it says."""
    assert main([word.format(target) for word in words]) in {1, 255}
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:2]))
@pytest.mark.parametrize("form", ["{}", "qemu:{directory}/{}.qmp"])
def test_a_qemu_that_is_stopped(
    directory: Path, capsys: pytest.CaptureFixture[str], words: list[str], form: str
) -> None:
    with stopped(directory) as name:
        err = told(capsys, words, form.format(name, directory=directory))
    assert "m.qmp" in err or "m:" in err
    assert "in time" in err or "timed out" in err


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_a_libvirt_that_is_silent(
    directory: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with silent(directory) as target:
        err = told(capsys, words, target)
    assert "no answer from qemu:///system" in err
    assert "systemctl restart libvirtd" in err


@pytest.mark.parametrize("words", COMMANDS[:4], ids=lambda words: " ".join(words[:2]))
@pytest.mark.parametrize("kind", ["ch", "fc"])
def test_an_api_that_hangs(
    directory: Path, capsys: pytest.CaptureFixture[str], words: list[str], kind: str
) -> None:
    path = directory / f"m.{kind}"
    with slow(CloudHypervisorModel({}) if kind == "ch" else FirecrackerModel({}), path):
        err = told(capsys, words, f"{kind}:{path}")
    assert str(path) in err
    assert "in time" in err or "timed out" in err


@pytest.mark.parametrize("kind", [CloudHypervisor, Firecracker])
def test_apis_that_hang_do_not_hide_the_others(
    directory: Path, monkeypatch: pytest.MonkeyPatch, kind: type[CloudHypervisor | Firecracker]
) -> None:
    """More hang than there is time for one after the other."""
    monkeypatch.setattr("vmconnect.hypervisor.rest.base._QUERY_TIMEOUT", 0.5)
    with contextlib.ExitStack() as stack:
        for number in range(20):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(directory / f"a{number:02}.{kind.suffix}"))
            listener.listen()
        model = CloudHypervisorModel({}) if kind is CloudHypervisor else FirecrackerModel({})
        stack.enter_context(serving(model, directory / f"z.{kind.suffix}"))
        found = kind(directory).machines(Deadline(4))
    assert len(found) == 21
    assert [each.name for each in found if not each.trouble] == ["z"]


@contextlib.contextmanager
def dripping(path: Path, data: bytes) -> Iterator[None]:
    """A server that says a byte now and then, and never comes to an end."""
    over = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def drip(peer: socket.socket) -> None:
            with peer, contextlib.suppress(OSError):
                while not over.wait(0.02):
                    peer.sendall(data)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    thread = threading.Thread(target=drip, args=listener.accept()[:1])
                    thread.start()
                    threads.append(thread)

        threads = [threading.Thread(target=serve)]
        threads[0].start()
        try:
            yield
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


@pytest.mark.parametrize("data", [b" ", b"\n", b'{"event": "X"}\n'])
def test_a_monitor_that_drips(directory: Path, data: bytes) -> None:
    path = directory / "m.qmp"
    with dripping(path, data):
        with pytest.raises(VmconnectError) as caught:
            Qemu(directory).inspect(path, Deadline(0.3))
        assert isinstance(caught.value, DeadlineError)
        (found,) = survey([path], Place("qemu", directory), soon(), 0.3)
        assert isinstance(found, DeadlineError)


@pytest.mark.parametrize("data", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n"])
@pytest.mark.parametrize("kind", [CloudHypervisor, Firecracker])
def test_an_api_that_drips(
    directory: Path, kind: type[CloudHypervisor | Firecracker], data: bytes
) -> None:
    path = directory / f"m.{kind.suffix}"
    with dripping(path, data), pytest.raises(DeadlineError):
        kind(directory).inspect(path, Deadline(0.3))


def test_files_that_hang_are_no_notes(directory: Path) -> None:
    """A FIFO with no writer holds up whoever opens it."""
    os.mkfifo(directory / "m.json")
    os.mkfifo(directory / "n.qmp")
    with qemu(directory, "m"):
        (machine,) = Qemu(directory).machines(soon())
    assert machine.state is PowerState.PAUSED
    assert machine.note.user is None


def test_a_watch_is_not_held_up(directory: Path) -> None:
    """Monitors that take no calls are listed as held, and those that do are watched."""
    with qemu(directory, "well"), qemu(directory, "stuck") as process:
        process.send_signal(signal.SIGSTOP)
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(BlockingIOError):
                while True:
                    caller = stack.enter_context(socket.socket(socket.AF_UNIX))
                    caller.setblocking(False)
                    caller.connect(str(directory / "stuck.qmp"))
            with Qemu(directory).watch(soon()) as watch:
                found = {machine.name: machine for machine in watch.machines}
        process.send_signal(signal.SIGCONT)
    assert found["well"].state is PowerState.PAUSED
    assert "another program holds its monitor" in str(found["stuck"].trouble)


def test_a_machine_is_found_beside_one_that_hangs(directory: Path) -> None:
    with stopped(directory), qemu(directory, "well"), silent(directory):
        assert connect("well", 30).machine.state is PowerState.PAUSED
        assert {each.name for each in take_inventory(30).machines} == {"m", "well"}


# Names.


NAMING = [
    ["console", "{}"],
    ["exec", "{}", "--", "true"],
    ["record", "{}", "-o", "x.vmrec"],
    *COMMANDS,
]


@pytest.mark.parametrize("words", NAMING, ids=lambda words: " ".join(words[:2]))
def test_a_name_that_is_unknown_lists_who_is_known(
    directory: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with qemu(directory, "web01"), qemu(directory, "db"):
        err = told(capsys, [word.replace("1", "20") for word in words], "wed01")
    assert "no machine is called 'wed01' (known: web01)" in err


@pytest.mark.parametrize("words", NAMING, ids=lambda words: " ".join(words[:2]))
def test_a_name_that_is_ambiguous_lists_who_is_meant(
    directory: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with qemu(directory, "a", "-name", "web"), qemu(directory, "b", "-name", "web"):
        err = told(capsys, [word.replace("1", "20") for word in words], "web")
    assert "2 machines are called 'web'" in err
    for name in ("a", "b"):
        assert f"qemu:{directory}/{name}.qmp" in err


# Permissions.


DENIED = """
import os, sys
# What Python is installed in may not be theirs to read.
import difflib, fnmatch, grp, locale, pwd, select
import vmconnect.cli.exec, vmconnect.cli.list, vmconnect.cli.power, vmconnect.cli.screenshot
import vmconnect.direct, vmconnect.hypervisor.rest, vmconnect.session.journal
import vmconnect.direct.guest, vmconnect.session.server_keys, vmconnect.session.session
import vmconnect.vnc
import vmconnect.vnc.policy, vmconnect.vnc.preference
os.setgroups([]), os.setgid(65534), os.setuid(65534)
os.environ["XDG_STATE_HOME"] = os.environ["HOME"] = "/nonexistent"
os.environ["VMCONNECT_JOURNAL"] = "0"
from vmconnect.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(
    ("words", "socket_name"),
    [
        (["power", "qemu:{}", "reset"], "m.qmp"),
        (["power", "m", "reset"], "m.qmp"),
        (["power", "ch:{}", "reset"], "m.ch"),
        (["power", "fc:{}", "pause"], "m.fc"),
        (["list"], "m.qmp"),
        (["screenshot", "vnc+unix:{}", "-o", "/tmp/x.png"], "m.vnc"),
        (["exec", "vsock-mux{}", "--", "true"], "m.vsock"),
        (["power", "libvirt:///system/m?socket={}", "reset"], "m.libvirt"),
    ],
)
@pytest.mark.parametrize("closed", ["socket", "directory"])
def test_permission_denied_says_which_group_may(
    words: list[str], socket_name: str, closed: str
) -> None:
    with tempfile.TemporaryDirectory(prefix="vmc-") as name, contextlib.ExitStack() as stack:
        room = Path(name)
        room.chmod(0o755)
        inner = room / "inner"
        inner.mkdir(mode=0o755)
        path = inner / socket_name
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen()
        place = path if closed == "socket" else inner
        shutil.chown(place, group="adm")
        place.chmod(0o660 if closed == "socket" else 0o750)
        result = subprocess.run(
            [sys.executable, "-c", DENIED, *(word.format(path) for word in words)],
            env={**os.environ, "VMCONNECT_HYPERVISORS": str(inner)},
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
    assert result.returncode in {1, 255}, result.stderr
    assert "Permission denied" in result.stderr
    assert "the group adm: join it, and log in anew" in result.stderr
    assert result.stderr.count("\n") == 1
