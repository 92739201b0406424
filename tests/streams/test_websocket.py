"""WebSocket: what servers may and may not do, by script; websockify and QEMU in test_websockify."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scripted import END, Script
from vmconnect.deadline import Deadline
from vmconnect.errors import (
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    TargetError,
    VmconnectError,
    WebSocketError,
)
from vmconnect.streams import Tcp, Tls, Unix, WebSocket
from vmconnect.streams.layered import LayeredStream
from vmconnect.streams.websocket import WebSocketLayer

REQUEST = re.compile(
    rb"GET (\S+) HTTP/1.1\r\n.*sec-websocket-key: (\S+)\r\n.*\r\n\r\n", re.IGNORECASE | re.DOTALL
)
MASKED = re.compile(rb"\x82[\x80-\xff].{4}.+", re.DOTALL)
CLOSE = re.compile(rb"\x88\x82.{4}..", re.DOTALL)
ENDPOINT = WebSocket(Unix("/run/web"), "kvm7:5700", "/websockify")


def accept(*headers: bytes) -> bytes:
    """Return a pattern's answer that accepts; %s is for the key's hash."""
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        *(headers or (b"Upgrade: websocket", b"Connection: Upgrade")),
        b"Sec-WebSocket-Accept: %s",
    ]
    return b"\r\n".join([*lines, b"", b""])


def keyed(answer: bytes) -> Script:
    """A server that is asked, and answers so."""

    def said(match: re.Match[bytes]) -> bytes:
        digest = hashlib.sha1(match[2] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()  # noqa: S324 (RFC 6455)
        return answer.replace(b"%s", base64.b64encode(digest))

    return Script() >> REQUEST << said


def frame(first: int, data: bytes = b"", *, length: int | None = None) -> bytes:
    size = len(data) if length is None else length
    if size < 126:
        return struct.pack(">BB", first, size) + data
    if size < 1 << 16:
        return struct.pack(">BBH", first, 126, size) + data
    return struct.pack(">BBQ", first, 127, size) + data


def opened(script: Script, endpoint: WebSocket = ENDPOINT) -> LayeredStream:
    stream = LayeredStream(script, WebSocketLayer(endpoint), str(endpoint))
    stream.establish(Deadline(5))
    return stream


def server(*sent: bytes) -> LayeredStream:
    """Open to a server that accepts, and then sends that."""
    script = keyed(accept())
    for each in sent:
        script << each
    return opened(script)


def test_the_request_says_where_and_what() -> None:
    endpoint = WebSocket(Unix("/w"), "kvm7:5700", "/a?token=t", headers=(("Cookie", "c=1"),))
    asked = WebSocketLayer(endpoint).owed()
    head, *lines = asked.lower().split(b"\r\n")
    assert head == b"get /a?token=t http/1.1"
    assert {b"host: kvm7:5700", b"sec-websocket-protocol: binary", b"cookie: c=1"} <= set(lines)


def test_frames_of_all_sizes_are_one_stream() -> None:
    stream = server(
        frame(0x82, b"abc"),
        frame(0x82),  # empty
        frame(0x02, b"d") + frame(0x8A, b"in between") + frame(0x00, b"e") + frame(0x80, b"f"),
        frame(0x82, bytes(70_000))[:10],  # the beginning of a long one
        bytes(70_000),
        frame(0x88, b"\x03\xe8bye"),
    )
    assert stream.recv(100) == b"abc"
    assert stream.recv(100) == b"def"
    rest = bytearray(80_000)
    assert stream.fill(memoryview(rest)) == 70_000
    assert stream.recv(1) == b""


def test_a_ping_is_answered_and_a_pong_is_not() -> None:
    script = keyed(accept()) << frame(0x8A, b"unasked") + frame(0x89, b"hello") + frame(0x82, b"x")
    script >> re.compile(rb"\x8a\x85.{9}", re.DOTALL) << frame(0x82, b"y")
    stream = opened(script)
    assert stream.recv(1) == b"x"
    assert stream.recv(1) == b"y"
    assert script.done


def test_what_we_send_is_masked() -> None:
    script = keyed(accept()) >> MASKED << frame(0x88, b"\x03\xe8") >> CLOSE
    stream = opened(script)
    stream.sendall(b"secret")
    assert stream.recv(1) == b""
    assert script.done


def test_closing_says_so_once() -> None:
    script = keyed(accept()) >> CLOSE << frame(0x82, b"the rest") + frame(0x88, b"\x03\xe8")
    stream = opened(script)
    stream.shutdown_write()
    stream.shutdown_write()
    assert stream.recv(100) == b"the rest"
    assert stream.recv(1) == b""
    with pytest.raises(ConnectionLostError):
        stream.send(b"x")
    stream.close()
    assert script.done


@pytest.mark.parametrize(
    "bad",
    [
        frame(0x81, b"text"),
        frame(0x83, b"reserved opcode"),
        frame(0xC2, b"reserved bit"),
        frame(0x00, b"continues nothing"),
        frame(0x02, b"a") + frame(0x82, b"new message within"),
        frame(0x09, b"ping in parts"),
        frame(0x89, bytes(126)),
        b"\x82\x83mask" + b"abc",
        b"\x82\xff" + b"\xff" * 8,  # masked, and of 2**64 bytes
        b"\x82\x7f" + b"\xff" * 8,  # of more than 2**63 bytes
        frame(0x88, b"\x03"),
        frame(0x88, b"\x00\x00"),
        frame(0x88, b"\x03\xe8\xff\xfe"),
    ],
)
def test_what_a_server_must_not_send_is_an_error(bad: bytes) -> None:
    stream = server(frame(0x82, b"good") + bad)
    assert stream.recv(4) == b"good"
    for _ in range(2):  # And so it stays.
        with pytest.raises(WebSocketError):
            assert stream.recv(10) == b"a"  # The beginning of a message was good, too.
            stream.recv(10)


def test_the_length_of_a_frame_costs_no_memory() -> None:
    import tracemalloc

    stream = server(frame(0x82, bytes(1000), length=1 << 62), *[bytes(1 << 16)] * 64)
    tracemalloc.start()
    try:
        buffer = memoryview(bytearray(1 << 16))
        assert sum(stream.fill(buffer) for _ in range(64)) == 64 << 16
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (END, ConnectionLostError),
        (frame(0x82, b"abc")[:3] + END, DeadlineError),
        (frame(0x88, b"\x03\xf3no such machine"), ConnectionLostError),
        (frame(0x88, b"\x03\xf3\x1b[31m\n"), ConnectionLostError),
    ],
)
def test_an_end_that_is_none_is_told(sent: bytes, error: type[VmconnectError]) -> None:
    stream = server(sent)
    with pytest.raises(error) as caught:
        while stream.recv(10):
            pass
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "status 404"),
        (b"HTTP/1.1 302 Found\r\nLocation: ws://evil.test/\r\n\r\n", "status 302"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "status 200"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "status 100"),
        (b"RFB 003.008\n", "hung up"),
        (b"RFB 003.008\n\n", "does not speak WebSocket"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "does not speak WebSocket"),
        (accept(b"Upgrade: websocket"), "does not speak WebSocket"),
        (accept(b"Connection: Upgrade"), "does not speak WebSocket"),
        (accept().replace(b"%s", b"AAAA"), "does not speak WebSocket"),
        (accept(b"Upgrade: websocket", b"Connection: \xff"), "does not speak WebSocket"),
        (
            accept(b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Protocol: \xff"),
            "does not speak WebSocket",
        ),
        (
            accept(b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Protocol: chat"),
            "does not speak WebSocket",
        ),
        (
            accept(
                b"Upgrade: websocket",
                b"Connection: Upgrade",
                b"Sec-WebSocket-Extensions: permessage-deflate",
            ),
            "does not speak WebSocket",
        ),
        (b"HTTP/1.1 101 x\r\n" + b"A: b\r\n" * 10_000, "does not speak WebSocket"),
        (b"HTTP/1.1 101 " + b"x" * 100_000, "does not speak WebSocket"),
        (END, "hung up"),
        (b"HTTP/1.1 101 Switch", "hung up"),
    ],
)
def test_whoever_does_not_accept_is_told(answer: bytes, text: str) -> None:
    script = keyed(answer) << END
    with pytest.raises(ConnectError, match=text):
        opened(script)


def test_a_silent_server_meets_the_deadline() -> None:
    with pytest.raises(DeadlineError):
        opened(Script() >> REQUEST)


@given(
    st.lists(st.binary(max_size=40) | st.sampled_from([frame(0x82, b"x"), frame(0x89)]), max_size=6)
)
def test_any_server_is_a_stream_or_an_error_of_ours(sent: list[bytes]) -> None:
    script = keyed(accept())
    for each in sent:
        if each:
            script << each
    script << END
    with contextlib.suppress(VmconnectError):
        stream = opened(script)
        script.deaf = True
        while stream.recv(100):
            pass


@given(st.binary(max_size=300))
def test_any_answer_is_accepted_or_an_error_of_ours(answer: bytes) -> None:
    with contextlib.suppress(VmconnectError):
        opened(keyed(answer) << END if answer else keyed(END))


@pytest.mark.parametrize(
    ("url", "text", "over"),
    [
        ("ws://kvm7", "ws://kvm7/", Tcp("kvm7", 80)),
        ("ws://kvm7:5700/websockify", "ws://kvm7:5700/websockify", Tcp("kvm7", 5700)),
        ("wss://[::1]:6080/a?token=s3cret", "wss://[::1]:6080/a", Tls(Tcp("::1", 6080), "::1")),
        ("wss://kvm7?token=s3cret", "wss://kvm7/", Tls(Tcp("kvm7", 443), "kvm7")),
    ],
)
def test_urls(url: str, text: str, over: object) -> None:
    endpoint = WebSocket.at(url)
    assert str(endpoint) == text
    assert endpoint.over == over
    assert "s3cret" not in str(endpoint) + repr(endpoint)
    assert endpoint.resource.endswith("?token=s3cret") == ("s3cret" in url)


@pytest.mark.parametrize(
    "url",
    [
        "ws://",
        "ws:///path",
        "ws://host:0/",
        "ws://host:x/",
        "ws://user:s3cret@host/",
        "ws://host/a b",
        "ws://host/#fragment",
        "ws://host/é",
        "ws://host/\r\nX: y",
        "http://host/",
        "ws:host",
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(TargetError) as caught:
        WebSocket.at(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "header", [("X", "a\r\nY: b"), ("X\n", "a"), ("X", "é"), ("", "a"), ("a b", "c")]
)
def test_headers_that_would_be_more_than_that(header: tuple[str, str]) -> None:
    with pytest.raises(TargetError):
        WebSocketLayer(WebSocket(Unix("/w"), "h", headers=(header,)))


@pytest.mark.parametrize("host", ["a..b", "x" * 300, "a b", "a\r\nb"])
def test_hosts_that_are_none(host: str) -> None:
    with pytest.raises(TargetError):
        WebSocketLayer(WebSocket(Unix("/w"), host))
