"""What an RFB server tells: the events that `vmconnect.vnc.Engine` returns.

They are values: two streams of the same bytes give equal events, however the bytes were cut.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = [
    "AudioData",
    "AudioOffered",
    "AudioState",
    "Bell",
    "Connected",
    "CursorShape",
    "Damage",
    "Event",
    "LedState",
    "NameChanged",
    "PointerMode",
    "PointerMoved",
    "PowerOffered",
    "PowerRefused",
    "ResizeReason",
    "ResizeStatus",
    "Resized",
    "ScancodesAccepted",
    "Screen",
    "ServerCutText",
    "UpdateDone",
]


@dataclass(frozen=True, slots=True)
class Connected:
    """The handshake is over; the screen is ``width`` x ``height`` pixels, nothing drawn yet."""

    width: int
    height: int
    name: str


@dataclass(frozen=True, slots=True)
class Damage:
    """An area of the framebuffer, in pixels, in which something may have changed."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class UpdateDone:
    """One FramebufferUpdate that drew something is complete.

    ``damage`` covers all that it drew in a bounded number of areas, ``rectangles`` counts what
    the server sent, and ``generation`` is the framebuffer's, one more than before.
    """

    damage: tuple[Damage, ...]
    rectangles: int
    generation: int


@dataclass(frozen=True, slots=True)
class Screen:
    """One head within the framebuffer, as ExtendedDesktopSize describes it."""

    id: int
    x: int
    y: int
    width: int
    height: int
    flags: int = 0


class ResizeReason(enum.IntEnum):
    """Who changed the screen layout; any later number reads as SERVER, as rfbproto says."""

    SERVER = 0
    THIS_CLIENT = 1
    OTHER_CLIENT = 2


class ResizeStatus(enum.IntEnum):
    """What became of our SetDesktopSize; UNKNOWN stands for any later number."""

    OK = 0
    PROHIBITED = 1
    OUT_OF_RESOURCES = 2
    INVALID_LAYOUT = 3
    FORWARDED = 4
    UNKNOWN = 255


@dataclass(frozen=True, slots=True)
class Resized:
    """The size or layout of the screen, told after a change or as the answer to a request.

    ``width`` and ``height`` are the framebuffer's from now on; ``changed`` says whether they
    differ from before, and then nothing is drawn yet. ``screens`` is empty where the server does
    not describe them.
    """

    width: int
    height: int
    changed: bool
    screens: tuple[Screen, ...] = ()
    reason: ResizeReason = ResizeReason.SERVER
    status: ResizeStatus = ResizeStatus.OK


@dataclass(frozen=True, slots=True)
class CursorShape:
    """The pointer's picture: ``rgba`` has 4 bytes a pixel, alpha not multiplied in.

    A width or height of 0 is an invisible pointer.
    """

    width: int
    height: int
    hotspot_x: int
    hotspot_y: int
    rgba: bytes


@dataclass(frozen=True, slots=True)
class PointerMode:
    """Whether the server wants absolute positions or relative motion."""

    absolute: bool


@dataclass(frozen=True, slots=True)
class PointerMoved:
    """The machine has put its pointer somewhere, in pixels from the top left."""

    x: int
    y: int


@dataclass(frozen=True, slots=True)
class PowerOffered:
    """The server takes requests to shut the machine down, to reboot or to reset it (xvp)."""


@dataclass(frozen=True, slots=True)
class PowerRefused:
    """The server did not do what xvp was asked for."""


@dataclass(frozen=True, slots=True)
class AudioOffered:
    """The server can send what the machine plays."""


@dataclass(frozen=True, slots=True)
class AudioState:
    """The machine begins to play, or ends."""

    playing: bool


@dataclass(frozen=True, slots=True)
class AudioData:
    """Samples of what the machine plays, in the format that was asked for."""

    samples: bytes


@dataclass(frozen=True, slots=True)
class ScancodesAccepted:
    """The server takes scancodes: the keyboard's layout is the guest's business alone."""


@dataclass(frozen=True, slots=True)
class LedState:
    """The lights of the machine's keyboard."""

    scroll_lock: bool
    num_lock: bool
    caps_lock: bool


@dataclass(frozen=True, slots=True)
class Bell:
    """The machine rings."""


@dataclass(frozen=True, slots=True)
class ServerCutText:
    """The machine's clipboard; ``omitted`` counts the bytes past our limit, left out."""

    text: str
    omitted: int = 0


@dataclass(frozen=True, slots=True)
class NameChanged:
    """The desktop has another name."""

    name: str


Event = (
    AudioData
    | AudioOffered
    | AudioState
    | Bell
    | Connected
    | CursorShape
    | LedState
    | NameChanged
    | PointerMode
    | PointerMoved
    | PowerOffered
    | PowerRefused
    | Resized
    | ScancodesAccepted
    | ServerCutText
    | UpdateDone
)
