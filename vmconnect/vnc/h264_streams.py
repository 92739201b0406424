"""The H.264 streams of a connection, one for each rectangle that has one (ITU-T H.264).

rfbproto calls them contexts ("Open H.264 Encoding"). FFmpeg decodes them, in this thread: there
may be many, and each is small or the only one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.layout import Layout
from vmconnect.vnc.video_library import video_library

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

    from vmconnect.vnc.encodings.base import Rectangle

__all__ = [
    "MAX_FRAMES",
    "MAX_STREAMS",
    "MAX_STREAM_PIXELS",
    "MAX_UNITS",
    "CodedFrame",
    "H264Error",
    "H264Stream",
    "H264Streams",
    "split_frames",
    "words_of",
]

MAX_STREAMS = 64
"""How many rectangles may have a stream at once; the one longest without news goes (rfbproto)."""

MAX_STREAM_PIXELS = 139_264 * 256
"""What the rectangles with streams may have in all: the largest picture that H.264 has a level
for (ITU-T H.264, table A-1). A decoder keeps up to 16 pictures more of each."""

MAX_UNITS, MAX_FRAMES = 4096, 64
"""What one rectangle may bring at once: NAL units, and frames. A frame that changes nothing takes
ten bytes, and as much time as any."""

# By how much a picture may be larger than its rectangle: encoders round up, and have a least size.
_MARGIN = 256

_START = b"\0\0\1"

# Kinds of NAL units (ITU-T H.264, table 7-1): slices of pictures; what comes before a picture's
# first slice; parameters of all that follow.
_SLICES = {1, 5}
_BEFORE_SLICES = {6, 7, 8, 9}
_PARAMETERS = 7

# How YCbCr is meant (ITU-T H.273, table 4): what is not among these is read as if nothing were
# said, which is what FFmpeg, and with it TigerVNC, makes of it: BT.601.
_BT601 = 5
_MATRICES = {1, 4, 5, 6, 7, 9}
_LIMITED_RANGE = 1

# FFmpeg's fast way from YCbCr to words takes 8 pixels at a time, and leaves out a rest of up to 4
# where a row has no room for 8; so it does in PyAV, whose rows are rounded up to 16 bytes.
_AT_ONCE, _LEFT_OUT = 8, {1, 2, 3, 4}

# FFmpeg's names for words with red, green, blue at these places.
_WORDS = {(16, 8, 0): "bgra", (0, 8, 16): "rgba"}


class H264Error(Exception):
    """A stream cannot be decoded; within `vmconnect.vnc` only."""


class H264Stream:
    """The stream of a rectangle, which begins with parameters and a picture of its own."""

    def __init__(self, width: int, height: int):
        av = video_library("a screen in H.264")
        self._error: type[Exception] = av.error.FFmpegError
        self._packet: Callable[[bytes], Any] = av.Packet
        self._codec = av.CodecContext.create("h264", "r")
        # There may be 64 of them. A picture comes at once, unless the stream says that pictures
        # change places, which the baseline profile forbids.
        self._codec.thread_count = 1
        # Before a picture of any other size gets memory.
        self._codec.options = {"max_pixels": str((width + _MARGIN) * (height + _MARGIN))}
        self._begun = False

    def decode(self, frame: CodedFrame) -> VideoFrame | None:
        """Return the picture that is to be shown after ``frame``, if there is a new one.

        There is none before the stream has begun: rfbproto says to wait for that. Raises
        H264Error.
        """
        self._begun = self._begun or frame.has_parameters
        if not self._begun:
            return None
        try:
            pictures: list[VideoFrame] = self._codec.decode(self._packet(frame.data))
        except self._error as error:
            if not frame.has_slices:
                # Parameters alone, for what comes later: no picture, and nothing wrong.
                return None
            raise H264Error("its H.264 is broken, or larger than it") from error
        return pictures[-1] if pictures else None


@dataclass(frozen=True, slots=True)
class CodedFrame:
    """A coded picture with the parameters before it, or parameters alone."""

    data: bytes
    has_slices: bool
    has_parameters: bool


def split_frames(data: bytes) -> list[CodedFrame]:
    """Return the frames that ``data``, a byte stream (ITU-T H.264, annex B), consists of.

    Raises H264Error.
    """
    if not data.startswith((_START, b"\0" + _START)):
        raise H264Error("it is no H.264")
    if (count := data.count(_START)) > MAX_UNITS:
        raise H264Error(f"{count} NAL units at once")
    frames: list[CodedFrame] = []
    begun: list[bytes] = []
    kinds: set[int] = set()

    def end() -> None:
        joined = _START + _START.join(begun)
        frames.append(CodedFrame(joined, bool(kinds & _SLICES), _PARAMETERS in kinds))
        begun.clear()
        kinds.clear()

    for unit in data.split(_START)[1:]:
        kind = unit[0] & 31 if unit else 0
        # A picture's first slice is that of macroblock 0, which is written as a bit that is set.
        first = kind in _SLICES and unit[1:2] >= b"\x80"
        if kinds & _SLICES and (first or kind in _BEFORE_SLICES):
            end()
        begun.append(unit)
        kinds.add(kind)
    end()
    if len(frames) > MAX_FRAMES:
        raise H264Error(f"{len(frames)} frames at once")
    return frames


class H264Streams:
    """The streams, by their rectangles."""

    def __init__(self) -> None:
        # The one longest without news first.
        self._streams: dict[Rectangle, H264Stream] = {}
        self._pixels = 0

    def __len__(self) -> int:
        return len(self._streams)

    def get(self, rectangle: Rectangle) -> H264Stream:
        """Return the rectangle's stream, a new one if it has none; others may have to go.

        Raises H264Error for a rectangle that is too large, MissingDependencyError.
        """
        if rectangle.pixels > MAX_STREAM_PIXELS:
            raise H264Error(f"it has more than {MAX_STREAM_PIXELS} pixels")
        stream = self._streams.pop(rectangle, None)
        if stream is None:
            stream = H264Stream(rectangle.width, rectangle.height)
            self._pixels += rectangle.pixels
        self._streams[rectangle] = stream
        while len(self._streams) > MAX_STREAMS or self._pixels > MAX_STREAM_PIXELS:
            self.drop(next(iter(self._streams)))
        return stream

    def drop(self, rectangle: Rectangle) -> None:
        """End the rectangle's stream, if it has one."""
        if self._streams.pop(rectangle, None) is not None:
            self._pixels -= rectangle.pixels

    def clear(self) -> None:
        """End all streams."""
        self._streams.clear()
        self._pixels = 0


