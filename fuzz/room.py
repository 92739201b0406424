"""An engine past its handshake that is put back to its beginning for every execution.

To make an engine takes 200 us, ten times what an execution takes. That none is different from one
that is new is looked after by the oracle, which runs every so many bytes through a new one too.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import rsa

from tests.vnc.wire import hello
from tests.vnc.writer import FORMATS
from vmconnect.vnc import engine as engine_module
from vmconnect.vnc.encodings import OFFERED, QUALITIES
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.extensions import Clipboard
from vmconnect.vnc.states import State
from vmconnect.vnc.walk import Kernel

__all__ = [
    "FORM_NAMES",
    "HEIGHT",
    "HELLO",
    "WIDTH",
    "Room",
    "bound_screens",
    "new_engine",
    "one_key",
]

WIDTH, HEIGHT = 70, 40
"""Large enough for a second column of ZRLE's tiles, and small enough to be compared often."""

HELLO = hello(WIDTH, HEIGHT)

FORM_NAMES: Sequence[str] = tuple(FORMATS)


def bound_screens() -> None:
    """Allow no screens of a gigabyte, which take a second to fill: for fuzzing alone."""
    engine_module.MAX_PIXELS = 1 << 20  # type: ignore[attr-defined]


def one_key() -> None:
    """Let RA2 always have the same key of ours: a new one takes a tenth of a second."""
    key = rsa.generate_private_key(65537, 2048)
    rsa.generate_private_key = lambda *_: key


def new_engine(form: str, level: int = 0, kernel: Kernel | None = None, threads: int = 1) -> Engine:
    """Return a new engine past its handshake, with ``level`` as ZYWRLE's (0 to 3)."""
    encodings = (*OFFERED, QUALITIES[(8, 7, 4, 1)[level]])
    engine = Engine(pixel_format=FORMATS[form], encodings=encodings, kernel=kernel, threads=threads)
    engine.receive(HELLO)
    engine.data_to_send()
    engine.walk.wavelet_level = level
    engine.clipboard.cut("ours")
    return engine


class Room:
    """One engine for each pixel format, new again whenever it is asked for."""

    def __init__(self) -> None:
        self._engines: dict[str, tuple[Engine, dict[str, object]]] = {}

    def engine(self, form: str, level: int = 0) -> Engine:
        """Return the engine, as if it were new: valid until the next call."""
        if form not in self._engines:
            engine = new_engine(form)
            self._engines[form] = engine, dict(vars(engine))
        engine, beginning = self._engines[form]
        engine._steps.close()
        layout = engine.layout
        vars(engine).update(beginning)
        engine.walk.wavelet_level = level
        engine.state, engine.message = State.NORMAL, "message type"
        engine._events, engine._out = [], bytearray()
        engine.clipboard, engine.jpeg_tables = Clipboard(), {}
        engine.clipboard.cut("ours")
        engine.h264_streams.clear()
        if engine._colour_map.any() or engine.layout is not layout:
            engine._colour_map.fill(0)
            engine._use(engine.layout.form)
        _blank(engine)
        engine._steps = engine._messages()
        next(engine._steps)
        return engine


def _blank(engine: Engine) -> None:
    """Empty what an engine's parts hold."""
    inbox, framebuffer = engine.inbox, engine.framebuffer
    inbox._view = inbox._own
    inbox._start = inbox._stop = inbox._wanted = 0
    inbox._target = None
    inbox.offset = len(HELLO)
    framebuffer.resize(WIDTH, HEIGHT)
    framebuffer.pixels.fill(0)
    framebuffer.drawn = framebuffer._updating = framebuffer._abandoned = False
    framebuffer.generation = 0
    engine.damage.used = 0
    for stream in engine.walk._streams:
        stream.reset()
    for batch in engine.walk._batches:
        batch.count = 0
