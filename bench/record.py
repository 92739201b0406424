"""Making recordings for `bench/decode.py`: real servers, busy screens, each encoding in turn.

    python -m bench.record DIRECTORY [--scene NAME]... [--encoding NAME]... [--megapixels N]
                           [--plain]

`terminals`, `pictures`, `video` are drawn by `bench/activity.py` on an Xtigervnc of 1920x1080;
`text` is a QEMU guest's text console, `graphics` one of 1280x800 that shows photographs and forms
in turn. Files are DIRECTORY/SERVER-SCENE-ENCODING.rfb, from ServerInit on. With ``--plain`` only
the encoding is offered, for clients without CopyRect or LastRect. Nothing is fetched from anywhere.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.activity import form, landscape, photograph
from vmconnect.demo import build
from vmconnect.demo.cpio import CpioWriter
from vmconnect.errors import DeadlineError, VmconnectError
from vmconnect.streams import Unix, dial
from vmconnect.vnc import Console
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.events import UpdateDone
from vmconnect.vnc.recording import TIGERVNC

SERVERS = {
    "terminals": "xtigervnc",
    "pictures": "xtigervnc",
    "video": "xtigervnc",
    "text": "qemu",
    "graphics": "qemu",
}

COPYRECT, DESKTOP_SIZE, LAST_RECT, QUALITY_8 = 1, -223, -224, -24


@dataclass(frozen=True)
class Offer:
    """What is offered to a server to get one encoding."""

    name: str
    numbers: tuple[int, ...]
    servers: tuple[str, ...] = ("xtigervnc", "qemu")


OFFERS = (
    Offer("raw", (0,)),
    Offer("hextile", (5,)),
    Offer("rre", (2,), ("xtigervnc",)),
    Offer("zlib", (6,), ("qemu",)),
    Offer("zrle", (16,)),
    Offer("tight", (7,)),
    Offer("tight-jpeg", (7, QUALITY_8)),
)


def record(address: Path, offer: Offer, file: Path, options: argparse.Namespace) -> None:
    """Write what a server sends for so many pixels, or so long."""
    numbers = offer.numbers
    if not options.plain:
        numbers += COPYRECT, LAST_RECT, DESKTOP_SIZE
    pixels = 0
    end = time.monotonic() + options.seconds
    with contextlib.closing(dial(Unix(str(address)))) as stream, file.open("wb") as out:
        engine = Engine(pixel_format=TIGERVNC, encodings=numbers, tap=out.write)
        stream.settimeout(10.0)
        while pixels < options.megapixels * 1e6 and time.monotonic() < end:
            buffer = engine.next_buffer()
            try:
                count = stream.recv_into(buffer)
            except DeadlineError:
                break
            if not count:
                raise engine.receive_end()
            for event in engine.received(count):
                if isinstance(event, UpdateDone):
                    pixels += sum(area.width * area.height for area in event.damage)
            if data := engine.data_to_send():
                stream.sendall(data)
        engine.receive_end()
    print(f"{file.name}: {pixels / 1e6:.1f} Mpx, {file.stat().st_size / 1e6:.1f} MB", flush=True)


def wait_for(address: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server listens."""
    while True:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} has ended")
        with contextlib.suppress(VmconnectError):
            dial(Unix(str(address))).close()
            return
        time.sleep(0.05)


@contextlib.contextmanager
def running(*command: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program for the time of the block."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def xtigervnc(scene: str, directory: Path) -> Iterator[Path]:
    """Run an Xtigervnc with a scene on it, and give its address."""
    address = directory / "vnc"
    reader, writer = os.pipe()
    with (
        open(reader, encoding="ascii") as lines,  # noqa: PTH123 (a descriptor)
        running(
            *("Xtigervnc", "-displayfd", str(writer), "-rfbunixpath", str(address)),
            *("-rfbport", "-1", "-geometry", "1920x1080", "-depth", "24"),
            *("-SecurityTypes", "None", "-ac", "-CompareFB", "2"),
            pass_fds=[writer],
            stderr=subprocess.DEVNULL,
        ) as server,
    ):
        os.close(writer)
        display = f":{lines.readline().strip()}"
        wait_for(address, server)
        environment = {**os.environ, "DISPLAY": display}
        activity = str(Path(__file__).with_name("activity.py"))
        with running(sys.executable, activity, scene, env=environment):
            time.sleep(4)
            yield address


def frames(directory: Path) -> Path:
    """Write an initrd of frames of 1280x800 for a guest to show."""
    with (directory / "frames.cpio").open("wb") as file:
        archive = CpioWriter(file)
        archive.directory("frames")
        pictures = [photograph(1280, 800), *(landscape(1280, 800, seed) for seed in range(2))]
        pictures += [form(1280, 800, seed) for seed in range(3)]
        for number, picture in enumerate(pictures):
            words = np.zeros((800, 1280, 4), np.uint8)
            words[:, :, :3] = picture[:, :, ::-1]
            archive.file(f"frames/{number}", words.tobytes())
        archive.close()
    return directory / "frames.cpio"


@contextlib.contextmanager
def qemu(scene: str, directory: Path) -> Iterator[Path]:
    """Run a QEMU guest that shows a scene, and give its console's address."""
    image = build()
    address = directory / "vnc"
    initrd = directory / "initrd"
    firmware: tuple[str, ...] = ()
    words = "console=tty0 quiet cryptomgr.notests"
    show = "while :; do dmesg; ls -lR /usr /proc/self; sleep 1; done"
    initrd.write_bytes(image.initrd.read_bytes())
    if scene == "graphics":
        initrd.write_bytes(initrd.read_bytes() + frames(directory).read_bytes())
        show = "while :; do for f in /frames/*; do cat $f >/dev/fb0; sleep 1; done;"
        show += " dmesg | tail -60; sleep 1; done"
        # The guest's kernel has a frame buffer only from UEFI firmware.
        firmware = ("-bios", "/usr/share/ovmf/OVMF.fd")
    with running(
        *("qemu-system-x86_64", "-nodefaults", "-accel", "tcg", "-m", "512", "-vga", "std"),
        *firmware,
        *("-display", "none", "-vnc", f"unix:{address},lossy=on"),
        *("-kernel", str(image.kernel), "-initrd", str(initrd), "-append", words),
    ) as server:
        wait_for(address, server)
        time.sleep(40 if firmware else 15)
        with Console.open(lambda deadline: dial(Unix(str(address)), deadline), scene) as console:
            console.type("root\n")
            time.sleep(3)
            console.type(show + "\n")
            time.sleep(1)
        yield address


def main() -> None:
    """Record what the command line names; all, if nothing."""
    parser = argparse.ArgumentParser(description="make recordings for bench/decode.py")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--scene", action="append", choices=SERVERS)
    parser.add_argument("--encoding", action="append", choices=[offer.name for offer in OFFERS])
    parser.add_argument("--megapixels", type=float, default=40.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    for scene in options.scene or SERVERS:
        server = SERVERS[scene]
        start = xtigervnc if server == "xtigervnc" else qemu
        with (
            tempfile.TemporaryDirectory(prefix="vmc-") as name,
            start(scene, Path(name)) as address,
        ):
            for offer in OFFERS:
                if server in offer.servers and offer.name in (options.encoding or [offer.name]):
                    file = options.directory / f"{server}-{scene}-{offer.name}.rfb"
                    record(address, offer, file, options)


if __name__ == "__main__":
    main()
