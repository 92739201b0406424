"""The kernel where none was compiled: the same results, by numpy, one rectangle at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vmconnect.vnc.damage import Boxes, add_box
from vmconnect.vnc.encodings.base import Source
from vmconnect.vnc.encodings.copyrect import draw_copy
from vmconnect.vnc.encodings.hextile import draw_hextile, draw_whole_hextile
from vmconnect.vnc.encodings.raw import draw_pixels
from vmconnect.vnc.encodings.rre import draw_corre, draw_rre
from vmconnect.vnc.encodings.tight import (
    draw_bits,
    draw_fill,
    draw_gradient,
    draw_indices,
    draw_tpixels,
)
from vmconnect.vnc.encodings.trle import draw_trle
from vmconnect.vnc.encodings.zrle import draw_zrle, draw_zrle_from
from vmconnect.vnc.encodings.zywrle import draw_zywrle
from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.jobs import STREAMS, WIRE, DrawError, Fault, Jobs, Kind
from vmconnect.vnc.layout import Layout

__all__ = ["NumpyKernel"]

_DRAW: dict[Kind, Callable[[Pixels, Source, Layout], None]] = {
    Kind.PIXELS: draw_pixels,
    Kind.RRE: draw_rre,
    Kind.CORRE: draw_corre,
    Kind.HEXTILE: draw_whole_hextile,
    Kind.TRLE: draw_trle,
    Kind.ZRLE: draw_zrle,
    Kind.FILL: draw_fill,
    Kind.TPIXELS: draw_tpixels,
    Kind.GRADIENT: draw_gradient,
}

_DRAW_BY_PALETTE: dict[Kind, Callable[[Pixels, Source, Pixels], None]] = {
    Kind.BITS: draw_bits,
    Kind.INDICES: draw_indices,
}


class NumpyKernel:
    """What `vmconnect.vnc.walk.Kernel` asks for; the encodings find the rectangles."""

    draw_hextile = staticmethod(draw_hextile)
    draw_zrle = staticmethod(draw_zrle_from)

    def Format(self, layout: Layout) -> Layout:  # noqa: N802 (the kernel's name for it)
        """Return the layout as it is."""
        return layout

    def Table(self, jobs: Jobs) -> Jobs:  # noqa: N802 (the kernel's name for it)
        """Return the table as it is."""
        return jobs

    def scan(  # noqa: PLR0917
        self,
        data: memoryview,
        start: int,
        stop: int,
        form: Layout,
        screen_width: int,
        screen_height: int,
        jobs: Jobs,
        count: int,
        budget: int,
    ) -> tuple[int, int, int]:
        """Find nothing: in Python it is no cheaper by the thousand."""
        return start, 0, 0

    def gather(
        self, data: memoryview, jobs: Jobs, count: int, stream: int
    ) -> tuple[bytes | memoryview, int]:
        """Join what a stream's jobs hold of it."""
        parts = [job for job in jobs[:count] if job["source"] == stream]
        pieces = [data[job["start"] : job["start"] + job["length"]] for job in parts]
        joined = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return joined, sum(int(job["size"]) for job in parts)

    def draw(  # noqa: PLR0917
        self,
        data: memoryview,
        form: Layout,
        jobs: Jobs,
        first: int,
        last: int,
        inflated: tuple[bytes, ...],
        images: Pixels,
        pixels: Pixels,
        boxes: Boxes,
        used: int,
        wavelet_level: int,
        decode: Callable[[int], Pixels],
    ) -> tuple[int, int, int]:
        """Draw jobs."""
        streams = [Source(part) for part in inflated]
        touched = set()
        for number in range(first, last):
            job = jobs[number]
            x, y, width, height = (int(job[name]) for name in ("x", "y", "width", "height"))
            source = int(job["source"])
            touched.add(source)
            if not width or not height:
                continue
            area = pixels[y : y + height, x : x + width]
            start, length = int(job["start"]), int(job["length"])
            wire = Source(data[start : start + length])
            try:
                if job["kind"] == Kind.IMAGE:
                    area[:] = images[start : start + area.size].reshape(area.shape)
                elif job["kind"] in {Kind.JPEG, Kind.PNG}:
                    area[:] = decode(number)
                else:
                    draw = _drawing(job, data, form, pixels, wavelet_level)
                    draw(area, wire if source == WIRE else streams[source])
            except DrawError as error:
                return used, number, int(error.fault)
            used = add_box(boxes, used, x, y, width, height)
        left = any(streams[number].left for number in range(STREAMS) if number in touched)
        return used, last, int(Fault.LEFT_OVER if left else Fault.FINE)


def _drawing(
    job: Any, data: memoryview, form: Layout, pixels: Pixels, wavelet_level: int
) -> Callable[[Pixels, Source], None]:
    """Return what draws a job into an area from its source."""
    kind = Kind(int(job["kind"]))
    if kind is Kind.COPY:
        return lambda area, source: draw_copy(area, source, pixels)
    if kind is Kind.ZYWRLE:
        return lambda area, source: draw_zywrle(area, source, form, wavelet_level)
    if kind in _DRAW_BY_PALETTE:
        start = int(job["palette"])
        end = start + int(job["colours"]) * form.tpixel_bytes
        palette = form.tpixels(data[start:end])
        return lambda area, source: _DRAW_BY_PALETTE[kind](area, source, palette)
    return lambda area, source: _DRAW[kind](area, source, form)
