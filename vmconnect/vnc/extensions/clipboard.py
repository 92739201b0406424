"""Extended clipboard, 0xc0a1e5ce: Unicode text, sent when it is wanted (rfbproto).

It hides in cut-text messages of negative length. Either end tells what it can (CAPS), then that
there is something new (NOTIFY); the other asks for it (REQUEST) and gets it (PROVIDE), compressed.
We take and give text alone, and ask for what we are told of as soon as we are.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from vmconnect.vnc.events import ServerCutText
from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["EXTENDED_CLIPBOARD", "MAX_CLIPBOARD_BYTES", "Clipboard"]

EXTENDED_CLIPBOARD = 0xC0A1E5CE - (1 << 32)

MAX_CLIPBOARD_BYTES = 16 * 1024 * 1024
"""What is taken of a text, compressed and not."""

_U32 = struct.Struct(">I")
_CUT_TEXT = 6
_TEXT = 1
_FORMATS = 0xFFFF
_CAPS, _REQUEST, _PEEK, _NOTIFY, _PROVIDE = (1 << bit for bit in range(24, 29))
_ACTIONS = _CAPS | _REQUEST | _PEEK | _NOTIFY | _PROVIDE


class Clipboard:
    """Our end of the extended clipboard; ``server`` is what the other can, 0 before it said so."""

    def __init__(self) -> None:
        self.server = 0
        # The message that gives it, and None while we have no text.
        self._ours: bytes | None = None

    def cut(self, text: str) -> bytes:
        """Return the message that tells the server of a new text of ours."""
        # Made once: a server may ask for it as often as it likes.
        self._ours = _provide(text)
        if self.server & _NOTIFY:
            return _message(_NOTIFY | _TEXT)
        return self._ours

    def read(self, engine: Engine, length: int) -> Reading[None]:
        """Read what follows the negative ``length`` of a cut-text message."""
        if length < _U32.size:
            raise engine.error(f"an extended clipboard of {length} bytes")
        if length > MAX_CLIPBOARD_BYTES:
            yield from engine.inbox.skip(length)
            engine.emit(ServerCutText("", length))
            return
        data = yield from engine.inbox.read(length)
        (flags,) = _U32.unpack_from(data)
        body = data[_U32.size :]
        # rfbproto: CAPS, or one of the others.
        if flags & _CAPS:
            self._take_caps(engine, flags, len(body))
        elif flags & _ACTIONS == _PROVIDE:
            if flags & _TEXT:
                engine.emit(_inflate(engine, body))
        elif flags & _ACTIONS == _NOTIFY:
            if flags & _TEXT and self.server & _REQUEST:
                engine.send(_message(_REQUEST | _TEXT))
        elif flags & _ACTIONS == _REQUEST:
            if flags & _TEXT and self._ours is not None:
                engine.send(self._ours)
        elif flags & _ACTIONS == _PEEK and self.server & _NOTIFY:
            engine.send(_message(_NOTIFY | (_TEXT if self._ours is not None else 0)))

    def _take_caps(self, engine: Engine, flags: int, length: int) -> None:
        if length < _U32.size * (flags & _FORMATS).bit_count():
            raise engine.error("an extended clipboard whose sizes are missing")
        self.server = flags
        # A size of 0: texts are to be told of, not sent unasked.
        engine.send(_message(_ACTIONS | _TEXT, _U32.pack(0)))


def _provide(text: str) -> bytes:
    text = text.replace("\r\n", "\n").replace("\n", "\r\n")
    data = text.encode("utf-8", "replace") + b"\0"
    return _message(_PROVIDE | _TEXT, zlib.compress(_U32.pack(len(data)) + data))


def _message(flags: int, body: bytes = b"") -> bytes:
    return struct.pack(">BxxxiI", _CUT_TEXT, -(_U32.size + len(body)), flags) + body


def _inflate(engine: Engine, body: memoryview) -> ServerCutText:
    """Return the text of a PROVIDE: it is the first of the formats, whatever others follow."""
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(body, MAX_CLIPBOARD_BYTES)
    except zlib.error as error:
        raise engine.error(f"an extended clipboard that does not inflate: {error}") from error
    if len(data) < _U32.size:
        raise engine.error("an extended clipboard that ends too soon")
    (length,) = _U32.unpack_from(data)
    taken = data[_U32.size : _U32.size + length]
    if len(taken) < length and len(data) < MAX_CLIPBOARD_BYTES:
        raise engine.error("an extended clipboard that ends too soon")
    # Cut in the midst of a character, or not UTF-8 at all: what can be read of it is.
    text = taken.decode("utf-8", "replace").removesuffix("\0").replace("\r\n", "\n")
    return ServerCutText(text, length - len(taken))
