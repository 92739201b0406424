"""Whole clients beside ours: what a processor second of each takes in from a server.

::

    python bench/peers.py FILE... [--megapixels N] [--runs N] [--json] [--plot PNG]

FILE is a recording (see `bench/record.py`). A server in this process plays it over a UNIX socket
to each client in turn, each a process of its own: our `Console`; libvncclient, by a small C
program that is compiled now (Debian: libvncserver-dev); asyncvnc and vncdotool from PyPI. All
read the same bytes, to the end of the last update that is whole, and at most ``--megapixels``.

Processor seconds are user and system of all the client's threads, from connecting to the end of
the stream, without start and imports: medians of several runs after a warm-up, the clients taking
turns. The ratio is a peer's seconds over ours: above 1 we are faster. A client's screen at the end
is compared with ours, so none is timed for what it does not do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.decode import Counting
from bench.replay import Client, ClientError, Run, libvncclient, python_client, send, serve
from vmconnect.errors import RfbError
from vmconnect.vnc.framebuffer import Framebuffer
from vmconnect.vnc.pixel_format import PixelFormat
from vmconnect.vnc.recording import Player
from vmconnect.vnc.walk import best_kernel

OURS = "vmconnect"

# Where ServerInit has the pixel format.
_FORMAT = slice(4, 20)
_SLOW_S = 4.0
# What JPEG decoders may differ by.
_NEAR = 12


@dataclass(frozen=True)
class Script:
    """What is played: whole updates, with the recording's own pixel format in ServerInit."""

    data: bytes
    form: PixelFormat
    pixels: int
    screen_pixels: int


@dataclass(frozen=True)
class Figures:
    """A client on a file; ``failure`` says why there are none.

    ``ratio`` is its CPU seconds over ours, ``memory`` its peak less what it had before, over the
    size of the screen at 4 bytes a pixel; ``difference`` the greatest of a colour from ours.
    """

    file: str
    client: str
    pixels: int
    cpu_seconds: float | None = None
    megapixels_per_cpu_second: float | None = None
    ratio: float | None = None
    memory: float | None = None
    difference: int | None = None
    failure: str = ""


class Boundaries(Framebuffer):
    """A framebuffer that notes ``mark()`` at the end of each update."""

    def __init__(self) -> None:
        super().__init__()
        self.mark: Callable[[], None] = lambda: None

    def end_update(self, drawn: bool) -> None:
        """Note it."""
        super().end_update(drawn)
        self.mark()


def script(file: Path, megapixels: float) -> Script:
    """Cut a recording after a whole update; raises RfbError if it has none."""
    player = Player(file)
    data = b"".join(piece for _, piece in player.pieces())
    counting, boundaries = Counting(best_kernel()), Boundaries()
    engine = player.engine(kernel=counting, framebuffer=boundaries)
    engine.damage = counting
    before = engine.inbox.offset
    ends: list[tuple[int, int]] = []
    boundaries.mark = lambda: ends.append((engine.inbox.offset - before, counting.pixels))
    engine.receive(memoryview(data))
    engine.receive_end()
    kept = [end for end in ends if end[1] <= megapixels * 1e6] or ends[:1]
    if not kept:
        raise RfbError(f"{file} has no whole update")
    length, pixels = kept[-1]
    said = data[: _FORMAT.start] + player.pixel_format.pack() + data[_FORMAT.stop : length]
    return Script(said, player.pixel_format, pixels, boundaries.width * boundaries.height)


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int | None:
    """Return the greatest difference of a colour in two pictures, None if the sizes differ."""
    if one.size != other.size:
        return None
    high = np.maximum(one, other) - np.minimum(one, other)
    return int(high.max(initial=0))


