"""SOCKS, the server's side, as scripts: what the client sends, what it hears, what it wants."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.direct.forward.socks import SocksNegotiation, SocksOutcome
from vmconnect.errors import ProtocolError
from vmconnect.streams import Tcp

V4 = b"\4\1\0\x50\x7f\0\0\1me\0"
V4A = b"\4\1\x1f\x90\0\0\0\1\0db.internal\0"
V5_ADDRESS = b"\5\1\0\1\x0a\0\0\1\0\x50"
V5_NAME = b"\5\1\0\3\x03web\0\x50"
V5_SIX = b"\5\1\0\4" + bytes(15) + b"\1\0\x50"
GREETING = b"\5\1\0"
GRANTED_4 = b"\0\x5a" + bytes(6)
GRANTED_5 = b"\5\0\0\1" + bytes(6)


@pytest.mark.parametrize(
    ("said", "heard", "wanted", "granted"),
    [
        (V4, b"", Tcp("127.0.0.1", 80), GRANTED_4),
        (V4A, b"", Tcp("db.internal", 8080), GRANTED_4),
        (GREETING + V5_ADDRESS, b"\5\0", Tcp("10.0.0.1", 80), GRANTED_5),
        (GREETING + V5_NAME, b"\5\0", Tcp("web", 80), GRANTED_5),
        (b"\5\2\2\0" + V5_SIX, b"\5\0", Tcp("::1", 80), GRANTED_5),
    ],
)
@pytest.mark.parametrize("pieces", [1, 3, 1000])
def test_requests(said: bytes, heard: bytes, wanted: Tcp, granted: bytes, pieces: int) -> None:
    negotiation = SocksNegotiation()
    replies = b""
    for start in range(0, len(said), pieces):
        assert negotiation.request is None
        negotiation.feed(said[start : start + pieces])
        replies += negotiation.replies
    assert (negotiation.request, replies) == (wanted, heard)
    assert negotiation.conclude(SocksOutcome.GRANTED) == granted


def test_what_follows_the_request_is_kept() -> None:
    negotiation = SocksNegotiation()
    negotiation.feed(V4 + b"GET / HTTP")
    negotiation.feed(b"/1.0\r\n")
    assert negotiation.early == b"GET / HTTP/1.0\r\n"
    assert negotiation.early == b""


@pytest.mark.parametrize(
    ("said", "heard", "why"),
    [
        (b"GET / HTTP/1.0\r\n", b"", "does not speak SOCKS"),
        (b"\5\1\2", b"\5\xff", "wants to log in"),
        (GREETING + b"\5\2\0\1\0\0\0\0\0\1", b"\5\0\5\7\0\1" + bytes(6), "more than to connect"),
        (GREETING + b"\5\1\0\7\0\0\0\0\0\1", b"\5\0\5\x08\0\1" + bytes(6), "unknown way"),
        (GREETING + b"\5\1\0\3\0\0\x50", b"\5\0\5\1\0\1" + bytes(6), "names no host"),
        (GREETING + b"\5\1\0\3\2a\n\0\x50", b"\5\0\5\1\0\1" + bytes(6), "names no host"),
        (GREETING + V4, b"\5\0", "changes its version"),
        (b"\4\2\0\x50\x7f\0\0\1\0", b"\0\x5b" + bytes(6), "more than to connect"),
        (b"\4\1\0\x50\x7f\0\0\1" + b"u" * 300, b"\0\x5b" + bytes(6), "no end"),
        (b"\4\1\0\x50\0\0\0\1\0" + b"h" * 300, b"\0\x5b" + bytes(6), "no end"),
        (b"\4\1\0\x50\0\0\0\1\0\xff\0", b"\0\x5b" + bytes(6), "names no host"),
    ],
)
def test_what_is_not_served(said: bytes, heard: bytes, why: str) -> None:
    negotiation = SocksNegotiation()
    with pytest.raises(ProtocolError, match=why):
        negotiation.feed(said)
    assert negotiation.replies == heard
    assert negotiation.request is None


# The longest that says all: in version 4 a header and two texts, in 5 a greeting and a request.
ENOUGH = 520


@given(
    st.binary(min_size=ENOUGH, max_size=700) | st.just(b"a" * ENOUGH),
    st.sampled_from([b"", b"\4\1", b"\4\1\0\1\0\0\0\1", b"\5\xff", GREETING]),
)
def test_anything_is_over_soon(data: bytes, start: bytes) -> None:
    negotiation = SocksNegotiation()
    try:
        negotiation.feed(start + data)
    except ProtocolError:
        return
    assert negotiation.request is not None
    assert negotiation.request.host
    assert 0 <= negotiation.request.port <= 65535


@given(st.sampled_from([V4, V4A, GREETING + V5_NAME, GREETING + V5_SIX]), st.binary(max_size=9))
def test_pieces_make_no_difference(said: bytes, rest: bytes) -> None:
    whole, bytewise = SocksNegotiation(), SocksNegotiation()
    whole.feed(said + rest)
    for byte in said + rest:
        bytewise.feed(bytes((byte,)))
    assert whole.request == bytewise.request is not None
    assert whole.early == bytewise.early == rest
    assert whole.replies == bytewise.replies
