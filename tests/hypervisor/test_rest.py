"""Cloud Hypervisor and Firecracker, against servers that follow their documents; HTTP itself."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hypervisor.rest_servers import CloudHypervisorModel, FirecrackerModel, serving
from tests.hypervisor.rig import soon
from vmconnect.errors import (
    CapabilityError,
    ConnectError,
    DeadlineError,
    HypervisorError,
    RestError,
    StateError,
    TargetError,
)
from vmconnect.hypervisor import (
    Capability,
    CloudHypervisor,
    EventKind,
    Firecracker,
    Hypervisor,
    Machine,
    PowerState,
)
from vmconnect.hypervisor.rest.http import Response, ResponseParser
from vmconnect.streams import HybridVsock, Unix

UUID = "0a0b0c0d-0001-4002-8003-000000000004"


@pytest.fixture(autouse=True)
def state_of_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


@pytest.fixture
def disk(directory: Path) -> Path:
    path = directory / "disk.raw"
    path.write_bytes(bytes(4096))
    return path


@pytest.fixture
def ch(directory: Path, disk: Path) -> Iterator[CloudHypervisorModel]:
    model = CloudHypervisorModel(
        {
            "payload": {"kernel": "/boot/vmlinuz"},
            "platform": {"uuid": UUID},
            "disks": [{"path": str(disk)}, {"path": "/cd.iso", "readonly": True}],
            "vsock": {"cid": 3, "socket": "/run/ch.vsock"},
            "serial": {"mode": "Off"},
            "console": {"mode": "Pty", "file": "/dev/pts/9"},
        }
    )
    with serving(model, directory / "cloud.ch"):
        yield model


@pytest.fixture
def fc(directory: Path, disk: Path) -> Iterator[FirecrackerModel]:
    model = FirecrackerModel(
        {
            "drives": [{"drive_id": "root", "path_on_host": str(disk), "is_read_only": False}],
            "vsock": {"guest_cid": 3, "uds_path": "/run/fc.vsock"},
        }
    )
    with serving(model, directory / "fire.fc"):
        yield model


def only(hypervisor: Hypervisor) -> Machine:
    (machine,) = hypervisor.machines(soon())
    return machine


def state(hypervisor: Hypervisor, machine: Machine) -> PowerState:
    return hypervisor.refresh(machine, soon()).state


def test_cloud_hypervisor_s_power(ch: CloudHypervisorModel, directory: Path) -> None:
    hypervisor = CloudHypervisor(directory)
    machine = only(hypervisor)
    assert machine == Machine(
        name="cloud",
        identity=UUID,
        target=f"ch:{directory}/cloud.ch",
        hypervisor="cloud-hypervisor",
        uuid=UUID,
        state=PowerState.OFF,
        guest=HybridVsock("/run/ch.vsock", 22),
        serial=Path("/dev/pts/9"),
    )
    assert hypervisor.look_up(UUID, soon()) == hypervisor.look_up("cl*", soon()) == [machine]
    hypervisor.power_on(machine, soon())
    hypervisor.power_on(machine, soon())  # one that is on is left alone
    hypervisor.pause(machine, soon())
    assert state(hypervisor, machine) is PowerState.PAUSED
    hypervisor.resume(machine, soon())
    hypervisor.reset(machine, soon())
    hypervisor.shut_down(machine, soon())
    assert state(hypervisor, machine) is PowerState.RUNNING
    hypervisor.power_off(machine, soon())
    assert state(hypervisor, machine) is PowerState.OFF
    with pytest.raises(HypervisorError, match=r"cloud: .*vm\.pause was refused: Invalid"):
        hypervisor.pause(machine, soon())
    ch.config = {"payload": {}, "serial": {"mode": "Socket", "socket": "/run/s"}}
    assert only(hypervisor).serial == Unix("/run/s")
    assert only(hypervisor).identity == machine.target


def test_a_shutdown_is_waited_for(ch: CloudHypervisorModel, directory: Path) -> None:
    hypervisor = CloudHypervisor(directory)
    machine = only(hypervisor)
    ch.state = "Running"
    with pytest.raises(DeadlineError, match="cloud"):
        hypervisor.shut_down(machine, soon(0.3), wait=True)

    def off() -> None:
        ch.state = "Shutdown"

    timer = threading.Timer(0.3, off)
    timer.start()
    hypervisor.shut_down(machine, soon(), wait=True)
    assert ch.state == "Shutdown"
    timer.join()


def test_cloud_hypervisor_s_checkpoints(
    ch: CloudHypervisorModel, directory: Path, disk: Path
) -> None:
    hypervisor = CloudHypervisor(directory)
    machine = only(hypervisor)
    hypervisor.power_on(machine, soon())
    hypervisor.create_checkpoint(machine, "one", soon())
    assert ch.state == "Running"
    with pytest.raises(StateError, match="already"):
        hypervisor.create_checkpoint(machine, "one", soon())
    hypervisor.pause(machine, soon())
    hypervisor.create_checkpoint(machine, "two %2F", soon())
    assert ch.state == "Paused"
    first, second = hypervisor.checkpoints(machine, soon())
    assert (first.name, second.name) == ("one", "two %2F")
    assert first.size
    ch.asked.clear()
    hypervisor.resume(machine, soon())
    hypervisor.apply_checkpoint(machine, "one", soon())
    assert [each for each in ch.asked if each != "vm.info"] == [
        "vm.resume",
        "vm.delete",
        "vm.restore",
        "vm.resume",
    ]
    assert ch.state == "Running"
    disk.write_bytes(bytes(8192))
    with pytest.raises(StateError, match=r"disk\.raw has changed since"):
        hypervisor.apply_checkpoint(machine, "one", soon())
    assert ch.state == "Running"
    with pytest.raises(TargetError, match="there are: one, two"):
        hypervisor.apply_checkpoint(machine, "three", soon())
    hypervisor.delete_checkpoint(machine, "one", soon())
    assert [each.name for each in hypervisor.checkpoints(machine, soon())] == ["two %2F"]
    for name in ("one", "..", "."):
        with pytest.raises(TargetError):
            hypervisor.delete_checkpoint(machine, name, soon())
    for name in ("", ".saved", "a/b", "-f", "x" * 65, "a\nb"):
        with pytest.raises(TargetError, match="no name for a checkpoint"):
            hypervisor.create_checkpoint(machine, name, soon())


def test_a_checkpoint_that_fails_leaves_nothing(
    ch: CloudHypervisorModel, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hypervisor = CloudHypervisor(directory)
    machine = only(hypervisor)
    hypervisor.power_on(machine, soon())

    def full(_directory: Path) -> None:
        from tests.hypervisor.rest_servers import RefusalError

        raise RefusalError(500, b'["Error from API","No space left on device"]')

    monkeypatch.setattr(ch, "snapshot", full)
    with pytest.raises(HypervisorError, match="Error from API: No space left"):
        hypervisor.create_checkpoint(machine, "one", soon())
    assert ch.state == "Running"
    assert hypervisor.checkpoints(machine, soon()) == []


def test_cloud_hypervisor_saves_and_takes_up(ch: CloudHypervisorModel, directory: Path) -> None:
    hypervisor = CloudHypervisor(directory)
    machine = only(hypervisor)
    for _ in range(2):
        hypervisor.power_on(machine, soon())
        hypervisor.save(machine, soon())
        assert ch.config is None
        assert only(hypervisor).state is PowerState.SAVED
        assert hypervisor.checkpoints(machine, soon()) == []
    hypervisor.power_on(machine, soon())
    assert only(hypervisor).state is PowerState.RUNNING
    ch.config = None
    assert only(hypervisor).state is PowerState.OFF


def test_firecracker(fc: FirecrackerModel, directory: Path, disk: Path) -> None:
    hypervisor = Firecracker(directory)
    machine = only(hypervisor)
    assert (machine.name, machine.state) == ("fire", PowerState.OFF)
    assert machine.guest == HybridVsock("/run/fc.vsock", 22)
    hypervisor.power_on(machine, soon())
    hypervisor.power_on(machine, soon())
    hypervisor.shut_down(machine, soon())
    hypervisor.pause(machine, soon())
    assert state(hypervisor, machine) is PowerState.PAUSED
    hypervisor.resume(machine, soon())
    hypervisor.create_checkpoint(machine, "one", soon())
    assert fc.state == "Running"
    with pytest.raises(StateError, match="has not started"):
        hypervisor.apply_checkpoint(machine, "one", soon())
    fc.state = "Not started"  # as a fresh process is
    hypervisor.apply_checkpoint(machine, "one", soon())
    assert fc.state == "Running"
    fc.state = "Not started"
    disk.unlink()
    with pytest.raises(StateError, match="has changed since"):
        hypervisor.apply_checkpoint(machine, "one", soon())
    with pytest.raises(HypervisorError, match="not supported in state Not started"):
        hypervisor.pause(machine, soon())
    fc.identity, fc.config = "web01", {"vsock": {"uds_path": "relative.sock"}}
    assert (only(hypervisor).name, only(hypervisor).guest) == ("web01", None)


def test_what_they_lack_is_an_error_that_says_who_has_it(
    ch: CloudHypervisorModel, fc: FirecrackerModel, directory: Path
) -> None:
    del ch, fc
    cloud, fire = CloudHypervisor(directory), Firecracker(directory)
    lacking = r"cloud: cloud-hypervisor has no way to screenshot \(these have: qemu, libvirt\)"
    with pytest.raises(CapabilityError, match=lacking):
        cloud.screenshot(only(cloud), soon())
    for hypervisor in (cloud, fire):
        machine = only(hypervisor)
        calls: dict[Capability, Callable[[Hypervisor, Machine], object]] = {
            Capability.OPEN_CONSOLE: lambda h, m: h.open_console(m, soon()),
            Capability.SEND_KEYS: lambda h, m: h.send_keys(m, [1], soon()),
            Capability.DRIVES: lambda h, m: h.drives(m, soon()),
            Capability.INSERT_MEDIUM: lambda h, m: h.insert_medium(m, directory, soon()),
            Capability.EJECT_MEDIUM: lambda h, m: h.eject_medium(m, soon()),
            Capability.CONSOLE_PASSWORD: lambda h, m: h.set_console_password(m, "x", soon()),
        }
        for capability, call in calls.items():
            assert capability not in hypervisor.capabilities
            with pytest.raises(CapabilityError):
                call(hypervisor, machine)
    assert Capability.RESET not in fire.capabilities
    with pytest.raises(CapabilityError, match="these have: qemu, libvirt, cloud-hypervisor"):
        fire.reset(only(fire), soon())


def test_changes_are_seen_by_looking(ch: CloudHypervisorModel, directory: Path) -> None:
    with CloudHypervisor(directory).watch(soon()) as watch:
        ch.state = "Running"
        assert watch.next(soon()).kind is EventKind.STARTED
        ch.state = "Paused"
        assert watch.next(soon()).kind is EventKind.PAUSED
        ch.state = "Running"
        assert watch.next(soon()).kind is EventKind.RESUMED
        with pytest.raises(DeadlineError):
            watch.next(0.01)


def test_servers_that_hang_or_are_gone(ch: CloudHypervisorModel, directory: Path) -> None:
    hypervisor = CloudHypervisor(directory)
    machine = only(hypervisor)
    ch.slow = threading.Event()
    with pytest.raises(DeadlineError, match="cloud"):
        hypervisor.reset(machine, soon(0.1))
    ch.slow.set()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(directory / "left.ch"))
    assert only(hypervisor).name == "cloud"
    with pytest.raises(ConnectError, match="left"):
        hypervisor.inspect(directory / "left.ch", soon())


@contextlib.contextmanager
def raw_server(path: Path, answer: bytes) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    with peer:
                        peer.recv(1 << 16)
                        peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def ok(body: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"RFB 003.008\n",
        b"RFB 003.008\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (5 << 20),
        b"HTTP/1.1 099 No\r\n\r\n",
        ok("nonsense"),
        ok("[]"),
        ok('{"config": 3}'),
        ok('{"config": {"vsock": []}}'),
        ok("[" * 9000),
    ],
)
def test_nonsense_is_a_protocol_error(directory: Path, answer: bytes) -> None:
    with raw_server(directory / "m.ch", answer):
        with pytest.raises(RestError, match="m: "):
            CloudHypervisor(directory).inspect(directory / "m.ch", soon())
        assert only(CloudHypervisor(directory)).state is PowerState.UNKNOWN


@pytest.mark.parametrize(
    "answer", [ok("{}"), ok('{"id": 3, "state": [], "vsock": {"uds_path": 1}}')]
)
def test_senseless_members_say_nothing(directory: Path, answer: bytes) -> None:
    with raw_server(directory / "m.fc", answer):
        machine = only(Firecracker(directory))
    assert (machine.name, machine.state, machine.guest) == ("m", PowerState.UNKNOWN, None)


@given(st.binary(max_size=300), st.integers(200, 599), st.data())
def test_an_answer_comes_out_however_it_is_cut(
    body: bytes, status: int, data: st.DataObject
) -> None:
    whole = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 %d X\r\nServer: x\r\ncontent-LENGTH: %d\r\n\r\n%b"
    )
    if status in {204, 304}:
        body = b""
    stream = whole % (status, len(body), body)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    parser, response = ResponseParser(), None
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        response = response or parser.receive(stream[start:end])
    assert response == Response(status, body)
    assert response.reason()


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda b: b"HTTP/1.1 200 X\r\n" + b))
def test_garbage_is_refused(data: bytes) -> None:
    parser = ResponseParser()
    with contextlib.suppress(RestError):
        response: Any = parser.receive(data) or parser.receive_end()
        assert 200 <= response.status < 600
        response.reason()
        response.json()
