"""An encoder such as a VNC server has: one stream of H.264, by x264 out of PyAV's wheel."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from numpy.typing import NDArray

from .wire import long, rectangle

__all__ = ["ENCODING", "RESET", "RESET_ALL", "H264Writer", "h264", "parameters_of", "picture"]

ENCODING, RESET, RESET_ALL = 50, 1, 2

Picture = NDArray[np.uint8]

LIMITED, FULL = 1, 2


class H264Writer:
    """Pictures in, coded frames out; ``colours`` are the matrix and range that are signalled."""

    def __init__(
        self,
        width: int,
        height: int,
        *,
        encoder: str = "libx264",
        pixel_format: str = "yuv420p",
        colours: tuple[int, int] | None = None,
        **options: str,
    ):
        codec = cast("VideoCodecContext", av.CodecContext.create(encoder, "w"))
        codec.width, codec.height, codec.pix_fmt = width, height, pixel_format
        codec.time_base = Fraction(1, 25)
        codec.thread_count = 1
        codec.options = {"preset": "ultrafast", "tune": "zerolatency", "qp": "10", **options}
        if colours is not None:
            codec.colorspace, codec.color_range = colours
        self.size = width, height
        self._codec, self._colours = codec, colours
        self._count = 0

    def encode(self, shown: Picture, *, key: bool = False) -> bytes:
        """Return the frame of ``shown``, (height, width, 3): whole, or what differs."""
        meant: dict[str, Any] = {}
        if self._colours is not None:
            matrix, span = self._colours
            meant = {"dst_colorspace": 5 if matrix == 6 else matrix, "dst_color_range": span}
        frame = VideoFrame.from_ndarray(shown, format="rgb24")
        frame = frame.reformat(format=self._codec.pix_fmt, **meant)
        frame.pts = self._count
        self._count += 1
        if key:
            frame.pict_type = PictureType.I
        return b"".join(bytes(packet) for packet in self._codec.encode(frame))

    def end(self) -> bytes:
        """Return what the encoder has kept."""
        return b"".join(bytes(packet) for packet in self._codec.encode(None))


def h264(  # noqa: PLR0917 (the protocol's)
    x: int, y: int, width: int, height: int, data: bytes, flags: int = 0
) -> bytes:
    """Return a rectangle in Open H.264."""
    return rectangle(x, y, width, height, ENCODING, long(len(data)) + long(flags) + data)


def picture(width: int, height: int, seed: int = 0) -> Picture:
    """Return something smooth with a box in it: what 4:2:0 shows nearly as it is."""
    shown = np.zeros((height, width, 3), np.uint8)
    shown[:, :, 0] = np.linspace(0, 255, width)
    shown[:, :, 1] = np.linspace(255, 40, height)[:, None]
    shown[:, :, 2] = seed * 37 % 256
    left = seed * 8 % max(1, width // 2)
    shown[height // 4 : height // 2, left : left + width // 4] = (250, 240, seed * 16 % 256)
    return shown


def parameters_of(data: bytes) -> tuple[bytes, bytes]:
    """Return the NAL units before the first slice, and the rest."""
    units = data.split(b"\0\0\1")
    slices = [i for i, unit in enumerate(units) if unit and unit[0] & 31 in {1, 5}]
    join = b"\0\0\1".join
    return join(units[: slices[0]]), b"\0\0\1" + join(units[slices[0] :])
