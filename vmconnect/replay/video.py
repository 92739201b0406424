"""A recording as a video file, by PyAV: H.264 in .mp4 and .mkv, VP9 in .webm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from vmconnect.errors import ResourceError, UnsupportedError
from vmconnect.progress import Progress, Silent
from vmconnect.replay.frames import Frame, frames
from vmconnect.replay.output import output
from vmconnect.replay.replay import Replay
from vmconnect.replay.summary import Summary
from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.video_library import video_library

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

__all__ = ["FORMATS", "MAX_FRAMES", "MAX_PIXELS", "write_video"]

_X264 = "libx264", {"preset": "veryfast", "crf": "18"}
_VP9 = "libvpx-vp9", {"deadline": "realtime", "cpu-used": "7", "row-mt": "1", "crf": "24"}

FORMATS: dict[str, tuple[str, str, dict[str, str]]] = {
    ".mp4": ("mp4", *_X264),
    ".mkv": ("matroska", *_X264),
    ".webm": ("webm", *_VP9),
}
"""By the end of the file's name: FFmpeg's names of the container and the codec, and options."""

MAX_PIXELS = 139_264 * 256
"""No larger picture has a level in H.264 (ITU-T H.264, table A-1)."""

MAX_FRAMES = 10_000_000
"""More than four days at 25 a second."""

# What players expect of pictures of this size: BT.709, in the limited range (ITU-T H.273).
_BT709, _LIMITED = 1, 1


def write_video(
    replay: Replay,
    path: Path,
    summary: Summary,
    *,
    fps: float = 25.0,
    speed: float = 1.0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write a recording, of which ``summary`` is known, to a video and return its frames.

    There are ``fps`` frames a second, and it is ``speed`` times as fast as it was. The largest
    screen decides how large the video is; smaller ones are in its middle, and nothing is scaled.

    Raises UnsupportedError for a file whose name ends otherwise than FORMATS says,
    MissingDependencyError without PyAV, ResourceError for a video that is too large or cannot be
    written; `Replay.nothing`.
    """
    if path.suffix.lower() not in FORMATS:
        raise UnsupportedError(
            f"{path.name} is no video's name", hint=f"it ends in {', '.join(FORMATS)}"
        )
    if not summary.sizes:
        raise summary.trouble or replay.nothing()
    width, height = (side + side % 2 for side in summary.largest)
    if width * height > MAX_PIXELS:
        raise ResourceError(f"no video has frames of {width}x{height} pixels")
    if summary.seconds / speed * fps > MAX_FRAMES:
        raise ResourceError(
            f"the video would have more than {MAX_FRAMES} frames", hint="--fps and --speed"
        )
    av = video_library("a video")
    every = speed / fps
    total = math.ceil(summary.seconds / every) + 1
    try:
        with output(path, replay.player.path, overwrite=overwrite) as file:
            film = _Film(av, file, path.suffix.lower(), (width, height), fps)
            return film.write(frames(replay, every), total, progress or Silent())
    except av.codec.codec.UnknownCodecError as error:
        raise UnsupportedError(f"this PyAV cannot write {path.suffix} files") from error
    except av.error.FFmpegError as error:
        raise ResourceError(f"cannot write {path}: {error.strerror}") from error


class _Film:
    """A video file that is being written."""

    def __init__(
        self, av: Any, file: BinaryIO, suffix: str, size: tuple[int, int], fps: float
    ) -> None:
        self._av = av
        container, codec, options = FORMATS[suffix]
        rate = Fraction(fps).limit_denominator(1001)
        self._container = av.open(file, "w", format=container)
        self._stream = self._container.add_stream(codec, rate=rate, options=options)
        context = self._stream.codec_context
        context.width, context.height = size
        context.pix_fmt = "yuv420p"
        context.time_base = 1 / rate
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        width, height = size
        self._canvas: Pixels = np.zeros((height, width), np.uint32)
        self._count = 0

    def write(self, shown: Iterator[Frame], total: int, progress: Progress) -> int:
        """Write frames, each until the next comes, ``total`` in all; return how many they are."""
        picture = self._picture(np.zeros((0, 0), np.uint32))
        with self._container:
            for frame in shown:
                self._repeat(picture, frame.number, total, progress)
                picture = self._picture(frame.pixels)
            self._repeat(picture, max(total, self._count + 1), total, progress)
            self._container.mux(self._stream.encode(None))
        return self._count

    def _picture(self, pixels: Pixels) -> VideoFrame:
        """Return the picture of a screen in the middle of black."""
        self._canvas.fill(0)
        height, width = pixels.shape
        top, left = (self._canvas.shape[0] - height) // 2, (self._canvas.shape[1] - width) // 2
        self._canvas[top : top + height, left : left + width] = pixels
        channels = self._canvas.view(np.uint8).reshape(*self._canvas.shape, 4)
        picture = self._av.VideoFrame.from_ndarray(channels, format="bgra")
        reformatted: VideoFrame = picture.reformat(
            format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED
        )
        return reformatted

    def _repeat(self, picture: VideoFrame, until: int, total: int, progress: Progress) -> None:
        """Show a picture up to before frame ``until``."""
        while self._count < until:
            picture.pts, picture.time_base = self._count, self._stream.codec_context.time_base
            self._container.mux(self._stream.encode(picture))
            self._count += 1
            progress.advance(self._count, total)
