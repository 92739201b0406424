"""What a recording consists of."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from tests.replay.tape import Tape
from tests.vnc.wire import hello, rectangle, string, update
from tests.vnc.writer import FORMATS, Writer
from vmconnect.errors import RfbError
from vmconnect.replay import summarize
from vmconnect.vnc.encodings import ENCODINGS
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.numpy_kernel import NumpyKernel

Tapes = Callable[..., Tape]


def test_what_there_is(tape: Tapes) -> None:
    made = tape(32, 20)
    made.show(0.5, 1)
    made.show(1.0, 2)
    made.resize(2.0, 16, 10)
    made.resize(2.5, 50, 60)
    made.say(3.0, update(rectangle(0, 0, 0, 0, -307, string(b"other"))))
    made.show(4.0, 3)
    made.say(7.25, b"")
    summary = summarize(made.path)
    assert summary.seconds == 7.25
    assert summary.updates == 3
    assert summary.sizes == ((32, 20), (50, 60))
    assert summary.largest == (50, 60)
    assert summary.name == "other"
    assert summary.rectangles == {"Raw": 3, "DesktopSize": 2, "DesktopName": 1}
    assert summary.trouble is None
    assert summary.bytes < made.path.stat().st_size


def test_what_is_cut(tape: Tapes) -> None:
    made = tape(32, 20)
    made.show(0.5, 1)
    made.resize(1.0, 16, 10)
    made.show(2.0, 2)
    made.cut(10)
    summary = summarize(made.path)
    assert isinstance(summary.trouble, RfbError)
    assert (summary.updates, summary.sizes) == (1, ((32, 20), (16, 10)))


@pytest.mark.parametrize("kernel", [None, NumpyKernel()], ids=["compiled", "numpy"])
@pytest.mark.parametrize("pieces", [1, 7, 300])
def test_rectangles_are_counted_however_they_come(kernel: NumpyKernel | None, pieces: int) -> None:
    chance = random.Random(5)
    writer = Writer(chance, FORMATS["ours"], 70, 40)
    truth: Counter[int] = Counter()
    said = b""
    for _ in range(40):
        rectangles = [
            chance.choice(writer.encodings)(*writer.place()) for _ in range(chance.randrange(1, 9))
        ]
        truth.update(int.from_bytes(each[8:12], "big", signed=True) for each in rectangles)
        said += update(*rectangles)
    engine = Engine(kernel=kernel)
    engine.tally = Counter()
    engine.receive(hello(70, 40))
    step = -(-len(said) // pieces)
    for start in range(0, len(said), step):
        engine.receive(said[start : start + step])
    assert engine.tally == truth
    assert set(truth) <= set(ENCODINGS)