def words_of(picture: VideoFrame, layout: Layout) -> Pixels:
    """Return a picture as the framebuffer's words, (height, width). Raises H264Error."""
    kind = picture.format.name
    if picture.colorspace not in _MATRICES and not kind.startswith("gbr"):
        picture.colorspace = _BT601
    if not picture.color_range:
        picture.color_range = _LIMITED_RANGE
    av = video_library("a screen in H.264")
    wanted = _WORDS.get(layout.shifts, "rgba")
    interpolation = av.video.reformatter.Interpolation
    how = interpolation.POINT
    if picture.width % _AT_ONCE in _LEFT_OUT:
        how |= interpolation.ACCURATE_RND
    try:
        reformatted = picture.reformat(format=wanted, interpolation=how, threads=1)
    except av.error.FFmpegError as error:
        raise H264Error(f"its H.264 has pixels of an unknown kind, {kind}") from error
    plane: Any = reformatted.planes[0]
    words = np.frombuffer(plane, np.uint32).reshape(plane.height, -1)[:, : plane.width]
    if layout.shifts in _WORDS:
        return words
    # Red, green, blue from the lowest byte up.
    channels = [words >> np.uint32(8 * i) & np.uint32(255) for i in range(3)]
    return layout.rgb_words(np.stack(channels, -1).astype(np.uint8))
