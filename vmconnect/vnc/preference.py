"""What a person wants of a picture: the encoding, what may be lost, how much it is compressed."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from vmconnect.errors import TargetError
from vmconnect.vnc.encodings import (
    COMPRESSIONS,
    ENCODINGS,
    FINE_QUALITIES,
    MOST_OFFERED,
    OFFERED,
    QUALITIES,
)
from vmconnect.vnc.encodings.copyrect import COPYRECT
from vmconnect.vnc.encodings.h264 import H264
from vmconnect.vnc.video_library import is_installed, require_video

__all__ = ["ENCODING_NAMES", "Choice", "Preference"]

ENCODING_NAMES: dict[str, int] = {
    encoding.name.lower(): number
    for number, encoding in ENCODINGS.items()
    if encoding.draws and number != COPYRECT.number
}
"""Encodings of pixels by the names that people may give."""

_LEVELS = range(10)
_PERCENT = re.compile(r"(\d{1,2}|100)%")


@dataclass(frozen=True, slots=True)
class Choice:
    """What a server is asked for: an encoding above all, a quality and a compression, 0 to 9.

    Without a quality nothing may be lost. ``fine_quality``, 0 to 100, goes beside it for the
    servers that know it: TurboVNC's and TigerVNC's.
    """

    encoding: int
    quality: int | None = None
    compression: int | None = None
    fine_quality: int | None = None

    @property
    def numbers(self) -> tuple[int, ...]:
        """What SetEncodings tells (RFC 6143, section 7.5.2): the encoding before all others.

        But for CopyRect, which takes no other's place. H.264 comes next where losses are allowed
        and it can be decoded.
        """
        first = [COPYRECT.number, self.encoding]
        if self.quality is not None and self.encoding != H264.number and is_installed():
            first.append(H264.number)
        others = [number for number in OFFERED if number not in first]
        levels = []
        if self.quality is not None:
            levels.append(QUALITIES[self.quality])
            # The last counts.
            if self.fine_quality is not None:
                levels.append(FINE_QUALITIES[self.fine_quality])
        if self.compression is not None:
            levels.append(COMPRESSIONS[self.compression])
        # Where they are too many, the least wanted encodings of pixels give way.
        drawing = [number for number in others if number in ENCODINGS and ENCODINGS[number].draws]
        surplus = max(0, len(first) + len(others) + len(levels) - MOST_OFFERED)
        dropped = drawing[len(drawing) - surplus :]
        return (*first, *(number for number in others if number not in dropped), *levels)


@dataclass(frozen=True, slots=True)
class Preference:
    """What is fixed; the rest follows from the link, and changes with it.

    ``encoding`` is one of `ENCODING_NAMES`. ``quality`` is 0 to 9, "0%" to "100%", or
    "lossless". ``compression`` is 0 to 9. Raises TargetError for anything else,
    MissingDependencyError for H.264 without PyAV.
    """

    encoding: str | None = None
    quality: int | str | None = None
    compression: int | None = None

    def __post_init__(self) -> None:
        if self.encoding is not None and self.encoding.lower() not in ENCODING_NAMES:
            raise TargetError(
                f"no encoding is called {self.encoding!r}", hint=", ".join(sorted(ENCODING_NAMES))
            )
        if self.encoding is not None and ENCODING_NAMES[self.encoding.lower()] == H264.number:
            require_video("a screen in H.264")
        if self.quality not in {None, "lossless", *_LEVELS} and self._percent is None:
            raise TargetError(
                f"{self.quality!r} is no quality", hint="0 to 9, 0% to 100%, or lossless"
            )
        if self.compression not in {None, *_LEVELS}:
            raise TargetError(f"{self.compression!r} is no compression level", hint="0 to 9")

    def applied(self, choice: Choice) -> Choice:
        """Return a choice with what is fixed in place of its own."""
        if self.encoding is not None:
            choice = replace(choice, encoding=ENCODING_NAMES[self.encoding.lower()])
        if self.compression is not None:
            choice = replace(choice, compression=self.compression)
        if self._percent is not None:
            coarse = round(self._percent * _LEVELS[-1] / 100)
            return replace(choice, quality=coarse, fine_quality=self._percent)
        if self.quality is not None:
            coarse_only = self.quality if isinstance(self.quality, int) else None
            return replace(choice, quality=coarse_only)
        return choice

    @property
    def _percent(self) -> int | None:
        match = _PERCENT.fullmatch(self.quality) if isinstance(self.quality, str) else None
        return int(match[1]) if match else None
