"""The walk over rectangles: what the compiled kernel finds, draws, and refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmconnect.errors import ClosedError, RfbError
from vmconnect.vnc import _kernel, walk
from vmconnect.vnc.damage import CAPACITY, DamageList, add_box
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.events import UpdateDone
from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.jobs import JOB, STREAMS, WIRE, Fault, Job, Jobs, Kind
from vmconnect.vnc.layout import Layout
from vmconnect.vnc.numpy_kernel import NumpyKernel
from vmconnect.vnc.pixel_format import OURS
from vmconnect.vnc.walk import Kernel, best_kernel

from .wire import copyrect, hello, noise, raw, rectangle, update

WIDTH, HEIGHT = 40, 30
KERNELS: list[Kernel] = [_kernel, NumpyKernel()]
FORM = _kernel.Format(Layout.of(OURS))
NOTHING = (b"",) * STREAMS
NO_IMAGES = np.zeros(0, np.uint32)


def never(number: int) -> Pixels:
    raise AssertionError(f"job {number} is no picture")


def scan(data: bytes, count: int = 65535, start: int = 0, budget: int = 1 << 24) -> tuple[int, int]:
    jobs = np.zeros(100, JOB)
    table = _kernel.Table(jobs)
    return _kernel.scan(
        memoryview(data), start, len(data), FORM, WIDTH, HEIGHT, table, count, budget
    )[:2]


def table(*jobs: Job) -> Jobs:
    rows = np.zeros(len(jobs), JOB)
    for i, job in enumerate(jobs):
        rows[i] = (*job, (0, 0, 0))
    return rows


def draw(jobs: Jobs, data: bytes = bytes(64), pixels: Pixels | None = None) -> int:
    """Draw and return the fault."""
    screen = noise(WIDTH, HEIGHT) if pixels is None else pixels
    boxes = np.zeros((CAPACITY, 4), np.int32)
    return _kernel.draw(
        memoryview(data),
        FORM,
        _kernel.Table(jobs),
        0,
        len(jobs),
        NOTHING,
        NO_IMAGES,
        screen,
        boxes,
        0,
        0,
        never,
    )[2]


def both(data: bytes, count: int) -> tuple[Pixels, list[UpdateDone]]:
    """Decode an update with both kernels, compare, and return what they drew."""
    results = []
    for kernel in KERNELS:
        engine = Engine(kernel=kernel, pull=False)
        engine.receive(hello(WIDTH, HEIGHT))
        engine.framebuffer.pixels[:] = noise(WIDTH, HEIGHT)
        events = engine.receive(update(data, count=count))
        done = [event for event in events if isinstance(event, UpdateDone)]
        results.append((engine.framebuffer.pixels, done))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    return results[0]


def test_the_compiled_kernel_is_used() -> None:
    assert best_kernel() is _kernel


def test_it_stops_before_what_is_not_whole() -> None:
    first, second = raw(0, 0, noise(16, 2, 1)), raw(3, 4, noise(5, 6, 2))
    for length in range(len(second)):
        assert scan(first + second[:length]) == (len(first), 1)
    assert scan(first + second) == (len(first + second), 2)


@pytest.mark.parametrize(
    "stranger",
    [
        rectangle(0, 0, 1, 1, 99, bytes(64)),
        rectangle(0, 0, 1, 1, -223, bytes(64)),
        rectangle(0, 0, 1, 1, 0x01000000, bytes(64)),
        rectangle(0, 0, 1, 1, 2, b"\0\0\0\2" + bytes(64)),
        rectangle(0, 0, 1, 1, 6, b"\0\1\0\0" + bytes(1 << 16)),
        rectangle(0, 0, 1, 1, 16, b"\0\1\0\0" + bytes(1 << 16)),
        rectangle(0, 0, 9, 9, 7, b"\xb0" + bytes(64)),
        rectangle(0, 0, 9, 9, 7, b"\x40\3" + bytes(64)),
        rectangle(0, 0, 9, 9, 7, b"\xa0\5" + bytes(64)),
        rectangle(0, 0, 9, 9, 7, b"\x00\xff\xff\x01" + bytes(1 << 15)),
        raw(WIDTH - 1, 0, noise(2, 1)),
        raw(0, HEIGHT - 1, noise(1, 2)),
        rectangle(65535, 65535, 65535, 65535, 0, bytes(64)),
        copyrect(0, HEIGHT, 1, 1, 0, 0),
        rectangle(WIDTH, 0, 1, 0, 0),
    ],
)
def test_it_stops_before_what_is_odd(stranger: bytes) -> None:
    before = copyrect(0, 0, 4, 4, 8, 8)
    assert scan(before + stranger + before) == (len(before), 1)


def test_it_finds_no_more_than_asked_for() -> None:
    one = raw(0, 0, noise(2, 2, 3))
    assert scan(one * 5, count=3) == (3 * len(one), 3)
    assert scan(one * 5, count=0) == (0, 0)
    assert scan(one * 5, budget=7) == (2 * len(one), 2)
    assert scan(one * 150) == (100 * len(one), 100)


def test_it_starts_where_it_is_told() -> None:
    data = b"\xff" * 7 + raw(1, 1, noise(3, 3, 4))
    assert scan(data, start=7) == (len(data), 1)


def test_a_stream_that_begins_anew_begins_a_batch() -> None:
    fill, reset = b"\x80\1\2\3", b"\x81\1\2\3"
    one, other = (rectangle(0, 0, 9, 9, 7, body) for body in (fill, reset))
    assert scan(other + one + other) == (2 * len(one), 2)


def test_rows_need_not_follow_each_other() -> None:
    data = raw(2, 3, noise(16, 4, 5)) + copyrect(5, 5, 20, 20, 2, 2) + raw(0, 0, noise(40, 2))
    surfaces = [np.zeros((HEIGHT, WIDTH + 24), np.uint32) for _ in KERNELS]
    for kernel, surface in zip(KERNELS, surfaces, strict=True):
        engine = Engine(kernel=kernel)
        engine.framebuffer._allocate = lambda w, h, surface=surface: surface[:h, :w]  # type: ignore[misc]
        engine.receive(hello(WIDTH, HEIGHT) + update(data, count=3))
    np.testing.assert_array_equal(surfaces[0], surfaces[1])
    assert surfaces[0][:, :WIDTH].any()
    assert not surfaces[0][:, WIDTH:].any()


def job(**fields: int) -> Job:
    plain = Job(0, 0, 64, 0, 0, 0, 0, 4, 4, 0, Kind.PIXELS, WIRE, 0)
    return plain._replace(**fields)  # type: ignore[arg-type]


def test_jobs_are_drawn() -> None:
    assert draw(table(job())) == Fault.FINE
    assert draw(table(job(width=0, start=1 << 40))) == Fault.FINE
    assert draw(table()) == Fault.FINE


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (job(x=WIDTH - 3), Fault.OUTSIDE),
        (job(y=65535, height=65535), Fault.OUTSIDE),
        (job(start=1), Fault.SHORT),
        (job(length=63), Fault.SHORT),
        (job(start=-1), Fault.SHORT),
        (job(length=-1), Fault.SHORT),
        (job(start=1 << 62, length=1 << 62), Fault.SHORT),
        (job(kind=200), Fault.BAD_KIND),
        (job(source=STREAMS), Fault.BAD_KIND),
        (job(source=-2), Fault.BAD_KIND),
        (job(source=0), Fault.SHORT),
        (job(kind=Kind.COPY, length=3), Fault.SHORT),
        (job(kind=Kind.IMAGE), Fault.SHORT),
        (job(kind=Kind.IMAGE, start=-1), Fault.SHORT),
        (job(kind=Kind.BITS, colours=3, palette=60), Fault.SHORT),
        (job(kind=Kind.INDICES, colours=1000), Fault.SHORT),
        (job(kind=Kind.INDICES, colours=3, palette=-9), Fault.SHORT),
        *((job(kind=kind, length=0), Fault.SHORT) for kind in range(2, 13)),
    ],
)
def test_jobs_that_are_wrong_touch_nothing_outside(wrong: Job, fault: Fault) -> None:
    assert draw(table(wrong)) == fault


def test_the_kernel_checks_its_arguments() -> None:
    data, rows = memoryview(bytes(20)), np.zeros(3, JOB)
    jobs = _kernel.Table(rows)
    for start, stop in ((-1, 5), (0, 21), (6, 5)):
        with pytest.raises(ValueError, match="start"):
            _kernel.scan(data, start, stop, FORM, 4, 4, jobs, 1, 1)
        with pytest.raises(ValueError, match="start"):
            _kernel.draw_hextile(data, start, stop, FORM, noise(4, 4), 0, np.zeros(2, np.uint32))
    boxes = np.zeros((CAPACITY, 4), np.int32)
    pixels = noise(4, 4)
    for wrong, used in ((boxes, CAPACITY + 1), (boxes, -1), (boxes[:1], 0), (boxes[:, :3], 0)):
        with pytest.raises(ValueError, match=r"boxes|contiguous"):
            _kernel.draw(data, FORM, jobs, 0, 1, NOTHING, NO_IMAGES, pixels, wrong, used, 0, never)
    with pytest.raises(ValueError, match="row"):
        _kernel.draw(data, FORM, jobs, 0, 1, NOTHING, NO_IMAGES, pixels[:, ::2], boxes, 0, 0, never)
    for first, last in ((-1, 1), (0, 4), (2, 1)):
        with pytest.raises(ValueError, match="first"):
            _kernel.draw(
                data, FORM, jobs, first, last, NOTHING, NO_IMAGES, pixels, boxes, 0, 0, never
            )
    with pytest.raises(ValueError, match="stream"):
        _kernel.draw(data, FORM, jobs, 0, 1, NOTHING[1:], NO_IMAGES, pixels, boxes, 0, 0, never)
    with pytest.raises(ValueError, match="count"):
        _kernel.gather(data, jobs, 4, 0)
    rows["length"] = 21
    with pytest.raises(ValueError, match="data"):
        _kernel.gather(data, jobs, 1, 0)


def test_what_is_found_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "_BATCH_PIXELS", 100)
    engine = Engine()
    engine.receive(hello(WIDTH, HEIGHT))
    engine.cancel()
    with pytest.raises(ClosedError):
        engine.receive(update(*[copyrect(0, 0, 20, 20, 3, 3)] * 9))


def test_an_error_says_where() -> None:
    engine = Engine()
    engine.receive(hello(WIDTH, HEIGHT))
    before = engine.inbox.offset
    good, bad = copyrect(0, 0, 20, 20, 3, 3), copyrect(1, 2, 20, 20, 33, 3)
    with pytest.raises(RfbError, match=r"20x20 at 1,2 \(COPY\): a part") as caught:
        engine.receive(update(good, bad, good))
    assert caught.value.offset == before + 4 + len(good)


@pytest.mark.parametrize("dx", [-3, 0, 3])
@pytest.mark.parametrize("dy", [-2, 0, 2])
@pytest.mark.parametrize("size", [(16, 9), (7, 11), (34, 26)])
def test_copies_that_overlap(dx: int, dy: int, size: tuple[int, int]) -> None:
    width, height = size
    expected = noise(WIDTH, HEIGHT)
    source = expected[2 : 2 + height, 3 : 3 + width].copy()
    expected[2 + dy : 2 + dy + height, 3 + dx : 3 + dx + width] = source
    pixels, _ = both(copyrect(3 + dx, 2 + dy, width, height, 3, 2), 1)
    np.testing.assert_array_equal(pixels, expected)


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
    places = [(x, y) for x in range(0, 40, 3) for y in range(0, 30, 3)]
    data = b"".join(raw(x, y, noise(1, 1)) for x, y in places)
    _, (done,) = both(data, len(places))
    assert done.rectangles == len(places)
    assert 1 <= len(done.damage) <= CAPACITY
    assert (done.damage[0].x, done.damage[0].y) == (0, 0)
