"""The switch between a driver on real rings and real sockets: no byte lost, no credit overdrawn."""

from __future__ import annotations

import contextlib
import gc
import socket
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vmconnect.vsock.connection import WINDOW, Connection
from vmconnect.vsock.packet import HOST_CID, Header, Op, Shutdown

from .driver import Driver
from .guest import NOISE

LISTENED = 5
PORTS = 40_000, LISTENED
U32 = 0xFFFF_FFFF


class Pair:
    """A connection as both its ends see it: how far each way has come."""

    def __init__(self, guest_port: int, program: socket.socket, window: int):
        self.guest_port, self.program, self.window = guest_port, program, window
        self.ports = guest_port, LISTENED
        self.greeted = self.open = self.closed = False
        self.written = self.arrived = self.taken = self.told = 0  # to the guest
        self.sent = self.read = 0  # from the guest
        self.room, self.freed = 0, 0  # the device's window, as the guest was told
        self.program_ended = self.guest_saw_end = self.guest_ended = self.program_saw_end = False

    def bytes_in(self, start: int, count: int) -> bytes:
        return NOISE[self.guest_port * 7 + start :][:count]

    def bytes_out(self, start: int, count: int) -> bytes:
        return NOISE[self.guest_port * 11 + start :][:count]


class Traffic(RuleBasedStateMachine):
    """Honest guests and programs, in any order and at any pace."""

    def __init__(self) -> None:
        super().__init__()
        self.programs: list[socket.socket] = []
        self.driver = Driver(lambda port: self.device_end() if port == LISTENED else None)
        self.pairs: dict[int, Pair] = {}
        self.bases: tuple[int, int] | None = None

    def device_end(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        # Small, so that what the device has to hold is reached soon.
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        ours.setblocking(False)
        self.programs.append(ours)
        return theirs

    def pair(self, program: socket.socket, window: int) -> Pair:
        guest_port = 1000 + len(self.pairs)
        self.pairs[guest_port] = Pair(guest_port, program, window)
        return self.pairs[guest_port]

    def running(self) -> bool:
        return self.bases is None

    def pick(self, which: int) -> Pair:
        return list(self.pairs.values())[which % len(self.pairs)]

    def turn(self) -> None:
        if self.bases is not None:
            self.driver.poller.poll(0)
            return
        while came := self.driver.turn():
            for header, payload in came:
                self.hear(self.pairs[header.dst_port], header, payload)

    def hear(self, pair: Pair, header: Header, payload: bytes) -> None:
        """Do what a guest does with a packet, after it has checked it."""
        pair.ports = header.dst_port, header.src_port
        assert (header.fwd_cnt - pair.freed) & U32 <= pair.sent - pair.freed
        pair.room, pair.freed = header.buf_alloc, header.fwd_cnt
        match header.op:
            case Op.REQUEST:
                pair.open = True
                self.say(pair, Op.RESPONSE)
            case Op.RESPONSE:
                assert not pair.open
                pair.open = True
            case Op.RW:
                assert pair.open
                assert not pair.guest_saw_end
                assert payload == pair.bytes_in(pair.arrived, len(payload))
                pair.arrived += len(payload)
                assert pair.arrived - pair.told <= pair.window, "more than the guest has room for"
            case Op.SHUTDOWN:
                pair.guest_saw_end = True
                assert pair.program_ended
                assert pair.arrived == pair.written, "the end came before all the bytes"
                if header.flags != Shutdown.SEND:
                    # Both have ended their halves, so nothing is left to be said.
                    assert header.flags == Shutdown.BOTH
                    assert pair.guest_ended
                    self.say(pair, Op.RST)
                    pair.closed = True
            case Op.CREDIT_REQUEST:
                self.say(pair, Op.CREDIT_UPDATE)
            case _:
                assert header.op == Op.CREDIT_UPDATE, header

    def say(
        self, pair: Pair, op: Op, payload: bytes = b"", cuts: tuple[int, ...] = (), flags: int = 0
    ) -> None:
        pair.told = pair.taken
        self.driver.send(
            op,
            pair.ports,
            payload,
            cuts=cuts,
            flags=flags,
            buf_alloc=pair.window,
            fwd_cnt=pair.taken,
        )

    @precondition(lambda self: self.running() and len(self.pairs) < 6)
    @rule(window=st.integers(1, 5000))
    def a_program_connects(self, window: int) -> None:
        device_end = self.device_end()
        pair = self.pair(self.programs[-1], window)
        self.driver.switch.accept(device_end)
        pair.program.sendall(b"CONNECT %d\n" % pair.guest_port)
        self.turn()

    @precondition(lambda self: self.running() and len(self.pairs) < 6)
    @rule(window=st.integers(1, 5000))
    def the_guest_connects(self, window: int) -> None:
        guest_port = 1000 + len(self.pairs)
        self.driver.send(Op.REQUEST, (guest_port, LISTENED), buf_alloc=window)
        self.pair(self.programs[-1], window).greeted = True
        self.turn()

    @rule(count=st.integers(1, 20), room=st.integers(1, 4000))
    def the_guest_gives_room(self, count: int, room: int) -> None:
        self.driver.give(count, room)
        self.turn()

    @precondition(lambda self: self.pairs)
    @rule(which=st.integers(0, 5), count=st.integers(1, 20_000))
    def a_program_writes(self, which: int, count: int) -> None:
        pair = self.pick(which)
        if not pair.program_ended:
            with contextlib.suppress(BlockingIOError):
                pair.written += pair.program.send(pair.bytes_in(pair.written, count))
        self.turn()

    @precondition(lambda self: self.pairs)
    @rule(which=st.integers(0, 5), count=st.integers(1, 100_000))
    def a_program_reads(self, which: int, count: int) -> None:
        self.read(self.pick(which), count)
        self.turn()

    def read(self, pair: Pair, count: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while not pair.greeted:
                pair.greeted = pair.program.recv(1) == b"\n"
            data = pair.program.recv(count)
            assert data == pair.bytes_out(pair.read, len(data))
            pair.read += len(data)
            if not data:
                assert pair.guest_ended
                assert pair.read == pair.sent, "the end came before all the bytes"
                pair.program_saw_end = True

    @precondition(lambda self: self.pairs and self.running())
    @rule(
        which=st.integers(0, 5),
        count=st.integers(1, 60_000),
        cuts=st.tuples(*[st.integers(0, 3000)] * 4),
    )
    def the_guest_writes(self, which: int, count: int, cuts: tuple[int, ...]) -> None:
        pair = self.pick(which)
        count = min(count, pair.room - (pair.sent - pair.freed))
        if pair.open and count > 0 and not pair.guest_ended:  # which it has if it is closed
            data = pair.bytes_out(pair.sent, count)
            pair.sent += count
            self.say(pair, Op.RW, data, cuts)
        self.turn()

    @precondition(lambda self: self.pairs and self.running())
    @rule(which=st.integers(0, 5), count=st.integers(1, 5000), tell=st.booleans())
    def the_guest_reads(self, which: int, count: int, tell: bool) -> None:
        pair = self.pick(which)
        pair.taken += min(count, pair.arrived - pair.taken)
        if tell and pair.open and not pair.closed:
            self.say(pair, Op.CREDIT_UPDATE)
        self.turn()

    @precondition(lambda self: self.pairs)
    @rule(which=st.integers(0, 5))
    def a_program_ends(self, which: int) -> None:
        pair = self.pick(which)
        pair.program_ended = True
        pair.program.shutdown(socket.SHUT_WR)
        self.turn()

    @precondition(lambda self: self.pairs and self.running())
    @rule(which=st.integers(0, 5))
    def the_guest_ends(self, which: int) -> None:
        pair = self.pick(which)
        if pair.open and not pair.guest_ended:
            pair.guest_ended = True
            self.say(pair, Op.SHUTDOWN, flags=Shutdown.SEND)
        self.turn()

    @precondition(running)
    @rule()
    def the_machine_is_paused(self) -> None:
        self.bases = self.driver.stop()

    @precondition(lambda self: not self.running())
    @rule()
    def the_machine_goes_on(self) -> None:
        assert self.bases is not None
        self.driver.start(self.bases)
        self.bases = None
        self.turn()

    @invariant()
    def no_more_is_under_way_than_the_windows_hold(self) -> None:
        for pair in self.pairs.values():
            assert 0 <= pair.sent - pair.freed <= WINDOW
            assert pair.arrived <= pair.written
            assert pair.read <= pair.sent

    def teardown(self) -> None:
        """Everybody reads at last: then every byte has arrived, and every end."""
        try:
            if self.bases is not None:
                self.the_machine_goes_on()
            for pair in self.pairs.values():
                pair.window = WINDOW
            for _turn in range(100):
                self.driver.give(100, 4000)
                for pair in self.pairs.values():
                    pair.taken = pair.arrived
                    if pair.open and not pair.closed:
                        self.say(pair, Op.CREDIT_UPDATE)
                    self.read(pair, 1 << 16)
                self.turn()
                if all(map(self.settled, self.pairs.values())):
                    return
            raise AssertionError("something waits for ever")
        finally:
            self.driver.close()
            for program in self.programs:
                program.close()

    @staticmethod
    def settled(pair: Pair) -> bool:
        return (
            pair.open
            and pair.greeted
            and (pair.arrived, pair.read) == (pair.written, pair.sent)
            and (pair.guest_saw_end, pair.program_saw_end) == (pair.program_ended, pair.guest_ended)
        )


Traffic.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=50)
TestTraffic = Traffic.TestCase


class Host:
    """What the guest dials: socket pairs, whose other ends the test keeps."""

    def __init__(self) -> None:
        self.ends: list[socket.socket] = []

    def dial(self, port: int) -> socket.socket | None:
        if port != LISTENED:
            return None
        ours, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        ours.setblocking(False)
        self.ends.append(ours)
        return theirs

    def hang_up(self) -> None:
        for end in self.ends:
            end.close()
        self.ends.clear()


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.hang_up()


@pytest.fixture
def driver(host: Host) -> Iterator[Driver]:
    driver = Driver(host.dial, limit=8)
    yield driver
    driver.close()


def ops(came: list[tuple[Header, bytes]]) -> list[int]:
    return [header.op for header, _ in came]


def alive() -> int:
    return sum(isinstance(each, Connection) for each in gc.get_objects())


def test_a_guest_that_gives_no_room_leaves_nothing_behind(driver: Driver, host: Host) -> None:
    before = alive()
    for guest_port in range(2000):
        driver.send(Op.REQUEST, (guest_port, LISTENED))
        host.ends[-1].sendall(b"bytes that wait for room")
        driver.turn()
        driver.send(Op.RST, (guest_port, LISTENED))
        host.hang_up()
    assert alive() - before <= 1


def test_crumbs_cost_what_they_hold(driver: Driver) -> None:
    driver.give(4, 100)
    driver.send(Op.REQUEST, PORTS)
    driver.send(Op.RW, PORTS, bytes(30_000))  # The program's socket is full now.
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _packet in range(300):
            driver.send(Op.RW, PORTS, bytes(100), cuts=[1] * 99)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 4 * 30_000


def test_data_does_not_overtake_the_answer(
    driver: Driver, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = driver.switch._receive
    assert ring is not None
    look = ring.has_room

    def look_too_early() -> bool:
        """Find no room, just before the guest, on another processor, makes some."""
        found = look()
        driver.give(1, 100)
        return found

    driver.send(Op.REQUEST, PORTS)
    host.ends[-1].sendall(b"quick")
    monkeypatch.setattr(ring, "has_room", look_too_early)
    came = driver.turn()
    monkeypatch.undo()
    assert ops(came + driver.turn()) == [Op.RESPONSE, Op.RW]


def test_a_reset_that_is_owed_does_not_end_the_next_connection(driver: Driver) -> None:
    driver.send(Op.RW, PORTS, b"of a connection that is no more")
    driver.send(Op.REQUEST, PORTS)
    driver.give(4, 100)
    assert ops(driver.turn()) == [Op.RESPONSE]


def test_the_guest_has_half_of_the_connections(driver: Driver, host: Host) -> None:
    driver.give(100, 100)
    for guest_port in range(6):
        driver.send(Op.REQUEST, (guest_port, LISTENED))
    assert ops(driver.turn()) == [Op.RST] * 2 + [Op.RESPONSE] * 4
    # One that it has ended and nobody has read yet is still one of its own.
    driver.send(Op.RW, (0, LISTENED), bytes(30_000))
    driver.send(Op.RST, (0, LISTENED))
    driver.send(Op.REQUEST, (9, LISTENED))
    assert ops(driver.turn()) == [Op.RST]
    while host.ends[0].recv(1 << 16):
        driver.turn()
    driver.send(Op.REQUEST, (10, LISTENED))
    assert ops(driver.turn()) == [Op.RESPONSE]


def test_more_clients_than_the_limit_are_hung_up_on(driver: Driver) -> None:
    ends = []
    for _client in range(9):
        ours, theirs = socket.socketpair()
        driver.switch.accept(theirs)
        ends.append(ours)
    ends[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        ends[0].recv(1)
    assert ends[8].recv(1) == b""
    for end in ends:
        end.close()


def test_buffers_that_are_all_the_same_chain_are_taken_a_few_at_a_time(driver: Driver) -> None:
    ring = driver.receive_ring
    for index in range(128):
        ring.describe(index, 0x10_0000 + (1 << 20), 4096, 3 if index < 127 else 2, index + 1)
    for _head in range(128):
        ring.offer(0)
    driver.send(Op.RW, PORTS, b"to nobody")
    _interrupt, more = driver.switch.receive()
    receive = driver.switch._receive
    assert receive is not None
    assert (more, ring.take()) == (False, (0, 44))
    assert len(receive._buffers) < 128


def test_packets_for_nobody_are_not_remembered_for_ever(driver: Driver) -> None:
    for port in range(3000):
        driver.send(Op.RW, (port, 1), b"x")
    driver.give(128, 10)
    told = 0
    while came := driver.turn():
        assert {header.op for header, _ in came} == {Op.RST}
        assert {header.src_cid for header, _ in came} == {HOST_CID}
        told += len(came)
        driver.give(128, 10)
    assert told == 1024
