"""What every stream promises, of whatever kind: deadlines, half-close, closing, polling."""

from __future__ import annotations

import contextlib
import hashlib
import select
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from vmconnect.errors import ConnectionLostError, DeadlineError, VmconnectError
from vmconnect.streams import Stream

from .far_ends import SECONDS, FarEnd, Pipe

NOISE = hashlib.shake_128(b"streams").digest(3_000_001)
SOON = 0.05


def read_to_end(source: Stream | FarEnd) -> bytes:
    data = bytearray()
    while chunk := source.recv(70_000):
        data += chunk
    return bytes(data)


def readable(stream: Stream, seconds: float) -> bool:
    poller = select.poll()
    poller.register(stream, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def test_it_is_a_stream(pipe: Pipe) -> None:
    assert isinstance(pipe.stream, Stream)
    assert "to" in repr(pipe.stream)


def test_bytes_go_both_ways_at_once(pipe: Pipe) -> None:
    pipe.stream.settimeout(SECONDS)

    def far() -> bytes:
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(pipe.far.sendall, NOISE[::-1])
            got = bytearray()
            while len(got) < len(NOISE):
                got += pipe.far.recv(50_000)
            sent.result(SECONDS)
        return bytes(got)

    with ThreadPoolExecutor(2) as pool:
        theirs = pool.submit(far)
        sent = pool.submit(pipe.stream.sendall, NOISE)
        ours = bytearray(len(NOISE))
        assert pipe.stream.fill(memoryview(ours)) == len(NOISE)
        sent.result(SECONDS)
        assert theirs.result(SECONDS) == NOISE
    assert ours == NOISE[::-1]


def test_a_small_read_leaves_the_rest(pipe: Pipe) -> None:
    pipe.stream.settimeout(SECONDS)
    pipe.far.sendall(b"abcdef")
    assert pipe.stream.recv(1) == b"a"
    buffer = bytearray(2)
    assert pipe.stream.fill(memoryview(buffer)) == 2
    assert buffer == b"bc"
    rest = bytearray(10)
    count = pipe.stream.recv_into(memoryview(rest))
    assert bytes(rest[:count]) == b"def"


def test_our_end_is_told_and_reading_goes_on(pipe: Pipe) -> None:
    pipe.stream.settimeout(SECONDS)
    pipe.stream.sendall(b"question")
    pipe.stream.shutdown_write()
    assert read_to_end(pipe.far) == b"question"
    pipe.far.sendall(b"a long answer" * 10_000)
    pipe.far.finish()
    assert read_to_end(pipe.stream) == b"a long answer" * 10_000
    assert pipe.stream.recv(1) == b""  # And so it stays.


def test_nothing_is_sent_past_our_end(pipe: Pipe) -> None:
    pipe.stream.settimeout(SECONDS)
    pipe.stream.shutdown_write()
    with pytest.raises(ConnectionLostError):
        pipe.stream.sendall(b"x")


def test_the_far_end_s_end_reads_as_no_bytes(pipe: Pipe) -> None:
    pipe.stream.settimeout(SECONDS)
    pipe.far.sendall(b"abc")
    pipe.far.finish()
    buffer = bytearray(10)
    assert pipe.stream.fill(memoryview(buffer)) == 3
    assert pipe.stream.recv_into(memoryview(buffer)) == 0
    assert pipe.stream.fill(memoryview(buffer)) == 0
    assert pipe.stream.recv(1) == b""


def test_reading_meets_its_deadline_and_goes_on(pipe: Pipe) -> None:
    stream = pipe.stream
    stream.settimeout(SOON)
    buffer = memoryview(bytearray(4))
    calls: list[Callable[[], object]] = [
        lambda: stream.recv(1),
        lambda: stream.recv_into(buffer),
        lambda: stream.fill(buffer),
    ]
    for call in calls:
        with pytest.raises(DeadlineError):
            call()
        with pytest.raises(TimeoutError):  # What paramiko waits for.
            call()
    stream.settimeout(0)  # An overdue deadline.
    with pytest.raises(DeadlineError):
        stream.recv(1)
    stream.settimeout(SECONDS)
    pipe.far.sendall(b"late")
    assert stream.fill(buffer) == 4
    assert bytes(buffer) == b"late"


def test_writing_meets_its_deadline(pipe: Pipe) -> None:
    pipe.stream.settimeout(SOON)
    with pytest.raises(DeadlineError):
        pipe.stream.sendall(bytes(64 << 20))


@pytest.mark.parametrize("timeout", [None, SECONDS])
def test_sending_at_once_never_waits_and_loses_nothing(pipe: Pipe, timeout: float | None) -> None:
    """What is not taken is sent later, as whoever is told of it must."""
    pipe.stream.settimeout(timeout)
    data = memoryview(NOISE * 20)
    went = 0
    while count := pipe.stream.send_at_once(data[went : went + 100_000]):
        went += count
    assert went < len(data)  # It is full, and did not wait until it was not.
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(pipe.stream.sendall, data[went:])
        digest, left = hashlib.sha256(), len(data)
        while left:
            got = pipe.far.recv(1 << 20)
            assert got
            digest.update(got)
            left -= len(got)
        rest.result(SECONDS)
    assert digest.digest() == hashlib.sha256(data).digest()


def test_a_part_that_went_is_told(pipe: Pipe) -> None:
    pipe.stream.settimeout(SECONDS)
    sent = pipe.stream.send(b"abc")
    assert 1 <= sent <= 3
    pipe.stream.sendall(b"abc"[sent:])
    got = b""
    while len(got) < 3:
        got += pipe.far.recv(3)
    assert got == b"abc"
    assert pipe.stream.send_at_once(b"") == 0


def outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except VmconnectError as error:
        return error


@pytest.mark.parametrize("timeout", [None, SECONDS])
def test_closing_wakes_readers_and_writers(pipe: Pipe, timeout: float | None) -> None:
    stream = pipe.stream
    stream.settimeout(timeout)
    results: list[object] = []
    writing = threading.Event()

    def write() -> object:
        writing.set()
        stream.sendall(bytes(64 << 20))
        return None

    threads = [
        threading.Thread(target=lambda call=call: results.append(outcome(call)))
        for call in (lambda: stream.recv(1), write)
    ]
    for thread in threads:
        thread.start()
    writing.wait(SECONDS)
    # They wait by now, or will: either way they must hear of it.
    threads[0].join(SOON)
    stream.close()
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert [type(result) for result in results] == [ConnectionLostError] * 2, results


def test_a_closed_stream_says_so(pipe: Pipe) -> None:
    stream = pipe.stream
    assert stream.fileno() >= 0
    stream.close()
    stream.close()
    assert stream.fileno() == -1
    buffer = memoryview(bytearray(1))
    calls: list[Callable[[], object]] = [
        lambda: stream.recv(1),
        lambda: stream.recv_into(buffer),
        lambda: stream.fill(buffer),
        lambda: stream.send(b"x"),
        lambda: stream.sendall(b"x"),
        lambda: stream.send_at_once(b"x"),
        stream.shutdown_write,
    ]
    for call in calls:
        with pytest.raises(ConnectionLostError):
            call()


def test_closing_is_seen_at_the_far_end(pipe: Pipe) -> None:
    # No more than every pipe holds while nobody reads.
    last = NOISE[:20_000]
    pipe.stream.sendall(last)
    pipe.stream.close()
    assert read_to_end(pipe.far) == last


def test_it_can_be_polled(pipe: Pipe) -> None:
    stream = pipe.stream
    stream.settimeout(SECONDS)
    # What TLS says after its handshake is no byte of ours.
    if readable(stream, SOON):
        stream.settimeout(SOON)
        with contextlib.suppress(DeadlineError):
            stream.recv(1)
        stream.settimeout(SECONDS)
    assert not readable(stream, SOON)
    pipe.far.sendall(b"abc")
    assert readable(stream, SECONDS)
    assert stream.recv(1) == b"a"
    assert readable(stream, SECONDS)  # Though the socket below may be empty.
    assert stream.recv(2) == b"bc"
    stream.settimeout(SOON)
    with contextlib.suppress(DeadlineError):
        stream.recv(1)
    assert not readable(stream, SOON)
    pipe.far.finish()
    assert readable(stream, SECONDS)
    stream.settimeout(SECONDS)
    assert stream.recv(1) == b""


def test_bytes_and_the_end_in_one_go_can_be_polled(pipe: Pipe) -> None:
    assert pipe.stream.fileno() >= 0
    pipe.stream.settimeout(SECONDS)
    pipe.far.sendall(b"abc")
    pipe.far.finish()
    got = b""
    while readable(pipe.stream, SECONDS) and (chunk := pipe.stream.recv(10)):
        got += chunk
    assert got == b"abc"


def test_a_far_end_that_vanishes_ends_it(pipe: Pipe, kind: str) -> None:
    pipe.stream.settimeout(SECONDS)
    pipe.far.vanish()
    try:
        assert read_to_end(pipe.stream) == b""
        # Below TLS or WebSocket this would be somebody else's doing.
        assert kind in {"tcp", "unix", "hybrid-vsock", "ssh-unix", "ssh-tcp"}
    except ConnectionLostError:
        pass
    with pytest.raises(ConnectionLostError):
        while True:
            pipe.stream.sendall(bytes(1 << 16))
