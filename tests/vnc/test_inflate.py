"""Streams that go on from part to part, and over from one library to the other."""

import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmconnect.vnc.inflate import InflateError, Inflater

TEXT = b"".join(b"%d bottles of beer on the wall\n" % n for n in range(4000))


def noise(chance: random.Random, size: int) -> bytes:
    """Return bytes that hardly compress, with repetitions from far back."""
    data = bytes(chance.choices(range(48), k=size))
    return data + data[: size // 4]


@given(
    st.integers(0, 1 << 64),
    st.lists(st.sampled_from(["noise", "text", "tiny", "nothing"]), max_size=12),
    st.sampled_from([0, 1, 6, 9]),
    st.sampled_from(
        [zlib.Z_SYNC_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_PARTIAL_FLUSH]
    ),
)
@settings(deadline=None, max_examples=60)
def test_parts_of_all_kinds(seed: int, kinds: list[str], level: int, flush: int) -> None:
    chance = random.Random(seed)
    compress, inflater = zlib.compressobj(level), Inflater()
    for kind in kinds:
        if kind == "noise":
            part = noise(chance, chance.choice([20_000, 60_000, 200_000]))
        elif kind == "text":
            part = TEXT[chance.randrange(50_000) :]
        else:
            part = chance.randbytes(chance.randrange(20)) if kind == "tiny" else b""
        packed = compress.compress(part) + compress.flush(flush)
        assert inflater.inflate(memoryview(packed), len(part)) == part


def test_it_goes_over_and_back() -> None:
    chance = random.Random(1)
    compress, inflater = zlib.compressobj(6), Inflater()
    seen = []
    for part in [TEXT, *[noise(chance, 60_000)] * 3, *[TEXT * 9] * 4]:
        packed = compress.compress(part) + compress.flush(zlib.Z_SYNC_FLUSH)
        assert inflater.inflate(packed, len(part)) == part
        seen.append(inflater._for_noise)
    assert True in seen
    assert seen[0] is seen[-1] is False


@pytest.mark.parametrize("noisy", [False, True])
def test_what_is_wrong(noisy: bool) -> None:
    compress, chance = zlib.compressobj(6), random.Random(2)
    parts = [noise(chance, 60_000) if noisy else TEXT for _ in range(4)]
    packed = [compress.compress(part) + compress.flush(zlib.Z_SYNC_FLUSH) for part in parts]

    def ready() -> Inflater:
        inflater = Inflater()
        for one, part in zip(packed[:3], parts[:3], strict=True):
            inflater.inflate(one, len(part))
        return inflater

    assert ready().inflate(packed[3], len(parts[3])) == parts[3]
    with pytest.raises(InflateError, match="more than"):
        ready().inflate(packed[3], len(parts[3]) - 1)
    with pytest.raises(InflateError, match="more than"):
        ready().inflate(packed[3], 0)
    with pytest.raises(InflateError, match="broken"):
        ready().inflate(b"\x07" + packed[3], len(parts[3]))
    with pytest.raises(InflateError, match="ended"):
        ready().inflate(packed[3] + compress.flush(), len(parts[3]))


def test_a_bomb_is_stopped() -> None:
    bomb = zlib.compress(bytes(1 << 28), 9)
    with pytest.raises(InflateError, match="more than"):
        Inflater().inflate(bomb, 1 << 16)


def test_reset() -> None:
    inflater = Inflater()
    for part in (TEXT, TEXT[:9], TEXT):
        inflater.reset()
        compress = zlib.compressobj()
        packed = compress.compress(part) + compress.flush(zlib.Z_SYNC_FLUSH)
        assert inflater.inflate(packed, len(part)) == part
