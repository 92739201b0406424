"""vhost-user messages: what goes in comes out, and nonsense is told."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.errors import VhostUserError
from vmconnect.vsock.message import (
    HEADER_BYTES,
    MAX_FDS,
    MAX_PAYLOAD,
    Message,
    MessageParser,
    Region,
    Request,
    encode_reply,
)

U64 = st.integers(0, 2**64 - 1)


def feed(parser: MessageParser, data: bytes, cuts: list[int]) -> list[Message]:
    """Feed in pieces of at most the next cut, as a socket gives them."""
    found = []
    lengths = iter(cuts)
    while data:
        count = min(parser.wanted, next(lengths, parser.wanted))
        message = parser.feed(data[:count])
        data = data[count:]
        if message is not None:
            found.append(message)
    return found


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**32 - 1), st.sampled_from([1, 9]), st.binary(max_size=MAX_PAYLOAD)
        ),
        max_size=5,
    ),
    st.lists(st.integers(1, 40), max_size=60),
)
def test_messages_survive_any_cut(sent: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    data = b"".join(
        struct.pack("<III", request, flags, len(body)) + body for request, flags, body in sent
    )
    parser = MessageParser()
    assert feed(parser, data, cuts) == [Message(*each) for each in sent]
    assert parser.empty


@given(st.binary(max_size=2000))
def test_noise_is_a_message_or_a_protocol_error(data: bytes) -> None:
    parser = MessageParser()
    with contextlib.suppress(VhostUserError):
        for message in feed(parser, data, []):
            read_every_way(message)


@given(st.integers(0, 50), st.binary(max_size=300))
def test_any_payload_reads_or_is_a_protocol_error(request: int, payload: bytes) -> None:
    read_every_way(Message(request, 1, payload))


def read_every_way(message: Message) -> None:
    assert message.name
    for read in (
        message.u64,
        message.ring_state,
        message.ring_address,
        message.ring_descriptor,
        message.regions,
        message.config_range,
    ):
        with contextlib.suppress(VhostUserError):
            read()


@given(st.lists(st.tuples(U64, U64, U64, U64), max_size=MAX_FDS))
def test_a_memory_table_reads_back(regions: list[tuple[int, int, int, int]]) -> None:
    payload = struct.pack("<II", len(regions), 0)
    payload += b"".join(struct.pack("<QQQQ", *region) for region in regions)
    message = Message(Request.SET_MEM_TABLE, 1, payload)
    assert message.regions() == [Region(*region) for region in regions]


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ((1, 2, 0), "version 2"),
        ((1, 5, 0), "a reply"),
        ((1, 1, MAX_PAYLOAD + 1), "at most"),
        ((1, 1, 0xFFFF_FFFF), "at most"),
    ],
)
def test_headers_that_no_front_end_sends(head: tuple[int, int, int], told: str) -> None:
    with pytest.raises(VhostUserError, match=told):
        MessageParser().feed(struct.pack("<III", *head))


def test_more_regions_than_there_may_be() -> None:
    payload = struct.pack("<II", MAX_FDS + 1, 0) + bytes(32 * (MAX_FDS + 1))
    with pytest.raises(VhostUserError, match="regions"):
        Message(Request.SET_MEM_TABLE, 1, payload).regions()


def test_replies_are_replies() -> None:
    reply = encode_reply(Request.GET_FEATURES, b"12345678")
    assert struct.unpack_from("<III", reply) == (1, 5, 8)
    assert reply[HEADER_BYTES:] == b"12345678"