def measure(file: Path, clients: list[Client], options: argparse.Namespace) -> list[Figures]:
    """Measure all clients on a file, in turns."""
    played = script(file, options.megapixels)
    results: dict[str, list[Run]] = {client.name: [] for client in clients}
    failures: dict[str, str] = {}
    for turn in range(options.runs + 1):
        for client in clients:
            runs = results[client.name]
            # The first run warms up, but of a client so slow it is figure enough.
            if client.name in failures or (runs and runs[0].cpu_seconds > _SLOW_S):
                continue
            try:
                run = serve(client, played.form, lambda peer: send(peer, played.data))
            except ClientError as error:
                failures[client.name] = str(error)
                continue
            if turn == 1:
                runs.clear()
            runs.append(run)
    return [
        figures(file, played, client.name, results, failures.get(client.name, ""))
        for client in clients
    ]


def figures(
    file: Path, played: Script, name: str, results: dict[str, list[Run]], failure: str
) -> Figures:
    """Sum up a client's runs."""
    nothing = Figures(str(file), name, played.pixels, failure=failure or "not run")
    ours, runs = results[OURS], results[name]
    if failure or not runs or not ours:
        return nothing
    far = difference(ours[0].picture, runs[0].picture)
    if far is None or far > _NEAR:
        what = "shows no whole screen" if far is None else "shows another picture"
        return replace(nothing, difference=far, failure=what)
    cpu = statistics.median(run.cpu_seconds for run in runs)
    return Figures(
        str(file),
        name,
        played.pixels,
        cpu,
        played.pixels / 1e6 / cpu,
        cpu / statistics.median(run.cpu_seconds for run in ours),
        statistics.median(run.memory_bytes for run in runs) / (played.screen_pixels * 4),
        far,
    )


def show(found: list[Figures]) -> None:
    """Print a file's lines of the table."""
    for one in found:
        line = f"| {Path(one.file).stem} | {one.pixels / 1e6:.1f} | {one.client} | "
        if one.cpu_seconds is None:
            print(f"{line}{one.failure} | | | | |")
        else:
            print(
                f"{line}{one.cpu_seconds:.3f} | {one.megapixels_per_cpu_second:.0f} | "
                f"{one.ratio:.2f} | {one.memory:.2f} | {one.difference} |",
                flush=True,
            )


def plot(found: list[Figures], path: Path) -> None:
    """Draw the ratios as bars."""
    from matplotlib import pyplot as plt

    files = list(dict.fromkeys(one.file for one in found))
    # With figures; a peer that takes none of the encodings has no bars.
    peers = list(dict.fromkeys(one.client for one in found if one.ratio and one.client != OURS))
    height = 0.8 / len(peers)
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.5 * len(files)))
    for place, peer in enumerate(peers):
        ratios = {one.file: one.ratio for one in found if one.client == peer and one.ratio}
        rows = [row + place * height for row, file in enumerate(files) if file in ratios]
        bars = axes.barh(rows, [ratios[file] for file in files if file in ratios], height)
        axes.bar_label(bars, fmt="%.3g", padding=3, fontsize=7)
        bars.set_label(peer)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.margins(x=0.1)
    axes.set_yticks(
        [row + height * (len(peers) - 1) / 2 for row in range(len(files))],
        [Path(file).stem for file in files],
    )
    axes.invert_yaxis()
    axes.set_xlabel("CPU seconds of the peer over ours: right of the line we are faster")
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> int:
    """Measure the files of the command line."""
    parser = argparse.ArgumentParser(description="whole clients beside ours, on recordings")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--megapixels", type=float, default=20.0, metavar="N")
    parser.add_argument("--runs", type=int, default=5, metavar="N")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--plot", type=Path, metavar="PNG")
    options = parser.parse_args()
    found: list[Figures] = []
    with tempfile.TemporaryDirectory(prefix="vmc-") as name:
        clients = [
            python_client(OURS, "ours"),
            libvncclient(Path(name)),
            python_client("asyncvnc", "asyncvnc_client"),
            python_client("vncdotool", "vncdotool_client"),
        ]
        if not options.json:
            print("| recording | Mpx | client | CPU s | Mpx/CPU s | ratio | memory | differs by |")
            print("|---|---:|---|---:|---:|---:|---:|---:|")
        for file in options.files:
            found += measure(file, clients, options)
            if not options.json:
                show(found[-len(clients) :])
    if options.json:
        json.dump([asdict(one) for one in found], sys.stdout, indent=1)
        print()
    if options.plot:
        plot(found, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
