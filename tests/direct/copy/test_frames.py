"""What goes over the wire, read back, cut and spoilt."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.direct.copy.ahead import FramesAhead
from vmconnect.direct.copy.frames import (
    ATTRIBUTES_BYTES,
    HEADER,
    MAX_PAYLOAD,
    Entry,
    Fault,
    FrameError,
    check_name,
    pack_entry,
    pack_fault,
    unpack_entry,
    unpack_fault,
)
from vmconnect.direct.copy.pipe import Pipe
from vmconnect.direct.copy.reader import BUFFER_BYTES, FrameReader

Reader = type[FrameReader] | type[FramesAhead]

names = st.binary(min_size=1, max_size=255).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in {b".", b".."}
)
attributes = st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=50)), max_size=4)
entries = st.builds(
    Entry,
    st.integers(0, (1 << 32) - 1),
    st.integers(-(10**18), 10**18),
    st.integers(0, (1 << 63) - 1),
    names,
    attributes.map(tuple),
)


def fields(entry: Entry) -> tuple[object, ...]:
    return tuple(getattr(entry, name) for name in Entry.__slots__)


@given(entries, st.binary(max_size=100))
def test_an_entry_reads_back(entry: Entry, rest: bytes) -> None:
    back, left = unpack_entry(memoryview(pack_entry(entry) + rest))
    assert fields(back) == fields(entry)
    assert bytes(left) == rest


@given(entries, st.data())
def test_an_entry_that_is_cut_is_refused(entry: Entry, data: st.DataObject) -> None:
    packed = pack_entry(entry)
    end = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(FrameError):
        unpack_entry(memoryview(packed[:end]))


@given(st.binary(max_size=400))
def test_any_bytes_are_an_entry_with_a_name_that_is_one_or_refused(data: bytes) -> None:
    try:
        entry, _ = unpack_entry(memoryview(data))
    except FrameError:
        return
    assert check_name(entry.name) == entry.name
    assert 0 <= entry.size < 1 << 63


@pytest.mark.parametrize(
    "name", [b"", b".", b"..", b"/", b"/etc", b"a/b", b"../a", b"a\0b", b"x" * 256]
)
def test_what_is_no_name_is_refused(name: bytes) -> None:
    with pytest.raises(FrameError):
        check_name(name)


def test_attributes_that_are_too_many_stay_behind() -> None:
    one = (b"user.a", b"1"), (b"user.b", bytes(ATTRIBUTES_BYTES))
    back, _ = unpack_entry(memoryview(pack_entry(Entry(0, 0, 0, b"n", one))))
    assert back.attributes == one[:1]


@given(st.binary(max_size=300), st.integers(-1000, 1000), st.text(max_size=300))
def test_a_failure_reads_back(path: bytes, number: int, text: str) -> None:
    fault = unpack_fault(memoryview(pack_fault(Fault(path, number, text))))
    assert (fault.path, fault.number) == (path, number)
    assert text.encode("utf-8", "replace").startswith(fault.text.encode()[:990])


@given(st.binary(max_size=100))
def test_any_bytes_are_a_failure_or_refused(data: bytes) -> None:
    with contextlib.suppress(FrameError):
        unpack_fault(memoryview(data))


def cut(data: bytes, sizes: list[int]) -> Callable[[memoryview], int]:
    """Read from the data in pieces of these sizes, over and over."""
    place = turn = 0

    def read_into(view: memoryview) -> int:
        nonlocal place, turn
        piece = data[place : place + min(len(view), sizes[turn % len(sizes)])]
        view[: len(piece)] = piece
        place, turn = place + len(piece), turn + 1
        return len(piece)

    return read_into


def patterned(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


frames = st.lists(
    st.tuples(
        st.integers(0, 255),
        st.one_of(st.binary(max_size=200), st.integers(0, MAX_PAYLOAD).map(patterned)),
    ),
    max_size=12,
)


@pytest.mark.parametrize("reader", [FrameReader, FramesAhead])
@given(frames, st.lists(st.integers(1, 1 << 17), min_size=1, max_size=4))
def test_frames_arrive_however_they_are_cut(
    reader: Reader, sent: list[tuple[int, bytes]], sizes: list[int]
) -> None:
    wire = bytearray()
    out = Pipe(FrameReader(lambda _view: 0).take, lambda *buffers: wire.extend(b"".join(buffers)))
    for kind, payload in sent:
        out.put(kind, payload)
    out.flush()
    frames = reader(cut(bytes(wire), sizes))
    for kind, payload in sent:
        got, back = frames.take()
        assert (got, bytes(back)) == (kind, payload)
    for _again in range(2):
        with pytest.raises(EOFError):
            frames.take()


@pytest.mark.parametrize("reader", [FrameReader, FramesAhead])
def test_a_frame_that_is_too_long_is_refused_before_it_comes(reader: Reader) -> None:
    with pytest.raises(FrameError):
        reader(cut(HEADER.pack(1, MAX_PAYLOAD + 1), [100])).take()


def test_what_is_read_ahead_is_bounded() -> None:
    frame = HEADER.pack(1, MAX_PAYLOAD) + bytes(MAX_PAYLOAD)
    given = 0
    idle = threading.Event()

    def read_into(view: memoryview) -> int:
        nonlocal given
        count = min(len(view), len(frame) - given % len(frame))
        view[:count] = frame[given % len(frame) :][:count]
        given += count
        if given >= 100 * len(frame):
            idle.set()  # It has read on and on.
            return 0
        return count

    FramesAhead(read_into).take()
    assert not idle.wait(1)
    assert given <= 3 * BUFFER_BYTES
