"""Many monitors at once: as many as there are, and each as if it were asked alone."""

import contextlib
import json
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hypervisor.monitors import monitors, uuid_of
from tests.hypervisor.rig import qemu, soon
from vmconnect.errors import (
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    HypervisorError,
    QmpError,
    VmconnectError,
)
from vmconnect.hypervisor import Machine, PowerState, Qemu, QmpClient
from vmconnect.hypervisor.place import Place
from vmconnect.hypervisor.qemu.survey import survey
from vmconnect.streams import Unix, Vsock

GREETING = {"QMP": {"version": {}, "capabilities": ["oob"]}}
EVENT = {"event": "RESUME", "timestamp": {}}

ANSWERS: dict[str, Any] = {
    "qmp_capabilities": {},
    "query-uuid": {"UUID": uuid_of(7)},
    "query-name": {"name": "seven"},
    "query-status": {"status": "running"},
    "query-vnc-servers": [{"server": [{"family": "ipv4", "host": "::1", "service": "5907"}]}],
    "/machine/peripheral": [{"name": "vs", "type": "child<vhost-vsock-pci>"}],
    "/machine/peripheral-anon": [{"name": "device[0]", "type": "child<virtserialport>"}],
    "query-chardev": [
        {"label": "serial0", "filename": "pty:/dev/pts/9"},
        {"label": "qga", "filename": "disconnected:unix:/run/qga,server=on"},
    ],
    "guest-cid": 77,
    "name": "org.qemu.guest_agent.0",
    "chardev": "qga",
}
REFUSED = {"error": {"class": "GenericError", "desc": "not today"}}
UNKNOWN = {"error": {"class": "CommandNotFound", "desc": "what?"}}


def test_many_machines_are_all_described(directory: Path) -> None:
    with monitors(directory, 300):
        found = Qemu(directory).machines(soon())
        again = Qemu(directory).machines(soon())
    assert [each.name for each in found] == [f"vm{number:04}" for number in range(1, 301)]
    assert again == found
    last = found[-1]
    assert (last.uuid, last.state) == (uuid_of(300), PowerState.RUNNING)
    assert last.console == Unix(f"{directory}/vm0300.vnc")
    assert last.serial == Unix(f"{directory}/vm0300.serial")
    assert last.trouble is None


def test_few_descriptors_are_enough_for_many_machines(directory: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with monitors(directory, 300):
        free = max(map(int, os.listdir("/proc/self/fd"))) + 1  # noqa: PTH208
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(free + 12, 140), before[1]))
        try:
            found = Qemu(directory).machines(soon())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(found) == 300
    assert not [each for each in found if each.trouble]


