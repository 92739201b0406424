"""QEMU audio: what the machine plays, as samples (rfbproto, "QEMU Audio Server Message")."""

from __future__ import annotations

import enum
import struct
from typing import TYPE_CHECKING

from vmconnect.vnc.events import AudioData, AudioState
from vmconnect.vnc.extensions.base import ServerMessage
from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["AUDIO_MESSAGE", "MAX_AUDIO_BYTES", "SampleFormat", "audio_enable", "audio_format"]

MAX_AUDIO_BYTES = 1024 * 1024
"""More in one message than this breaks the connection: five seconds of the best that there is."""

_QEMU = 255
_AUDIO = 1
_OPERATION = struct.Struct(">BH")
_U32 = struct.Struct(">I")
_END, _BEGIN, _DATA = 0, 1, 2
_ENABLE, _DISABLE, _FORMAT = 0, 1, 2


class SampleFormat(enum.IntEnum):
    """What a sample is; those of several bytes are little-endian from QEMU."""

    U8 = 0
    S8 = 1
    U16 = 2
    S16 = 3
    U32 = 4
    S32 = 5


def audio_enable(enable: bool) -> bytes:
    """Return the message that asks for sound, or for no more."""
    return struct.pack(">BBH", _QEMU, _AUDIO, _ENABLE if enable else _DISABLE)


def audio_format(form: SampleFormat, channels: int, frequency: int) -> bytes:
    """Return the message that chooses the samples; ``frequency`` in hertz."""
    return struct.pack(">BBHBBI", _QEMU, _AUDIO, _FORMAT, form, channels, frequency)


def _read(engine: Engine) -> Reading[None]:
    kind, operation = _OPERATION.unpack((yield from engine.inbox.read(_OPERATION.size)))
    if kind != _AUDIO:
        raise engine.error(f"unknown QEMU message {kind}")
    if operation == _DATA:
        (length,) = _U32.unpack((yield from engine.inbox.read(_U32.size)))
        if length > MAX_AUDIO_BYTES:
            raise engine.error(f"{length} bytes of sound, at most {MAX_AUDIO_BYTES} may come")
        engine.emit(AudioData(bytes((yield from engine.inbox.read(length)))))
    elif operation in {_BEGIN, _END}:
        engine.emit(AudioState(operation == _BEGIN))
    else:
        raise engine.error(f"unknown operation {operation} of QEMU audio")


AUDIO_MESSAGE = ServerMessage(_QEMU, "QEMU audio", _read)
