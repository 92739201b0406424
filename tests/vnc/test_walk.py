"""The walk over plain rectangles: the compiled one and the Python one do the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmconnect.vnc import _kernel
from vmconnect.vnc import walk as module
from vmconnect.vnc.damage import CAPACITY, DamageList, add_box
from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.walk import BUDGET, Walk, best_walk, walk

from .wire import copyrect, noise, raw, rectangle

WIDTH, HEIGHT = 40, 30
WALKS: list[Walk] = [walk, _kernel.walk]


def run(
    function: Walk, data: bytes, pixels: Pixels, count: int = 65535, start: int = 0
) -> tuple[int, int, list[list[int]]]:
    boxes = np.zeros((CAPACITY, 4), np.int32)
    position, done, used = function(memoryview(data), start, len(data), pixels, boxes, 0, count)
    return position, done, boxes[:used].tolist()


def both(data: bytes, count: int = 65535) -> tuple[int, int, Pixels]:
    """Run both walks on the same bytes, compare, and return what they reached."""
    drawn = noise(WIDTH, HEIGHT), noise(WIDTH, HEIGHT)
    ours, compiled = (run(w, data, p, count) for w, p in zip(WALKS, drawn, strict=True))
    assert ours == compiled
    np.testing.assert_array_equal(*drawn)
    return ours[0], ours[1], drawn[0]


def test_the_compiled_walk_is_used() -> None:
    assert best_walk() is _kernel.walk


def test_it_stops_before_what_is_not_whole() -> None:
    first, second = raw(0, 0, noise(16, 2, 1)), raw(3, 4, noise(5, 6, 2))
    for length in range(len(second)):
        position, done, _ = both(first + second[:length])
        assert (position, done) == (len(first), 1)
    assert both(first + second)[:2] == (len(first + second), 2)


@pytest.mark.parametrize(
    "stranger",
    [
        rectangle(0, 0, 1, 1, 5, bytes(64)),
        rectangle(0, 0, 1, 1, -223, bytes(64)),
        rectangle(0, 0, 1, 1, 0x01000000, bytes(64)),
        raw(WIDTH - 1, 0, noise(2, 1)),
        raw(0, HEIGHT - 1, noise(1, 2)),
        rectangle(65535, 65535, 65535, 65535, 0, bytes(64)),
        copyrect(0, 0, 2, 2, WIDTH - 1, 0),
        copyrect(0, 0, 2, 2, 0, HEIGHT - 1),
        copyrect(0, HEIGHT, 1, 1, 0, 0),
        rectangle(WIDTH, 0, 1, 0, 0),
    ],
)
def test_it_stops_before_what_is_not_plain(stranger: bytes) -> None:
    before = copyrect(0, 0, 4, 4, 8, 8)
    position, done, pixels = both(before + stranger + before)
    assert (position, done) == (len(before), 1)
    expected = noise(WIDTH, HEIGHT)
    expected[:4, :4] = expected[8:12, 8:12]
    np.testing.assert_array_equal(pixels, expected)


def test_it_draws_no_more_than_asked_for() -> None:
    one = raw(0, 0, noise(2, 2, 3))
    assert both(one * 5, count=3)[:2] == (3 * len(one), 3)
    assert both(one, count=0)[:2] == (0, 0)


def test_it_starts_where_it_is_told() -> None:
    data = b"\xff" * 7 + raw(1, 1, noise(3, 3, 4))
    for function in WALKS:
        pixels = noise(WIDTH, HEIGHT)
        position, done, _ = run(function, data, pixels, start=7)
        assert (position, done) == (len(data), 1)
        np.testing.assert_array_equal(pixels[1:4, 1:4], noise(3, 3, 4))


def test_it_asks_after_much_work(monkeypatch: pytest.MonkeyPatch) -> None:
    side = int(BUDGET**0.5) // 2
    data = copyrect(0, 0, side, side, 0, 0) * 9
    pixels = np.zeros((side, side), np.uint32)
    assert run(_kernel.walk, data, pixels)[1] == 4
    monkeypatch.setattr(module, "BUDGET", 4 * 64 * 64)
    assert run(walk, copyrect(0, 0, 64, 64, 0, 0) * 9, pixels)[1] == 4


def test_rows_need_not_follow_each_other() -> None:
    data = raw(2, 3, noise(16, 4, 5)) + copyrect(5, 5, 20, 20, 2, 2) + raw(0, 0, noise(40, 2))
    surfaces = [np.zeros((HEIGHT, WIDTH + 24), np.uint32) for _ in WALKS]
    for function, surface in zip(WALKS, surfaces, strict=True):
        assert run(function, data, surface[:, :WIDTH])[1] == 3
    np.testing.assert_array_equal(surfaces[0], surfaces[1])
    assert not surfaces[0][:, WIDTH:].any()


def test_no_screen_at_all() -> None:
    for function in WALKS:
        pixels = np.zeros((0, 0), np.uint32)
        assert run(function, raw(0, 0, noise(1, 1)), pixels)[:2] == (0, 0)
        assert run(function, rectangle(0, 0, 0, 0, 0), pixels) == (12, 1, [])


def test_the_compiled_walk_checks_its_arguments() -> None:
    boxes = np.zeros((CAPACITY, 4), np.int32)
    pixels = noise(4, 4)
    data = memoryview(bytes(20))
    for start, stop in ((-1, 5), (0, 21), (6, 5)):
        with pytest.raises(ValueError, match="start"):
            _kernel.walk(data, start, stop, pixels, boxes, 0, 1)
    for wrong, used in ((boxes, CAPACITY + 1), (boxes, -1), (boxes[:1], 0), (boxes[:, :3], 0)):
        with pytest.raises(ValueError, match=r"boxes|contiguous"):
            _kernel.walk(data, 0, 20, pixels, wrong, used, 1)
    with pytest.raises(ValueError, match="row"):
        _kernel.walk(data, 0, 20, pixels[:, ::2], boxes, 0, 1)


@pytest.mark.parametrize("dx", [-3, 0, 3])
@pytest.mark.parametrize("dy", [-2, 0, 2])
@pytest.mark.parametrize("size", [(16, 9), (7, 11), (34, 26)])
def test_copies_that_overlap(dx: int, dy: int, size: tuple[int, int]) -> None:
    width, height = size
    expected = noise(WIDTH, HEIGHT)
    source = expected[2 : 2 + height, 3 : 3 + width].copy()
    expected[2 + dy : 2 + dy + height, 3 + dx : 3 + dx + width] = source
    _, done, pixels = both(copyrect(3 + dx, 2 + dy, width, height, 3, 2))
    assert done == 1
    np.testing.assert_array_equal(pixels, expected)


sides = st.integers(0, 20)


@st.composite
def plain(draw: st.DrawFn) -> bytes:
    """A rectangle that is in the screen more often than not."""
    x, y = draw(st.integers(0, WIDTH)), draw(st.integers(0, HEIGHT))
    width, height = draw(st.sampled_from([1, 7, 16, WIDTH])), draw(sides)
    if draw(st.booleans()):
        width, height = min(width, WIDTH - x), min(height, HEIGHT - y)
    if draw(st.booleans()):
        return raw(x, y, noise(width, height, x))
    return copyrect(x, y, width, height, draw(st.integers(0, WIDTH)), draw(sides))


@given(st.lists(plain(), max_size=20).map(b"".join), st.binary(max_size=40))
@settings(deadline=None, max_examples=200)
def test_both_do_the_same(data: bytes, garbage: bytes) -> None:
    both(data + garbage)


boxes_to_add = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 9), st.integers(0, 9)),
    max_size=200,
)


@given(boxes_to_add)
@settings(deadline=None)
def test_damage_covers_what_was_drawn_and_is_bounded(added: list[tuple[int, ...]]) -> None:
    drawn = np.zeros((40, 40), bool)
    damage = DamageList()
    for x, y, width, height in added:
        drawn[y : y + height, x : x + width] = True
        damage.add(x, y, width, height)
    covered = np.zeros((40, 40), bool)
    areas = damage.take()
    for area in areas:
        covered[area.y : area.y + area.height, area.x : area.x + area.width] = True
    assert len(areas) <= CAPACITY
    assert not (drawn & ~covered).any()
    assert damage.take() == ()


def test_damage_is_exact_while_there_is_little() -> None:
    boxes = np.zeros((CAPACITY, 4), np.int32)
    used = 0
    for area in ((0, 0, 16, 16), (16, 0, 16, 16), (0, 16, 32, 2), (100, 100, 3, 3), (1, 1, 2, 2)):
        used = add_box(boxes, used, *area)
    assert boxes[:used].tolist() == [[0, 0, 32, 18], [100, 100, 103, 103]]


def test_much_damage_becomes_one_box() -> None:
    data = b"".join(raw(x, y, noise(1, 1)) for x in range(0, 40, 3) for y in range(0, 30, 3))
    assert both(data)[1] == 140
    boxes = run(_kernel.walk, data, noise(WIDTH, HEIGHT))[2]
    assert 1 <= len(boxes) <= CAPACITY
    assert boxes[0][0] == 0