def test_many_that_hang_cost_no_more_than_one(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More hang than are asked at the same time, and the last ones are not even dialled."""
    monkeypatch.setattr("vmconnect.hypervisor.qemu.survey._at_once", lambda: 40)
    with monitors(directory, 100) as process:
        process.send_signal(signal.SIGSTOP)
        try:
            found = Qemu(directory).machines(soon(0.2))
        finally:
            process.send_signal(signal.SIGCONT)
    assert [each.state for each in found] == [PowerState.UNKNOWN] * 100
    assert all("in time" in str(each.trouble) for each in found)


def test_some_that_hang_are_named_and_the_others_listed(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmconnect.hypervisor.qemu.qemu._QUERY_TIMEOUT", 0.3)
    with monitors(directory, 20), contextlib.ExitStack() as stack:
        for name in ("a", "vm0010a", "z"):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(directory / f"{name}.qmp"))
            listener.listen()
        found = {each.name: each for each in Qemu(directory).machines(soon())}
    assert len(found) == 23
    assert {name for name, each in found.items() if each.trouble} == {"a", "vm0010a", "z"}
    assert "another program may hold this monitor" in str(found["a"].trouble)


def test_a_monitor_that_takes_no_more_calls_is_no_dead_socket(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU's backlog is one: who comes after the holder and the next is turned away for now."""
    monkeypatch.setattr("vmconnect.hypervisor.qemu.qemu._QUERY_TIMEOUT", 0.2)
    with qemu(directory, "m") as process, contextlib.ExitStack() as stack:
        process.send_signal(signal.SIGSTOP)
        with contextlib.suppress(BlockingIOError):
            while True:
                caller = stack.enter_context(socket.socket(socket.AF_UNIX))
                caller.setblocking(False)
                caller.connect(str(directory / "m.qmp"))
        (found,) = Qemu(directory).machines(soon())
        assert (found.name, found.state) == ("m", PowerState.UNKNOWN)
        with pytest.raises(DeadlineError, match="may be stuck"):
            QmpClient.connect(Unix(str(directory / "m.qmp")), 0.1)
        stack.close()
        process.send_signal(signal.SIGCONT)
        (found,) = Qemu(directory).machines(soon())
        assert found.state is PowerState.PAUSED


def test_one_that_takes_calls_again_is_described(directory: Path) -> None:
    ready = threading.Event()
    with qemu(directory, "m") as process, contextlib.ExitStack() as stack:
        process.send_signal(signal.SIGSTOP)
        with contextlib.suppress(BlockingIOError):
            while True:
                caller = stack.enter_context(socket.socket(socket.AF_UNIX))
                caller.setblocking(False)
                caller.connect(str(directory / "m.qmp"))

        def release() -> None:
            ready.wait(0.2)
            stack.close()
            process.send_signal(signal.SIGCONT)

        thread = threading.Thread(target=release)
        thread.start()
        (found,) = survey([directory / "m.qmp"], Place("qemu", directory), soon(), 60)
        thread.join()
    assert isinstance(found, Machine)
    assert found.state is PowerState.PAUSED


Script = Callable[[str, dict[str, Any]], list[dict[str, Any] | bytes]]


def plain(command: str, asked: dict[str, Any]) -> list[dict[str, Any] | bytes]:
    """Answer as a QEMU with all that can be described."""
    arguments = asked.get("arguments", {})
    key = arguments.get("property") or arguments.get("path") or command
    return [{"return": ANSWERS[key], "id": asked["id"]}]


def but(command: str, *messages: dict[str, Any] | bytes) -> Script:
    """Answer one command otherwise; what has no ``id`` gets the question's."""

    def script(given: str, asked: dict[str, Any]) -> list[dict[str, Any] | bytes]:
        if given != command:
            return plain(given, asked)
        return [
            each if isinstance(each, bytes) or "event" in each else {"id": asked["id"], **each}
            for each in messages
        ]

    return script


def chatty(command: str, asked: dict[str, Any]) -> list[dict[str, Any] | bytes]:
    return [EVENT, *plain(command, asked), EVENT]


def bare(command: str, asked: dict[str, Any]) -> list[dict[str, Any] | bytes]:
    return [{"return": [], "id": asked["id"]}] if command == "qom-list" else plain(command, asked)


@contextlib.contextmanager
def monitor(path: Path, script: Script, greeting: bytes, cut: int) -> Iterator[None]:
    """A monitor that follows a script, its bytes cut into pieces of ``cut``."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve(peer: socket.socket) -> None:
        def say(data: bytes) -> None:
            for start in range(0, len(data), cut):
                peer.sendall(data[start : start + cut])

        say(greeting)
        for line in peer.makefile("rb"):
            asked = json.loads(line)
            for message in script(asked["execute"], asked):
                if message == b"":
                    return
                say(message if isinstance(message, bytes) else json.dumps(message).encode())
                say(b"\r\n")

    def run() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer, contextlib.suppress(OSError):
                serve(peer)
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(1 << 16):
                    pass

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def alone(path: Path) -> Machine | VmconnectError:
    """Ask as whoever names one machine does."""
    try:
        return Qemu(path.parent).inspect(path, soon())
    except VmconnectError as error:
        return error


@pytest.mark.parametrize("cut", [3, 1 << 16])
@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (plain, Vsock(77, 22)),
        (chatty, Vsock(77, 22)),
        (bare, None),
        (but("query-vnc-servers", UNKNOWN), Vsock(77, 22)),
        (but("query-uuid", REFUSED), HypervisorError),
        (but("qmp_capabilities", REFUSED), HypervisorError),
        (but("qom-get", REFUSED), HypervisorError),
        (but("query-name", {"error": 3}), QmpError),
        (but("query-name", {}), QmpError),
        (but("query-status", {"return": 7}), QmpError),
        (but("query-chardev", b"\x1b[31m{{{"), QmpError),
        (but("query-chardev", b"7"), QmpError),
        (but("query-chardev", b""), ConnectionLostError),
        (but("qom-get", b""), ConnectionLostError),
    ],
)
def test_each_is_asked_as_if_it_were_alone(
    directory: Path, script: Script, outcome: object, cut: int
) -> None:
    """The monitors are the test's own: no QEMU answers like most of these."""
    path = directory / "m.qmp"
    with monitor(path, script, json.dumps(GREETING).encode() + b"\r\n", cut):
        (found,) = survey([path], Place("qemu", directory), soon(), 60)
        expected = alone(path)
    assert type(found) is type(expected)
    assert str(found) == str(expected)
    if isinstance(found, Machine):
        assert found == expected
        assert found.guest == outcome
        assert found.agent == (Unix("/run/qga") if outcome else None)
    else:
        assert isinstance(outcome, type)
        assert isinstance(found, outcome)


@pytest.mark.parametrize("greeting", [b"RFB 003.008\n", b'{"hello": 1}\r\n', b"[]\r\n"])
def test_what_is_no_monitor_is_told(directory: Path, greeting: bytes) -> None:
    path = directory / "m.qmp"
    with monitor(path, plain, greeting, 1 << 16):
        (found,) = survey([path], Place("qemu", directory), soon(), 60)
        expected = alone(path)
    assert isinstance(found, QmpError)
    assert str(found) == str(expected)


def test_an_answer_that_was_not_asked_for_is_an_error(directory: Path) -> None:
    path = directory / "m.qmp"
    for number in (-1, 8, 10**30, "0", None):
        script = but("query-uuid", {"return": {}, "id": number})
        with monitor(path, script, json.dumps(GREETING).encode() + b"\r\n", 1 << 16):
            (found,) = survey([path], Place("qemu", directory), soon(), 60)
        path.unlink()
        assert isinstance(found, QmpError)
        assert "no question" in str(found)


def test_missing_and_dead_sockets(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(directory / "gone.qmp"))
    paths = [directory / "gone.qmp", directory / "none.qmp"]
    assert [type(each) for each in survey(paths, Place("qemu", directory), soon(), 60)] == [
        ConnectError,
        ConnectError,
    ]
    assert survey([], Place("qemu", directory), soon(), 60) == []


def test_nothing_stays_open(directory: Path) -> None:
    path = directory / "m.qmp"
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with monitor(path, but("qom-get", b""), json.dumps(GREETING).encode() + b"\r\n", 9):
        survey([path, path, directory / "none.qmp"], Place("qemu", directory), soon(), 60)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
