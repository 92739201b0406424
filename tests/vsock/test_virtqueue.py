"""Guest memory and rings: checked addresses, whole chains, and nothing believed."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmconnect.errors import VhostUserError, VsockError
from vmconnect.vsock.memory import GuestMemory
from vmconnect.vsock.message import Region, RingAddress
from vmconnect.vsock.virtqueue import MAX_SIZE, Virtqueue

SIZE = 8
# Two regions that touch in the guest's addresses, and one apart.
LOW, HIGH, APART = 0x1000, 0x3000, 0x10_0000
BYTES = 0x2000
USER = 0x7000_0000
DESCRIPTORS, AVAILABLE, USED = 0, 0x400, 0x800


@contextlib.contextmanager
def shared() -> Iterator[tuple[GuestMemory, int]]:
    """Give a guest's memory, and the file that it is."""
    file = os.memfd_create("guest")
    os.ftruncate(file, 3 * BYTES)
    regions = [
        Region(guest, BYTES, USER + number * 0x10_0000, number * BYTES)
        for number, guest in enumerate((LOW, HIGH, APART))
    ]
    try:
        yield GuestMemory(regions, [file] * 3), file
    finally:
        os.close(file)


def ring(memory: GuestMemory, *, writable: bool = False, base: int = 0) -> Virtqueue:
    where = RingAddress(0, 0, USER + DESCRIPTORS, USER + USED, USER + AVAILABLE, 0)
    return Virtqueue(memory, SIZE, where, base, writable=writable)


def describe(file: int, index: int, address: int, length: int, flags: int, following: int) -> None:  # noqa: PLR0917 (a descriptor's fields)
    os.pwrite(
        file, struct.pack("<QIHH", address, length, flags, following), DESCRIPTORS + 16 * index
    )


def offer(file: int, *heads: int) -> None:
    os.pwrite(file, struct.pack(f"<HH{len(heads)}H", 0, len(heads), *heads), AVAILABLE)


@given(st.integers(0, 2**64 - 1) | st.integers(LOW, APART + BYTES), st.integers(0, 2 * BYTES + 9))
def test_an_address_is_those_bytes_or_an_error(address: int, length: int) -> None:
    with shared() as (memory, file):
        content = os.urandom(3 * BYTES)
        os.pwrite(file, content, 0)
        views: list[memoryview] = []
        inside = (
            LOW <= address <= address + length <= HIGH + BYTES
            or APART <= address <= address + length <= APART + BYTES
        )
        if not inside and length:
            with pytest.raises(VsockError):
                memory.collect(views, address, length)
            return
        memory.collect(views, address, length)
        start = address - LOW if address < APART else address - APART + 2 * BYTES
        assert b"".join(views) == (content[start : start + length] if length else b"")


@pytest.mark.parametrize(
    ("region", "told"),
    [
        (Region(0, 0, 0, 0), "no bytes"),
        (Region(0, 3 * BYTES + 1, 0, 0), "past the end of its file"),
        (Region(0, 1 << 63, 0, 0), "past the end of its file"),
        (Region(0, BYTES, 0, (1 << 64) - 1), "memory"),
        (Region((1 << 64) - 1, BYTES, 0, 0), "past the last address"),
        (Region(0, BYTES, (1 << 64) - 1, 0), "past the last address"),
    ],
)
def test_regions_that_cannot_be(region: Region, told: str) -> None:
    with shared() as (_, file), pytest.raises(VhostUserError, match=told):
        GuestMemory([region], [file])


def test_regions_that_overlap() -> None:
    regions = [Region(0, BYTES, 0, 0), Region(BYTES - 1, BYTES, 1 << 40, BYTES)]
    with shared() as (_, file), pytest.raises(VhostUserError, match="overlap"):
        GuestMemory(regions, [file, file])


@given(
    st.lists(st.lists(st.integers(1, 500), min_size=1, max_size=3), min_size=1, max_size=SIZE // 3)
)
def test_chains_come_whole_and_in_order(chains: list[list[int]]) -> None:
    with shared() as (memory, file):
        content = os.urandom(BYTES)
        os.pwrite(file, content, 2 * BYTES)
        place, index, heads, expected = 0, 0, [], []
        for lengths in chains:
            heads.append(index)
            start = place
            for number, length in enumerate(lengths):
                last = number == len(lengths) - 1
                describe(file, index, APART + place, length, 0 if last else 1, index + 1)
                place += length
                index += 1
            expected.append(content[start:place])
        offer(file, *heads)
        queue = ring(memory)
        for head, data in zip(heads, expected, strict=True):
            chain = queue.pop()
            assert chain is not None
            assert chain[0] == head
            assert b"".join(chain[1]) == data
            queue.push(head, 0)
        assert queue.pop() is None
        assert queue.publish()
        flags, index, *used = struct.unpack(
            f"<HH{2 * len(heads)}I", os.pread(file, 4 + 8 * len(heads), USED)
        )
        assert (flags, index) == (0, len(heads))
        assert used[::2] == heads


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**64 - 1) | st.integers(LOW, HIGH),
            st.integers(0, 2**32 - 1) | st.integers(0, 100),
            st.sampled_from([0, 0, 1, 1, 2, 3, 4, 0xFFFF]),
            st.integers(0, SIZE + 1),
        ),
        min_size=SIZE,
        max_size=SIZE,
    ),
    st.integers(0, 2**16 - 1) | st.integers(0, SIZE + 1),
    st.lists(st.integers(0, SIZE + 1), min_size=SIZE, max_size=SIZE),
    st.booleans(),
)
def test_any_ring_gives_the_guest_s_bytes_or_an_error(
    descriptors: list[tuple[int, int, int, int]], index: int, heads: list[int], writable: bool
) -> None:
    with shared() as (memory, file):
        for number, descriptor in enumerate(descriptors):
            describe(file, number, *descriptor)
        os.pwrite(file, struct.pack(f"<HH{SIZE}H", 0, index, *heads), AVAILABLE)
        queue = ring(memory, writable=writable)
        taken = 0
        with contextlib.suppress(VsockError):
            while (chain := queue.pop()) is not None:
                head, views = chain
                assert head < SIZE
                assert 0 < sum(map(len, views)) <= SIZE * 2 * BYTES
                queue.push(head, 0)
                taken += 1
        # The guest can have made no more available than the ring holds.
        assert taken <= SIZE


@pytest.mark.parametrize("size", [0, 3, MAX_SIZE * 2, 1 << 31])
def test_sizes_that_no_ring_has(size: int) -> None:
    with shared() as (memory, _), pytest.raises(VhostUserError, match="entries"):
        Virtqueue(memory, size, RingAddress(0, 0, USER, USER, USER, 0), 0, writable=False)


@pytest.mark.parametrize(
    "place", [(USER + 8, USER, USER), (USER, USER + 2, USER), (USER, USER, USER + 1), (0, 0, 0)]
)
def test_places_where_no_ring_is(place: tuple[int, int, int]) -> None:
    with shared() as (memory, _), pytest.raises(VhostUserError):
        Virtqueue(memory, SIZE, RingAddress(0, 0, *place, 0), 0, writable=False)


def test_kicks_are_wanted_until_there_is_something() -> None:
    with shared() as (memory, file):
        queue = ring(memory)
        assert not queue.want_kicks()
        assert os.pread(file, 2, USED) == b"\0\0"
        queue.suppress_kicks()
        assert os.pread(file, 2, USED) == b"\1\0"
        describe(file, 0, APART, 10, 0, 0)
        offer(file, 0)
        assert queue.want_kicks()
