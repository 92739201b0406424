"""Where the time of decoding goes: inflating, JPEG, all else.

::

    python bench/shares.py FILE... [--runs N] [--json]

FILE is a recording, as for `bench/decode.py`. One thread, processor time, medians of several runs
after a warm-up. Inflating is timed around the calls of the library; JPEGs, which are decoded within
the loop that draws, are decoded once more by themselves. Their share is what no decoder around
them can win back.
"""

from __future__ import annotations

import argparse
import json
import mmap
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.decode import Wrapping
from vmconnect.vnc.inflate import Inflater
from vmconnect.vnc.jobs import Kind
from vmconnect.vnc.layout import Layout
from vmconnect.vnc.pictures import decode_jpeg
from vmconnect.vnc.recording import Player
from vmconnect.vnc.walk import Kernel, best_kernel


@dataclass(frozen=True)
class Shares:
    """Seconds of processor time for a file, in all and in two of its parts."""

    file: str
    cpu_seconds: float
    inflate_seconds: float
    jpeg_seconds: float


class _Watch:
    """Adds up the processor time of calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose calls are counted."""

        def call(*arguments: Any, **options: Any) -> Any:
            began = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds += time.process_time() - began

        return call


class _Pictures(Wrapping):
    """A kernel whose JPEGs are decoded by themselves too, and timed."""

    def __init__(self, kernel: Kernel, layout: Layout, watch: _Watch):
        super().__init__(kernel)
        self._layout, self._decode = layout, watch.timed(decode_jpeg)

    def draw(self, data: memoryview, form: Any, table: Any, *rest: Any) -> tuple[int, int, int]:
        """Draw, and decode once more."""
        for job in table[0][rest[0] : rest[1]]:
            if job["kind"] == Kind.JPEG:
                picture = np.empty((job["height"], job["width"]), np.uint32)
                start = int(job["start"])
                self._decode(data[start : start + int(job["length"])], picture, self._layout)
        return super().draw(data, form, table, *rest)


def _decode(file: Path, kernel: Callable[[Layout], Kernel]) -> float:
    """Decode a file and return the processor seconds."""
    player = Player(file)
    with file.open("rb") as opened:
        data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    engine = player.engine(kernel=kernel(Layout.of(player.pixel_format)))
    began = time.process_time()
    engine.receive(memoryview(data))
    spent = time.process_time() - began
    engine.receive_end()
    return spent


def measure(file: Path, runs: int) -> Shares:
    """Measure a file."""
    inflating: list[float] = []
    pictures: list[float] = []
    whole: list[float] = []
    before = Inflater.inflate, Inflater.some
    for turn in range(runs + 1):
        spent = _decode(file, lambda _layout: best_kernel())
        jpeg, inflate = _Watch(), _Watch()
        _decode(file, lambda layout, watch=jpeg: _Pictures(best_kernel(), layout, watch))  # type: ignore[misc]
        try:
            for name in ("inflate", "some"):
                setattr(Inflater, name, inflate.timed(getattr(Inflater, name)))
            _decode(file, lambda _layout: best_kernel())
        finally:
            Inflater.inflate, Inflater.some = before  # type: ignore[method-assign]
        if turn:
            whole.append(spent)
            inflating.append(inflate.seconds)
            pictures.append(jpeg.seconds)
    return Shares(str(file), *(statistics.median(times) for times in (whole, inflating, pictures)))


def main() -> int:
    """Measure the files of the command line."""
    parser = argparse.ArgumentParser(description="where the time of decoding goes")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--runs", type=int, default=5, metavar="N")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    found = [measure(file, options.runs) for file in options.files]
    if options.json:
        json.dump([asdict(one) for one in found], sys.stdout, indent=1)
        print()
        return 0
    print("| recording | CPU s | inflating | JPEG | all else |")
    print("|---|---:|---:|---:|---:|")
    for one in found:
        inflate, jpeg = (part / one.cpu_seconds for part in (one.inflate_seconds, one.jpeg_seconds))
        print(
            f"| {Path(one.file).stem} | {one.cpu_seconds:.3f} | {inflate:.0%} | {jpeg:.0%} | "
            f"{max(0.0, 1 - inflate - jpeg):.0%} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
