"""The device process, between a machine's rings and programs on the host."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vmconnect.vsock.packet import HEADER_BYTES, Header, Op, Shutdown

from .guest import DEAF, ECHO, NOISE, SINK, SOURCE, Guest
from .rig import CID, ENTRIES, WAIT, Device, Machine

WINDOW = 1 << 16


def connected(device: Device, port: int) -> socket.socket:
    """Connect to a port of the guest's and read the answer."""
    client = device.connect(port)
    answer = b""
    while not answer.endswith(b"\n"):
        byte = client.recv(1)
        assert byte, f"refused after {answer!r}"
        answer += byte
    assert answer.startswith(b"OK ")
    return client


def read_all(client: socket.socket) -> bytes:
    with client.makefile("rb") as stream:
        return stream.read()


def echo(device: Device, data: bytes) -> bytes:
    """Send ``data`` to the guest's echo, from a thread, and return what comes back."""
    with connected(device, ECHO) as client:

        def send() -> None:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        back = read_all(client)
        sender.join()
    return back


def test_ten_megabytes_out_of_the_guest(device: Device, machine: Machine) -> None:
    with Guest(machine), connected(device, SOURCE) as client:
        assert read_all(client) == NOISE


def test_ten_megabytes_into_the_guest_within_its_window(device: Device, machine: Machine) -> None:
    with Guest(machine) as guest, connected(device, SINK) as client:
        client.sendall(NOISE)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client).decode() == hashlib.sha256(NOISE).hexdigest()
    assert 0 < guest.most_outstanding <= WINDOW


def test_fifty_connections_at_once(device: Device, machine: Machine) -> None:
    def one(number: int) -> bool:
        data = random.Random(number).randbytes(50_000)
        return echo(device, data) == data

    with Guest(machine), ThreadPoolExecutor(50) as pool:
        assert all(pool.map(one, range(50)))


def test_the_host_s_end_leaves_the_other_half_open(device: Device, machine: Machine) -> None:
    with connected_by_hand(device, machine) as (client, ports):
        client.shutdown(socket.SHUT_WR)
        header, _ = machine.expect(Op.SHUTDOWN)
        assert header.flags == Shutdown.SEND
        machine.send(Op.RW, *ports, b"still here")
        assert client.recv(100) == b"still here"


def test_the_guest_s_end_leaves_the_other_half_open(device: Device, machine: Machine) -> None:
    with connected_by_hand(device, machine) as (client, ports):
        machine.send(Op.RW, *ports, b"last words")
        machine.send(Op.SHUTDOWN, *ports, flags=Shutdown.SEND)
        assert read_all(client) == b"last words"
        client.sendall(b"understood")
        _, payload = machine.expect(Op.RW)
        assert payload == b"understood"


class connected_by_hand:  # noqa: N801 (a context manager that reads as a function)
    """A connection to port 1000, whose guest's side the test plays."""

    def __init__(self, device: Device, machine: Machine, buf_alloc: int = WINDOW):
        self.device, self.machine, self.buf_alloc = device, machine, buf_alloc

    def __enter__(self) -> tuple[socket.socket, tuple[int, int]]:
        self.client = self.device.connect(1000)
        header, _ = self.machine.expect(Op.REQUEST)
        assert (header.src_cid, header.dst_cid, header.dst_port) == (2, CID, 1000)
        ports = 1000, header.src_port
        self.machine.send(Op.RESPONSE, *ports, buf_alloc=self.buf_alloc)
        assert self.client.recv(100) == b"OK %d\n" % header.src_port
        return self.client, ports

    def __exit__(self, *_: object) -> None:
        self.client.close()


def test_a_guest_without_a_server_refuses(device: Device, machine: Machine) -> None:
    with Guest(machine), device.connect(4) as client:
        assert client.recv(100) == b""


