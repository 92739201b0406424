"""Decoding beside TigerVNC: recordings of servers' bytes, in its decperf's format.

A recording has the server's bytes from ServerInit on; the client has asked for 32 bits a pixel,
little-endian, red in the lowest byte. It may end anywhere. ::

    python bench/decode.py FILE... [--threads N] [--runs N] [--json] [--decperf PATH]
                           [--kernel compiled|numpy]

Prints for each file what it holds and the CPU and wall seconds to decode it, medians of several
runs after a warm-up. ``--decperf PATH`` runs TigerVNC's (tests/perf/decperf) between our runs, on
as many processors as there are threads, and prints the ratios: above 1 we are faster.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import re
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vmconnect.vnc.damage import DamageList
from vmconnect.vnc.events import UpdateDone
from vmconnect.vnc.jobs import Jobs
from vmconnect.vnc.numpy_kernel import NumpyKernel
from vmconnect.vnc.recording import Player
from vmconnect.vnc.walk import Kernel, best_kernel

_DECPERF_CPU = re.compile(r"CPU time: (\S+) s")
_DECPERF_CORES = re.compile(r"Core usage: (\S+)")


@dataclass(frozen=True)
class Decoded:
    """One run: what was in the recording, and what it took."""

    pixels: int
    rectangles: int
    updates: int
    cpu_seconds: float
    wall_seconds: float


@dataclass(frozen=True)
class Figures:
    """One file: ``ratio_cpu`` and ``ratio_wall`` are decperf's time over ours."""

    file: str
    bytes: int
    pixels: int
    rectangles: int
    updates: int
    cpu_seconds: float
    wall_seconds: float
    decperf_cpu_seconds: float | None = None
    decperf_wall_seconds: float | None = None
    ratio_cpu: float | None = None
    ratio_wall: float | None = None


class Wrapping:
    """A kernel as it is, whose tables of jobs can be looked at."""

    def __init__(self, kernel: Kernel):
        self._kernel = kernel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernel, name)

    def Table(self, jobs: Jobs) -> tuple[Jobs, Any]:  # noqa: N802 (the kernel's name for it)
        """Keep the table as it is beside the kernel's."""
        return jobs, self._kernel.Table(jobs)

    def scan(self, *arguments: Any) -> tuple[int, int, int]:
        """Unwrap the table."""
        found: tuple[int, int, int] = getattr(self._kernel, "scan")(  # noqa: B009 (as many as come)
            *arguments[:6], arguments[6][1], *arguments[7:]
        )
        return found

    def gather(
        self, data: memoryview, table: Any, count: int, stream: int
    ) -> tuple[bytes | memoryview, int]:
        """Unwrap the table."""
        return self._kernel.gather(data, table[1], count, stream)

    def draw(self, data: memoryview, form: Any, table: Any, *rest: Any) -> tuple[int, int, int]:
        """Unwrap the table."""
        return self._kernel.draw(data, form, table[1], *rest)


class Counting(Wrapping, DamageList):
    """A kernel that counts the pixels it draws; a run of its own, for it costs time.

    As an engine's damage it counts those of the rectangles that no batch has.
    """

    def __init__(self, kernel: Kernel):
        Wrapping.__init__(self, kernel)
        DamageList.__init__(self)
        self.pixels = 0

    def add(self, x: int, y: int, width: int, height: int) -> None:
        """Add a rectangle that was drawn by itself, and count."""
        self.pixels += width * height
        super().add(x, y, width, height)

    def draw(self, data: memoryview, form: Any, table: Any, *rest: Any) -> tuple[int, int, int]:
        """Draw, and count."""
        drawn = table[0][rest[0] : rest[1]]
        self.pixels += int((drawn["width"].astype(int) * drawn["height"]).sum())
        return super().draw(data, form, table, *rest)


def decode(file: Path, data: mmap.mmap, threads: int, kernel: Kernel) -> Decoded:
    """Decode a recording once."""
    engine = Player(file).engine(threads=threads, kernel=kernel)
    if isinstance(kernel, Counting):
        engine.damage = kernel
    wall, cpu = time.perf_counter(), time.process_time()
    events = engine.receive(memoryview(data))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    # A recording's tail may be cut.
    engine.receive_end()
    updates = [event for event in events if isinstance(event, UpdateDone)]
    rectangles = sum(update.rectangles for update in updates)
    return Decoded(0, rectangles, len(updates), cpu, wall)


def decperf(program: Path, file: Path) -> tuple[float, float] | None:
    """Run TigerVNC's decperf, and return its medians: CPU and wall seconds.

    None if it cannot decode the file: it has no Zlib, for one.
    """
    output = subprocess.run([program, file], capture_output=True, text=True, check=False).stdout
    cpu, cores = _DECPERF_CPU.search(output), _DECPERF_CORES.search(output)
    if cpu is None or cores is None:
        return None
    return float(cpu[1]), float(cpu[1]) / float(cores[1])


def measure(file: Path, options: argparse.Namespace) -> Figures:
    """Measure one file, and decperf between the runs where it was asked for."""
    kernel: Kernel = NumpyKernel() if options.kernel == "numpy" else best_kernel()
    with (
        file.open("rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        counting = Counting(best_kernel())
        content = decode(file, data, 1, counting)
        before = options.runs // 2
        runs = [decode(file, data, options.threads, kernel) for _ in range(before)]
        peer = decperf(options.decperf, file) if options.decperf else None
        runs += [decode(file, data, options.threads, kernel) for _ in range(options.runs - before)]
        size = len(data)
    cpu = statistics.median(run.cpu_seconds for run in runs)
    wall = statistics.median(run.wall_seconds for run in runs)
    figures = Figures(
        str(file), size, counting.pixels, content.rectangles, content.updates, cpu, wall
    )
    if peer is None:
        return figures
    return Figures(
        **{
            **asdict(figures),
            "decperf_cpu_seconds": peer[0],
            "decperf_wall_seconds": peer[1],
            "ratio_cpu": peer[0] / cpu,
            "ratio_wall": peer[1] / wall,
        }
    )


def show(figures: Figures) -> None:
    """Print a line."""
    megapixels = figures.pixels / 1e6
    line = (
        f"{Path(figures.file).name:34} {megapixels:7.1f} Mpx {figures.rectangles:7} rect "
        f"{figures.cpu_seconds:8.4f} CPU s {figures.wall_seconds:8.4f} wall s "
        f"{megapixels / figures.cpu_seconds:7.0f} Mpx/s"
    )
    if figures.ratio_cpu is not None:
        line += (
            f" | decperf {figures.decperf_cpu_seconds:8.4f} CPU s "
            f"{figures.decperf_wall_seconds:8.4f} wall s"
            f" | ratio CPU {figures.ratio_cpu:5.2f} wall {figures.ratio_wall:5.2f}"
        )
    print(line, flush=True)


def main() -> int:
    """Measure the files of the command line."""
    parser = argparse.ArgumentParser(description="decode recordings, beside TigerVNC's decperf")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--runs", type=int, default=9, metavar="N")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--decperf", type=Path, metavar="PATH")
    parser.add_argument("--kernel", choices=("compiled", "numpy"), default="compiled")
    options = parser.parse_args()
    # One thread has one processor, and so has decperf, which inherits it.
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, processors[: max(1, options.threads)])
    results = [measure(file, options) for file in options.files]
    if options.json:
        json.dump([asdict(figures) for figures in results], sys.stdout, indent=1)
        print()
    else:
        for figures in results:
            show(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
