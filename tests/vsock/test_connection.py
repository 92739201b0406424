"""One connection against a model of the guest: nothing lost, nothing beyond the credit."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vmconnect.errors import VsockError
from vmconnect.vsock.connection import WINDOW, Connection, Key, Owed, State
from vmconnect.vsock.packet import HEADER, HOST_CID, STREAM, Header, Op, Shutdown

CID = 3
KEY = Key(1000, 1 << 30)
U32 = 0xFFFF_FFFF


def packet(op: int, length: int = 0, flags: int = 0, alloc: int = 1 << 16, fwd: int = 0) -> Header:
    return Header(CID, HOST_CID, *KEY, length, STREAM, op, flags, alloc, fwd & U32)


@given(st.tuples(*[st.integers(0, 2**64 - 1)] * 2, *[st.integers(0, 2**32 - 1)] * 3,
                 *[st.integers(0, 2**16 - 1)] * 2, *[st.integers(0, 2**32 - 1)] * 3))  # fmt: skip
def test_headers_read_back(fields: tuple[int, ...]) -> None:
    header = Header._make(fields)
    assert len(header.pack()) == 44
    assert Header._make(HEADER.unpack(header.pack())) == header


class HonestGuest(RuleBasedStateMachine):
    """A guest that keeps the rules, and what each side may then rely on."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = Connection(CID, KEY)
        assert self.connection.next_packet() is not None
        self.connection.receive(packet(Op.RESPONSE, alloc=50_000))
        # A connection's counters wrap after 4 GiB: this one is nearly there.
        start = U32 - 30_000
        for counter in ("_received", "_fwd_cnt", "_told_fwd", "_sent", "_peer_fwd"):
            setattr(self.connection, counter, start)
        self.alloc = 50_000
        self.window, self.told = 0, start  # ours, as the guest was last told
        self.guest_sent = self.guest_taken = self.guest_got = start
        self.held = 0

    def hear(self, header: Header) -> None:
        self.window, self.told = header.buf_alloc, header.fwd_cnt

    @rule(count=st.integers(1, 100_000))
    def guest_sends(self, count: int) -> None:
        if not self.window:
            self.hear(self.connection.header(Op.CREDIT_UPDATE))
        room = self.window - ((self.guest_sent - self.told) & U32)
        count = min(count, room)
        if count:
            self.guest_sent = (self.guest_sent + count) & U32
            self.held += count
            self.connection.receive(self.answer(Op.RW, count))

    @precondition(lambda self: self.held)
    @rule(part=st.floats(0, 1))
    def the_program_reads(self, part: float) -> None:
        count = max(1, int(self.held * part))
        self.held -= count
        self.connection.delivered(count)
        if self.connection.owed & Owed.CREDIT_UPDATE:
            update = self.connection.next_packet()
            assert update is not None
            assert update.op == Op.CREDIT_UPDATE
            self.hear(update)

    @rule(count=st.integers(1, 100_000))
    def the_program_sends(self, count: int) -> None:
        count = min(count, self.connection.credit)
        if count:
            self.hear(self.connection.header(Op.RW, count))
            self.connection.sent(count)
            self.guest_got += count

    @rule(part=st.floats(0, 1))
    def guest_reads(self, part: float) -> None:
        self.guest_taken += int((self.guest_got - self.guest_taken) * part)
        self.connection.receive(self.answer(Op.CREDIT_UPDATE))

    @rule(alloc=st.integers(0, 200_000))
    def guest_changes_its_window(self, alloc: int) -> None:
        self.alloc = alloc
        self.connection.receive(self.answer(Op.CREDIT_UPDATE))

    def answer(self, op: Op, length: int = 0) -> Header:
        return packet(op, length, alloc=self.alloc, fwd=self.guest_taken)

    @invariant()
    def both_ends_agree(self) -> None:
        assert self.connection.state is State.OPEN
        assert self.connection.held == self.held <= WINDOW

    @invariant()
    def the_guest_is_never_overrun_by_what_is_allowed_now(self) -> None:
        under_way = self.guest_got - self.guest_taken
        assert self.connection.credit == max(0, self.alloc - under_way)

    @invariant()
    def nobody_waits_for_ever(self) -> None:
        # Whatever was delivered and not told is less than what the guest may still send.
        untold = self.connection._fwd_cnt - self.told & U32
        if self.window and not self.held and not self.connection.owed & Owed.CREDIT_UPDATE:
            assert untold <= WINDOW // 2


HonestGuest.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
TestHonestGuest = HonestGuest.TestCase

HEADERS = st.builds(
    packet,
    op=st.integers(0, 9),
    length=st.sampled_from([0, 0, 1, 4096, WINDOW, WINDOW + 1, U32]),
    flags=st.integers(0, 5),
    alloc=st.sampled_from([0, 1, 1 << 16, U32]),
    fwd=st.sampled_from([0, 1, 100, 1 << 31, U32]),
)


@settings(max_examples=300)
@given(
    st.booleans(), st.lists(HEADERS | st.sampled_from(["end", "gone", "deaf", "send"]), max_size=25)
)
def test_a_liar_gains_nothing(guest_began: bool, events: list[Header | str]) -> None:
    connection = Connection(CID, KEY, packet(Op.REQUEST) if guest_began else None)
    sent = 0
    for event in events:
        before = connection.state
        try:
            match event:
                case "end":
                    connection.host_end()
                case "gone":
                    connection.host_gone()
                case "deaf":
                    connection.host_deaf()
                case "send":
                    count = min(connection.credit, 1000) if connection.may_send else 0
                    connection.sent(count)
                    sent += count
                case header:
                    assert isinstance(header, Header)
                    connection.receive(header)
        except VsockError:
            assert connection.state is before
        assert connection.held <= WINDOW
        assert 0 <= connection.credit <= U32
        with contextlib.suppress(VsockError):
            owed = connection.next_packet()
            assert owed is None or owed.fwd_cnt == connection._fwd_cnt


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (packet(Op.REQUEST), "while OPEN"),
        (packet(Op.RW, WINDOW + 1), "window"),
        (packet(Op.CREDIT_UPDATE, 1), "with a payload"),
        (packet(Op.SHUTDOWN), "flags"),
        (packet(Op.SHUTDOWN, flags=4), "flags"),
        (packet(Op.CREDIT_UPDATE, fwd=1), "more bytes than were sent"),
    ],
)
def test_lies_are_told_apart(header: Header, told: str) -> None:
    connection = Connection(CID, KEY, packet(Op.REQUEST))
    with pytest.raises(VsockError, match=told):
        connection.receive(header)
    assert connection.state is State.OPEN


def test_data_after_the_end_of_data() -> None:
    connection = Connection(CID, KEY, packet(Op.REQUEST))
    connection.receive(packet(Op.SHUTDOWN, flags=Shutdown.SEND))
    with pytest.raises(VsockError, match="after the guest's end"):
        connection.receive(packet(Op.RW, 1))


def test_credit_is_asked_for_once() -> None:
    connection = Connection(CID, KEY, packet(Op.REQUEST, alloc=0))
    connection.next_packet()
    for _ in range(3):
        connection.ask_for_credit()
    asked = connection.next_packet()
    assert asked is not None
    assert asked.op == Op.CREDIT_REQUEST
    connection.ask_for_credit()
    assert connection.next_packet() is None
    connection.receive(packet(Op.CREDIT_UPDATE))
    assert connection.credit == 1 << 16
