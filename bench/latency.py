"""From a server's last bytes of an update to what a client tells of it, beside other clients.

::

    python bench/latency.py [--rounds N] [--updates N] [--json] [--plot PNG]

A server in this process sends updates of a window full of text, one at a time, each after a pause
in which the client has nothing to do, and notes CLOCK_MONOTONIC before it gives the last piece
(64 KiB or less) to the socket; the client, in a process of its own, notes it when the update is
drawn and its subscriber or callback is called. The clients take turns. ``whole`` counts from the
update's first byte. Memory is the peak of the process in a run of whole screens, less what it had
before it connected, over the screen's size of 1920 x 1080 x 4 bytes.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from bench.activity import form
from bench.encode import Encoder, Pixels
from bench.replay import (
    Client,
    ClientError,
    drain,
    libvncclient,
    python_client,
    serve,
    server_init,
)
from vmconnect.vnc.pixel_format import OURS

WIDTH, HEIGHT = 1920, 1080
SIZES = {"16x16": (16, 16), "400x300": (400, 300), "1920x1080": (WIDTH, HEIGHT)}
ENCODINGS = ("raw", "tight", "zrle")

OURS_NAME = "vmconnect"

_PIECE = 1 << 16


@dataclass
class Samples:
    """What was measured of a client, in nanoseconds: from the last bytes, and from the first."""

    last: list[int] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    failure: str = ""


@dataclass(frozen=True)
class Figures:
    """A line of the table; times in microseconds, memory in screens."""

    encoding: str
    size: str
    client: str
    p50: float
    p99: float
    whole_p50: float
    memory: float | None


def pictures() -> list[Pixels]:
    """Return two screens of windows full of text."""
    screens = []
    for seed in range(2):
        pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
        pixels[:, :, :3] = form(WIDTH, HEIGHT, seed)[:, :, ::-1]
        screens.append(pixels)
    return screens


class Server:
    """Sends updates of one encoding and size, and notes when."""

    def __init__(self, encoding: str, size: tuple[int, int], screens: list[Pixels], updates: int):
        self._size, self._screens, self._updates = size, screens, updates
        self._encoder = Encoder(encoding)
        self._pause = 0.08 if size == (WIDTH, HEIGHT) else 0.004
        self.screen = screens[1].copy()
        """What a client should show."""
        self.first: list[int] = []
        self.last: list[int] = []

    def speak(self, peer: socket.socket) -> None:
        """Speak to a client that was let in."""
        drainer = threading.Thread(target=drain, args=(peer,))
        drainer.start()
        try:
            peer.sendall(server_init(WIDTH, HEIGHT, OURS))
            peer.sendall(self._encoder.update(0, 0, self._screens[1]))
            # Python's clients compile and import on the first.
            time.sleep(0.5)
            for number in range(self._updates):
                self._send(peer, number)
            peer.shutdown(socket.SHUT_WR)
        finally:
            drainer.join()

    def _send(self, peer: socket.socket, number: int) -> None:
        width, height = self._size
        left = number * 48 % (WIDTH - width + 1)
        top = number * 32 % (HEIGHT - height + 1)
        part = self._screens[number % 2][top : top + height, left : left + width]
        self.screen[top : top + height, left : left + width] = part
        data = memoryview(self._encoder.update(left, top, part))
        time.sleep(self._pause)
        last = (len(data) - 1) // _PIECE * _PIECE
        self.first.append(time.monotonic_ns())
        if last:
            peer.sendall(data[:last])
        self.last.append(time.monotonic_ns())
        peer.sendall(data[last:])


def measure(
    clients: list[Client],
    encoding: str,
    size: str,
    screens: list[Pixels],
    options: argparse.Namespace,
) -> list[Figures]:
    """Measure all clients with updates of one kind, in turns."""
    samples = {client.name: Samples() for client in clients}
    full = SIZES[size] == (WIDTH, HEIGHT)
    updates = max(1, options.updates // 8) if full else options.updates
    for _ in range(options.rounds):
        for client in clients:
            sampled = samples[client.name]
            server = Server(encoding, SIZES[size], screens, updates)
            try:
                run = serve(client, OURS, server.speak)
            except ClientError as error:
                sampled.failure = str(error)
                continue
            if run.picture.tobytes() != server.screen[:, :, 2::-1].tobytes():
                sampled.failure = f"{client.name} shows another picture"
                continue
            # The first update is before the count, and some have told it to nobody.
            drawn = run.updates[-len(server.last) :]
            if len(drawn) < len(server.last):
                sampled.failure = f"{client.name} told of {len(drawn)} updates"
                continue
            sampled.last += [at - sent for at, sent in zip(drawn, server.last, strict=True)]
            sampled.whole += [at - sent for at, sent in zip(drawn, server.first, strict=True)]
            sampled.memory.append(run.memory_bytes / (WIDTH * HEIGHT * 4))
    for failure in (sampled.failure for sampled in samples.values() if sampled.failure):
        print(f"{encoding} {size}: {failure}", file=sys.stderr)
    return [
        Figures(
            encoding,
            size,
            name,
            statistics.median(sampled.last) / 1e3,
            float(np.percentile(sampled.last, 99)) / 1e3,
            statistics.median(sampled.whole) / 1e3,
            statistics.median(sampled.memory) if full else None,
        )
        for name, sampled in samples.items()
        if sampled.last
    ]


def show(found: list[Figures]) -> None:
    """Print lines of the table, with the ratio to ours."""
    ours = next((one.p50 for one in found if one.client == OURS_NAME), float("nan"))
    for one in found:
        memory = "" if one.memory is None else f"{one.memory:.2f}"
        print(
            f"| {one.encoding} | {one.size} | {one.client} | {one.p50:.0f} | {one.p99:.0f} | "
            f"{one.whole_p50:.0f} | {one.p50 / ours:.2f} | {memory} |",
            flush=True,
        )


def plot(found: list[Figures], path: Path) -> None:
    """Draw the medians as bars, the 99th percentiles as lines."""
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(one.client for one in found))
    kinds = list(dict.fromkeys((one.encoding, one.size) for one in found))
    figure, axes = plt.subplots(figsize=(9, 4.5))
    wide = 0.8 / len(names)
    for place, name in enumerate(names):
        rows = [(kinds.index((one.encoding, one.size)), one) for one in found if one.client == name]
        axes.bar(
            [row + place * wide for row, _ in rows],
            [one.p50 for _, one in rows],
            wide,
            yerr=([0] * len(rows), [max(0, one.p99 - one.p50) for _, one in rows]),
            error_kw={"linewidth": 0.8, "ecolor": "gray"},
            label=name,
        )
    axes.set_yscale("log")
    axes.set_ylim(bottom=10)
    middle = wide * (len(names) - 1) / 2
    labels = [f"{encoding}\n{size}" for encoding, size in kinds]
    axes.set_xticks([row + middle for row in range(len(kinds))], labels, fontsize=8)
    axes.set_ylabel(
        "last bytes sent to update told, µs\n(bar: median, line: to the 99th percentile)"
    )
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=len(names))
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> int:
    """Measure all kinds of updates."""
    parser = argparse.ArgumentParser(description="from a server's bytes to the drawn update")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--updates", type=int, default=240, metavar="N")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--plot", type=Path, metavar="PNG")
    options = parser.parse_args()
    screens = pictures()
    found: list[Figures] = []
    with tempfile.TemporaryDirectory(prefix="vmc-") as name:
        both = [python_client(OURS_NAME, "ours"), libvncclient(Path(name))]
        raw_only = [
            python_client("asyncvnc", "asyncvnc_client"),
            python_client("vncdotool", "vncdotool_client"),
        ]
        if not options.json:
            print("| encoding | update | client | p50 µs | p99 µs | whole µs | ratio | memory |")
            print("|---|---|---|---:|---:|---:|---:|---:|")
        for encoding in ENCODINGS:
            clients = both + raw_only if encoding == "raw" else both
            for size in SIZES:
                lines = measure(clients, encoding, size, screens, options)
                found += lines
                if not options.json:
                    show(lines)
    if options.json:
        json.dump([asdict(one) for one in found], sys.stdout, indent=1)
        print()
    if options.plot:
        plot(found, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
