"""The guest agent's protocol, by properties."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.direct.agent.protocol import (
    AgentParser,
    Reply,
    Synced,
    decode_reply,
    encode_request,
    encode_sync,
    most_bytes,
)
from vmconnect.errors import AgentError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=8), JSON, max_size=4)


def fed(parser: AgentParser, data: bytes, sizes: list[int]) -> list[Synced | Reply]:
    """Feed ``data`` in pieces of these sizes, the rest at once."""
    found: list[Synced | Reply] = []
    for size in sizes:
        found += parser.receive(data[:size])
        data = data[size:]
    return found + parser.receive(data)


def line(content: Any) -> bytes:
    return json.dumps(content).encode() + b"\n"


@given(
    stale=st.binary(max_size=60),
    number=st.integers(0, 2**53 - 1),
    replies=st.lists(OBJECTS, max_size=4),
    sizes=st.lists(st.integers(0, 30), max_size=10),
)
def test_ours_is_what_follows_the_mark(
    stale: bytes, number: int, replies: list[dict[str, Any]], sizes: list[int]
) -> None:
    data = stale.replace(b"\xff", b"") + b"\xff" + line({"return": number})
    data += b"".join(map(line, replies))
    assert fed(AgentParser(), data, sizes) == [Synced(number), *map(Reply, replies)]


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_nothing_but_our_error_comes_of_anything(pieces: list[bytes]) -> None:
    parser = AgentParser()
    parser.receive(b"\xff" + line({"return": 1}))
    for piece in pieces:
        try:
            parser.receive(piece)
        except AgentError:
            # It finds its way again by the next mark.
            assert parser.receive(b"rest\xff" + line({"return": 2})) == [Synced(2)]


def test_before_the_mark_nothing_is_kept() -> None:
    parser = AgentParser()
    for _ in range(100):
        assert parser.receive(b"x" * 1000) == []
    assert len(parser._partial) == 0


def test_a_reply_is_bounded() -> None:
    parser = AgentParser(1000)
    parser.receive(b"\xff" + line({"return": 1}))
    with pytest.raises(AgentError, match="longer than"):
        for _ in range(11):
            parser.receive(b"[" * 100)
    assert len(parser._partial) == 0
    long = {"return": "x" * 1500}
    parser.receive(b"\xff" + line({"return": 1}))
    with pytest.raises(AgentError, match="longer than"):
        parser.receive(line(long))
    parser.most_bytes = 2000
    assert parser.receive(b"\xff" + line({"return": 1}) + line(long))[1:] == [Reply(long)]
    with pytest.raises(AgentError, match="longer than"):
        decode_reply("x" * 1001, 1000)


@pytest.mark.parametrize(
    ("command", "most"),
    [
        ("guest-exec-status", 64 << 20),
        ("guest-file-read", 64 << 20),
        ("guest-exec", 1 << 20),
        ("guest-get-fsinfo", 1 << 20),
        ("guest-anything", 1 << 20),
    ],
)
def test_only_what_brings_bytes_may_be_long(command: str, most: int) -> None:
    assert most_bytes(command) == most


@pytest.mark.parametrize("bad", [b"[1]\n", b"7\n", b"{\n", b"\x00\n", b"[" * 100_000 + b"\n"])
def test_what_is_no_reply(bad: bytes) -> None:
    parser = AgentParser()
    parser.receive(b"\xff" + line({"return": 1}))
    with pytest.raises(AgentError, match="reply"):
        parser.receive(bad)
    with pytest.raises(AgentError, match="reply"):
        decode_reply(bad.decode(), 1 << 20)


def test_an_answer_to_another_number_is_no_reply() -> None:
    parser = AgentParser()
    data = b"\xff" + line({"return": 1}) + b'{"half\xff' + line({"return": 2}) + line({"a": 1})
    assert parser.receive(data) == [Synced(1), Synced(2), Reply({"a": 1})]
    assert parser.receive(b"\xff" + line({"return": True})) == []


def test_requests() -> None:
    assert json.loads(encode_request("guest-ping", {})) == {"execute": "guest-ping"}
    sync = encode_sync(7)
    assert sync.startswith(b"\xff")
    assert json.loads(sync[1:]) == {"execute": "guest-sync-delimited", "arguments": {"id": 7}}
    assert encode_request("x", {"a": "é\n"}).count(b"\n") == 1