@pytest.mark.parametrize("line", [b"CONNECT\n", b"CONNECT x\n", b"CONNECT -1\n", b"GET / HTTP\n"])
def test_a_client_that_speaks_otherwise_is_hung_up_on(
    device: Device, machine: Machine, line: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(WAIT)
        client.connect(device.uds)
        client.sendall(line)
        assert client.recv(100) == b""
    with Guest(machine):
        assert echo(device, b"on") == b"on"


def test_a_client_without_an_end_of_line_is_hung_up_on(device: Device, machine: Machine) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(WAIT)
        client.connect(device.uds)
        client.sendall(b"x" * 1000)
        with pytest.raises(ConnectionError):
            # The device left bytes unread: that is a reset.
            client.recv(100)


def test_a_client_before_the_guest_is_up_is_refused(device: Device) -> None:
    with device.connect(ECHO) as client:
        assert client.recv(100) == b""


def test_a_guest_that_takes_nothing_stalls_itself_alone(device: Device, machine: Machine) -> None:
    with Guest(machine) as guest, connected(device, DEAF) as stalled:
        stalled.settimeout(0.5)
        with pytest.raises(TimeoutError):
            stalled.sendall(bytes(10_000_000))
        assert guest.most_outstanding == WINDOW
        data = os.urandom(300_000)
        assert echo(device, data) == data


def test_a_program_that_reads_nothing_stalls_itself_alone(device: Device, machine: Machine) -> None:
    with Guest(machine), connected(device, SOURCE) as stalled:
        data = os.urandom(300_000)
        assert echo(device, data) == data
        # And what had been held is all there when it reads at last.
        assert read_all(stalled) == NOISE


def test_a_program_that_leaves_is_noticed(device: Device, machine: Machine) -> None:
    with connected_by_hand(device, machine) as (client, ports):
        client.close()
        header, _ = machine.expect(Op.SHUTDOWN)
        if header.flags != Shutdown.BOTH:
            # First the end of its data is seen; then, at the next byte for it, that nobody reads.
            machine.send(Op.RW, *ports, b"anybody?")
            header, _ = machine.expect(Op.SHUTDOWN, Op.RST)
        assert header.op == Op.RST or header.flags == Shutdown.BOTH


def test_a_program_that_is_deaf_when_the_guest_answers(device: Device, machine: Machine) -> None:
    with device.connect(1000) as client:
        header, _ = machine.expect(Op.REQUEST)
        client.shutdown(socket.SHUT_RD)
        machine.send(Op.RESPONSE, 1000, header.src_port)
        machine.expect(Op.RST)
    with Guest(machine):
        assert echo(device, b"on") == b"on"


def test_the_guest_connects_to_the_host(device: Device, machine: Machine) -> None:
    with socket.socket(socket.AF_UNIX) as listener, Guest(machine) as guest:
        listener.settimeout(WAIT)
        listener.bind(f"{device.uds}_5555")
        listener.listen()
        for guest_port in (40_000, 40_001):
            guest.connect(ECHO, guest_port, 5555)
            with listener.accept()[0] as program:
                program.settimeout(WAIT)
                program.sendall(b"hello" * 1000)
                program.shutdown(socket.SHUT_WR)
                assert read_all(program) == b"hello" * 1000
    os.unlink(f"{device.uds}_5555")  # noqa: PTH108


def test_nobody_listens_on_the_host(device: Device, machine: Machine) -> None:
    machine.send(Op.REQUEST, 40_000, 5555)
    header, _ = machine.expect(Op.RST)
    assert (header.src_port, header.dst_port) == (5555, 40_000)


def test_a_reboot_ends_connections_and_not_the_device(device: Device, machine: Machine) -> None:
    with connected_by_hand(device, machine) as (client, _ports):
        for _reboot in range(3):
            machine.reset()
        assert client.recv(100) == b""
    with Guest(machine):
        assert echo(device, b"again") == b"again"


def test_a_pause_ends_nothing(device: Device, machine: Machine) -> None:
    with connected_by_hand(device, machine) as (client, ports):
        bases = machine.stop()
        client.sendall(b"while it slept")
        machine.start(bases)
        _, payload = machine.expect(Op.RW)
        assert payload == b"while it slept"
        machine.send(Op.RW, *ports, b"good morning", fwd_cnt=len(payload))
        assert client.recv(100) == b"good morning"


def test_the_next_qemu_is_served_after_the_last(device: Device) -> None:
    for _qemu in range(3):
        machine = Machine(device)
        try:
            with Guest(machine):
                assert echo(device, b"hello") == b"hello"
        finally:
            machine.close()


def test_a_probe_uses_up_nothing(device: Device) -> None:
    for _probe in range(20):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(device.socket)
    machine = Machine(device)
    try:
        with Guest(machine):
            assert echo(device, b"hello") == b"hello"
    finally:
        machine.close()


def test_credit_lies_cost_the_connection(device: Device, machine: Machine) -> None:
    # More taken than was ever sent.
    with connected_by_hand(device, machine) as (client, ports):
        machine.send(Op.CREDIT_UPDATE, *ports, fwd_cnt=1_000_000)
        machine.expect(Op.RST)
        assert client.recv(100) == b""
    # More sent than our window has room for.
    with connected_by_hand(device, machine) as (client, ports):
        for _packet in range(1000):
            machine.send(Op.RW, *ports, bytes(8000))
            packet = machine.receive(0.0)
            if packet is not None and packet[0].op == Op.RST:
                break
        else:
            pytest.fail("it took it all")
        # What it had taken is still the program's.
        assert read_all(client).strip(b"\0") == b""


def test_packets_that_make_no_sense_get_a_reset(device: Device, machine: Machine) -> None:
    for op in (Op.RW, Op.SHUTDOWN, Op.CREDIT_UPDATE, Op.CREDIT_REQUEST, Op.RESPONSE, 0, 99):
        machine.send(op, 1, 2)
        header, _ = machine.expect(Op.RST)
        assert (header.src_port, header.dst_port) == (2, 1)
    machine.send(Op.RST, 1, 2)  # That is no question.
    with connected_by_hand(device, machine) as (client, ports):
        machine.send(99, *ports)
        machine.expect(Op.RST)
        assert client.recv(100) == b""


def test_a_full_batch_is_not_the_last_that_is_heard(device: Device, machine: Machine) -> None:
    nothing = Header(CID, 2, 1, 2, 0, 1, Op.RST, 0, WINDOW, 0).pack()
    for count in (ENTRIES // 2, 1, ENTRIES // 2 - 1):
        for _packet in range(count):
            machine.transmit(nothing, notify=False)
        machine.transmit_ring.notify()
        machine.wait_transmitted()
        machine.send(Op.RW, 1, 2)
        machine.expect(Op.RST)


def test_wrong_kinds_and_addresses(device: Device, machine: Machine) -> None:
    usual = Header(CID, 2, 1, 2, 0, 1, Op.REQUEST, 0, WINDOW, 0)
    machine.transmit(usual._replace(type=2).pack())  # a seqpacket
    header, _ = machine.expect(Op.RST)
    assert header.type == 2
    machine.transmit(usual._replace(src_cid=99).pack())  # a guest of that CID this is not
    machine.transmit(usual._replace(length=1 << 31).pack())  # with no such payload
    machine.transmit(usual.pack()[:20])  # no whole header
    with Guest(machine):
        assert echo(device, b"on") == b"on"


def breakages() -> dict[str, tuple[int, int, int, int, int]]:
    """Return descriptors that no driver writes: address, length, flags, next, and the head."""
    good = 0x10_0000
    return {
        "a loop": (good, 64, 1, 0, 0),
        "outside the memory": (1 << 40, 64, 0, 0, 0),
        "past its end": (good + (4 << 20) - 10, 64, 0, 0, 0),
        "wrapping round": ((1 << 64) - 8, 64, 0, 0, 0),
        "an absurd length": (good, 0xFFFF_FFFF, 0, 0, 0),
        "no length": (good, 0, 0, 0, 0),
        "writable": (good, 64, 2, 0, 0),
        "indirect": (good, 64, 4, 0, 0),
        "next past the table": (good, 64, 1, ENTRIES, 0),
        "head past the table": (good, 64, 0, 0, ENTRIES + 7),
    }


@pytest.mark.parametrize("name", breakages())
def test_broken_descriptors_break_only_their_ring(
    device: Device, machine: Machine, name: str
) -> None:
    address, length, flags, following, head = breakages()[name]
    with connected_by_hand(device, machine) as (client, _ports):
        machine.transmit_ring.describe(0, address, length, flags, following)
        machine.transmit_ring.offer(head)
        machine.transmit_ring.notify()
        assert client.recv(100) == b""
    machine.reset()
    with Guest(machine):
        assert echo(device, b"on") == b"on"


def test_an_available_index_that_jumps(device: Device, machine: Machine) -> None:
    ring = machine.transmit_ring
    with connected_by_hand(device, machine) as (client, _ports):
        ring.made_available += ENTRIES * 3
        ring.offer(0)
        ring.notify()
        assert client.recv(100) == b""
    machine.reset()
    with Guest(machine):
        assert echo(device, b"on") == b"on"


def test_receive_buffers_too_small_for_a_header(device: Device, machine: Machine) -> None:
    machine.stop()
    machine.receive_ring.forget()
    machine.transmit_ring.forget()
    machine.start()
    ring = machine.receive_ring
    for index in range(ENTRIES):
        ring.describe(index, 0x10_0000 + (1 << 20), HEADER_BYTES - 1, 2, 0)
    with device.connect(1000) as client:
        assert client.recv(100) == b""
    machine.reset()
    with Guest(machine):
        assert echo(device, b"on") == b"on"


@pytest.mark.parametrize("seed", range(6))
def test_a_hostile_guest_s_noise(device: Device, machine: Machine, seed: int) -> None:
    chance = random.Random(seed)
    programs = [device.connect(chance.randrange(10)) for _ in range(8)]
    ring = machine.transmit_ring
    for _round in range(300):
        where = 0x10_0000 + chance.randrange(4 << 20)
        header = Header(
            chance.choice([CID, CID, CID, 2, 0]),
            chance.choice([2, 2, 2, CID, 1 << 60]),
            chance.randrange(12),
            chance.choice([(1 << 30) + chance.randrange(8), chance.randrange(12)]),
            chance.choice([0, 0, 10, 4000, 1 << 31]),
            chance.choice([1, 1, 1, 2, 77]),
            chance.randrange(10),
            chance.randrange(5),
            chance.choice([WINDOW, 0, 0xFFFF_FFFF]),
            chance.choice([0, 1, 0x7FFF_FFFF, 0xFFFF_FFFF]),
        )
        place = (3 << 20) + 64 * chance.randrange(100)
        machine.memory[place : place + HEADER_BYTES] = header.pack()
        index = chance.randrange(ENTRIES)
        ring.describe(
            index,
            chance.choice([0x10_0000 + place, 0x10_0000 + place, where, chance.getrandbits(64)]),
            chance.choice([HEADER_BYTES, HEADER_BYTES, 4096, chance.getrandbits(32)]),
            chance.choice([0, 1, 1, 2, chance.getrandbits(16)]),
            chance.randrange(ENTRIES + 2),
        )
        ring.offer(index)
        ring.notify()
        if chance.random() < 0.05:
            machine.reset()
    for program in programs:
        program.close()
    assert device.process.poll() is None
    machine.reset()
    with Guest(machine):
        assert echo(device, b"on") == b"on"


@pytest.mark.parametrize("seed", range(4))
def test_a_hostile_front_end_s_noise(device: Device, seed: int) -> None:
    chance = random.Random(seed)
    for _front_end in range(15):
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(WAIT)
            control.connect(device.socket)
            for _message in range(20):
                size = chance.choice([0, 8, 8, 16, 40, chance.randrange(600)])
                head = struct.pack("<III", chance.randrange(45), chance.choice([1, 1, 9, 5]), size)
                try:
                    control.sendall(head + chance.randbytes(size))
                except OSError:
                    break
    machine = Machine(device)
    try:
        with Guest(machine):
            assert echo(device, b"on") == b"on"
    finally:
        machine.close()


def run_device(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vmconnect", "vsock-device", *arguments],
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )


@pytest.mark.parametrize(
    ("socket_name", "cid", "told"),
    [
        ("x" * 120, "3", "longer than 107 bytes"),
        ("no/such/directory", "3", "cannot listen at"),
        ("v", "2", "a guest cannot have the CID 2"),
        ("v", "4294967295", "a guest cannot have the CID"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_line(
    room: Path, socket_name: str, cid: str, told: str
) -> None:
    result = run_device("--socket", str(room / socket_name), "--uds", str(room / "u"), "--cid", cid)
    assert result.returncode == 1
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(room.iterdir()) == []


def test_a_live_device_s_sockets_are_not_taken(device: Device, room: Path) -> None:
    for vu, uds in ((device.socket, room / "other"), (room / "other", device.uds)):
        result = run_device("--socket", str(vu), "--uds", str(uds), "--cid", "9")
        assert result.returncode == 1
        assert "another process serves" in result.stderr
    machine = Machine(device)
    try:
        with Guest(machine):
            assert echo(device, b"still ours") == b"still ours"
    finally:
        machine.close()


def test_a_dead_device_s_sockets_are_replaced(room: Path) -> None:
    dead = Device(room)
    dead.process.kill()
    dead.process.communicate()
    assert (room / "vu").exists()
    Device(room).stop()
    assert list(room.iterdir()) == []


def test_it_ends_by_ctrl_c_in_the_midst_of_traffic(room: Path) -> None:
    device = Device(room)
    machine = Machine(device)
    try:
        with Guest(machine), connected(device, SOURCE) as client:
            assert client.recv(1000)
            device.process.send_signal(signal.SIGINT)
            _out, said = device.process.communicate(timeout=WAIT)
        assert (device.process.returncode, said) == (0, b"")
        assert list(room.iterdir()) == []
    finally:
        machine.close()


def test_an_idle_device_sleeps(device: Device, machine: Machine) -> None:
    with connected_by_hand(device, machine):
        before = switches(device)
        time.sleep(1.5)
        # A connection that stands and has nothing to say wakes nobody.
        assert switches(device) - before <= 3


def switches(device: Device) -> int:
    """Return how often the device has gone to sleep (proc(5))."""
    status = Path(f"/proc/{device.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("voluntary_ctxt_switches"))
    return int(line.split()[1])


def test_a_device_without_descriptors_waits_for_some(room: Path) -> None:
    device = Device(room)
    with device.connect(ECHO) as client:
        assert client.recv(100) == b""  # It serves, and has opened what it needs.
    pid = device.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    in_use = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (in_use, before[1]))
    with device.connect(ECHO), socket.socket(socket.AF_UNIX) as probe:
        probe.connect(device.socket)
        used = processor_seconds(device)
        time.sleep(1.0)
        # It does not ask again and again meanwhile.
        assert processor_seconds(device) - used < 0.5
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    machine = Machine(device)
    try:
        with Guest(machine):
            assert echo(device, b"on") == b"on"
    finally:
        machine.close()
    assert b"ulimit -n" in device.stop()


def processor_seconds(device: Device) -> float:
    fields = Path(f"/proc/{device.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_guest_that_breaks_its_rings_all_the_time_floods_no_log(room: Path) -> None:
    device = Device(room)
    machine = Machine(device)
    started = time.monotonic()
    try:
        for _time in range(50):
            with connected_by_hand(device, machine) as (client, _ports):
                machine.transmit_ring.offer(ENTRIES)
                machine.transmit_ring.notify()
                assert client.recv(100) == b""  # It has seen that.
            machine.reset()
        with Guest(machine):
            assert echo(device, b"on") == b"on"
    finally:
        machine.close()
    said = device.stop()
    assert b"the guest broke its vsock rings" in said
    assert said.count(b"\n") <= 1 + (time.monotonic() - started)
