"""Ours: the console as it is."""

from __future__ import annotations

import sys
import time
from functools import partial

# What decoders import when they are first used: importing is no part of decoding.
import isal.isal_zlib  # noqa: F401
import simplejpeg  # noqa: F401

from bench.clients.meter import Meter
from vmconnect.errors import RfbError
from vmconnect.streams import Unix, dial
from vmconnect.vnc import (
    Console,
    _kernel,  # noqa: F401
    connector,
)
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.events import Event, UpdateDone
from vmconnect.vnc.framebuffer import Framebuffer
from vmconnect.vnc.pixel_format import PixelFormat


def main() -> None:
    """Run."""
    address, form, picture = sys.argv[1:]
    pixel_format = PixelFormat.unpack(bytes.fromhex(form))
    # A console asks for its own format, but the recording was made for another.
    engine = partial(Engine, pixel_format=pixel_format)
    connector.Engine = engine  # type: ignore[assignment, attr-defined]
    framebuffer = Framebuffer()
    meter = Meter()

    def note(event: Event) -> None:
        if isinstance(event, UpdateDone):
            meter.update()

    with Console.open(
        lambda deadline: dial(Unix(address), deadline), "bench", framebuffer=framebuffer
    ) as console:
        console.subscribe(note)
        while console.alive:
            time.sleep(0.02)
        meter.stop()
        if isinstance(console.reason, RfbError):
            raise SystemExit(str(console.reason))
    meter.report(picture, framebuffer.rgb().tobytes())


if __name__ == "__main__":
    main()
