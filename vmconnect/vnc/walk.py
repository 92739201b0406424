"""The walk over an update's rectangles: find them, inflate them, draw them, by the thousand.

QEMU's text console sends tens of thousands of rectangles 16 pixels wide in one update, so what a
rectangle costs decides how fast an update is. Hence three steps, each for a whole batch:

1. `Kernel.scan` finds out where rectangles lie in the bytes, as far as they are whole, and what
   they are: a table of `vmconnect.vnc.jobs`.
2. What each zlib stream got in the batch is joined (`Kernel.gather`) and inflated by one call;
   JPEG and PNG pictures are decoded.
3. `Kernel.draw` draws all rectangles, in the server's order.

Steps 1 and 3 are compiled and without the GIL; `vmconnect.vnc.numpy_kernel` stands in for them
where they were not compiled. With more than one thread, one batch is inflated while the last is
drawn, each stream and picture in a thread of its own.

A rectangle that is cut by the end of the bytes, or that is not as it should be, ends a batch:
its encoding in `vmconnect.vnc.encodings` waits for the rest, or says what is wrong.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vmconnect.errors import RfbError
from vmconnect.vnc.damage import Boxes
from vmconnect.vnc.encodings.base import HEADER_BYTES
from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.inflate import InflateError, Inflater
from vmconnect.vnc.jobs import FAULTS, JOB, PICTURES, RESETS_SHIFT, STREAMS, Fault, Job, Jobs, Kind
from vmconnect.vnc.layout import Layout
from vmconnect.vnc.pictures import PictureError, decode_jpeg, decode_png

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["Kernel", "Walk", "best_kernel"]

_BATCH_JOBS = 2048

_BATCH_PIXELS = 1 << 17
"""About as many as an inflated batch stays in a core's cache, until it is drawn."""

_SHARED_BATCH_PIXELS = 1 << 19
"""As many for several threads: with less in a batch, one has nothing to do before its end."""

# What another thread is woken for, in the server's bytes.
_LEAST_SHARED = 16 * 1024

_TIGHT_STREAMS = 4

_PICTURES = {Kind.JPEG.value: decode_jpeg, Kind.PNG.value: decode_png}


class Kernel(Protocol):
    """What is compiled, or done by `vmconnect.vnc.numpy_kernel`."""

    def Format(self, layout: Layout, /) -> Any:  # noqa: N802 (a class)
        """Return ``layout`` in the kernel's own form."""

    def Table(self, jobs: Jobs, /) -> Any:  # noqa: N802 (a class)
        """Return ``jobs`` in the kernel's own form; both are the same memory."""

    def scan(  # noqa: PLR0917 (positions are cheaper than names)
        self,
        data: memoryview,
        start: int,
        stop: int,
        form: Any,
        screen_width: int,
        screen_height: int,
        table: Any,
        count: int,
        budget: int,
        /,
    ) -> tuple[int, int, int]:
        """Find at most ``count`` rectangles in ``data[start:stop]`` and put them in ``table``.

        ``data[start]`` is the first byte of a rectangle's header. Stops before a rectangle that
        is not whole, that lies outside the screen, that is of an encoding without pixels or not
        as its encoding says, and before one that resets a stream that is used before; and once
        ``budget`` pixels are found. Returns where it stopped, how many it found, and what is to
        be done before they are drawn (see `vmconnect.vnc.jobs.Job.work`).
        """

    def draw_hextile(  # noqa: PLR0917
        self,
        data: memoryview,
        start: int,
        stop: int,
        form: Any,
        area: Pixels,
        tile: int,
        colours: Pixels,
        /,
    ) -> tuple[int, int, int]:
        """See `vmconnect.vnc.encodings.hextile.draw_hextile`."""

    def draw_zrle(
        self, data: memoryview, form: Any, area: Pixels, tile: int, /
    ) -> tuple[int, int, int]:
        """See `vmconnect.vnc.encodings.zrle.draw_zrle_from`."""

    def gather(
        self, data: memoryview, table: Any, count: int, stream: int, /
    ) -> tuple[bytes | memoryview, int]:
        """Return the bytes of ``stream`` in the first ``count`` jobs, and what they inflate to."""

    def draw(  # noqa: PLR0917
        self,
        data: memoryview,
        form: Any,
        table: Any,
        first: int,
        last: int,
        inflated: tuple[bytes, ...],
        images: Pixels,
        pixels: Pixels,
        boxes: Boxes,
        used: int,
        wavelet_level: int,
        decode: Callable[[int], Pixels],
        /,
    ) -> tuple[int, int, int]:
        """Draw the jobs from ``first`` to before ``last`` into ``pixels``.

        ``inflated`` has what the streams hold, ``images`` the words of pictures that are decoded
        already; of others that the kernel cannot decode, ``decode`` returns those of the job with
        that number, (height, width), or raises. Each
        area is added to the first ``used`` of ``boxes`` (see `vmconnect.vnc.damage`). Returns how
        many of them are used then, where it stopped, and the `Fault` for which it did.
        """


def best_kernel() -> Kernel:
    """Return the compiled kernel, or its double where it was not compiled."""
    try:
        from vmconnect.vnc import _kernel
    except ImportError:
        from vmconnect.vnc.numpy_kernel import NumpyKernel

        return NumpyKernel()
    return _kernel


_Task = Callable[[], None]


class _Batch:
    """Rectangles that are found, and what is needed to draw them."""

    def __init__(self, kernel: Kernel, most: int = _BATCH_JOBS) -> None:
        self.jobs: Jobs = np.zeros(most, JOB)
        self.table = kernel.Table(self.jobs)
        self.count = 0
        # See `vmconnect.vnc.jobs.Job.work`.
        self.work = 0
        self.images: Pixels = np.zeros(0, np.uint32)
        self.waiting: list[tuple[Future[None], _Task]] = []
        # What went wrong before it could be drawn.
        self.failure: RfbError | None = None
        # The streams as they were before it, by number, to find out which rectangle is at fault.
        self.streams: dict[int, Inflater | None] = {}
        self.inflated: list[bytes] = [b""] * STREAMS


def _encodings(batch: _Batch, data: memoryview) -> dict[int, int]:
    """Return how many rectangles of a batch have each encoding, by what their headers say."""
    places = batch.jobs["header"][: batch.count, None] + np.arange(8, HEADER_BYTES)
    numbers = np.frombuffer(data, np.uint8)[places].view(">i4")
    found, counts = np.unique(numbers, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


class Walk:
    """What decodes an engine's rectangles of pixels, with the state that they share.

    ``wavelet_level`` is ZYWRLE's, from the quality that was asked for.
    """

    def __init__(self, engine: Engine, threads: int):
        self._engine = engine
        self._kernel = engine.kernel
        self._streams = [Inflater() for _ in range(STREAMS)]
        self._batches = _Batch(self._kernel), _Batch(self._kernel)
        # For what is done again.
        self._spare = _Batch(self._kernel, 1)
        self._batch_pixels = _SHARED_BATCH_PIXELS if threads > 1 else _BATCH_PIXELS
        self._pool = ThreadPoolExecutor(threads - 1, "vmconnect decode") if threads > 1 else None
        self.wavelet_level = 0

    def use(self, layout: Layout) -> None:
        """Read pixels in this layout from now on."""
        self._form = self._kernel.Format(layout)

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def many(self, most: int) -> int:
        """Draw as many rectangles as are whole in the inbox, and return how many."""
        done = 0
        before: _Batch | None = None
        inbox, framebuffer = self._engine.inbox, self._engine.framebuffer
        data, start, stop = inbox.window()
        offset = inbox.offset - start
        position = start
        width, height = framebuffer.width, framebuffer.height
        try:
            for batch in itertools.cycle(self._batches):
                begin = position
                position, batch.count, batch.work = self._kernel.scan(
                    data, position, stop, self._form, width, height, batch.table, most - done,
                    self._batch_pixels,
                )  # fmt: skip
                self._engine.check_cancelled()
                if self._engine.tally is not None:
                    self._engine.tally.update(_encodings(batch, data))
                if before is not None:
                    self._wait(before)
                if batch.count:
                    self._prepare(batch, data, offset, share=position - begin >= _LEAST_SHARED)
                    done += batch.count
                if before is not None:
                    self._finish(before, data, offset)
                if not batch.count:
                    break
                before = batch
                if self._pool is None:
                    self._finish(batch, data, offset)
                    before = None
                    if done == most:
                        break
        finally:
            self._let_go()
        inbox.consume(position - start)
        return done

    def one(self, job: Job) -> None:
        """Draw a rectangle that is whole in the inbox, and consume it.

        The places in ``job`` count from the first unread byte.
        """
        inbox = self._engine.inbox
        data, start, _ = inbox.window()
        batch = self._batches[0]
        placed = job.moved(start)
        batch.jobs[0] = (*placed, (0, 0, 0))
        batch.count, batch.work = 1, job.work
        self._prepare(batch, data, inbox.offset - start)
        self._finish(batch, data, inbox.offset - start)
        inbox.consume(job.start + job.length)

    def stream(self, number: int) -> Inflater:
        """Return a stream of the connection, for who goes on with it before the next call."""
        return self._streams[number]

    def zrle(self, data: memoryview, area: Pixels, tile: int) -> tuple[int, int, Fault]:
        """Draw the tiles of a ZRLE rectangle that are whole in ``data``, as `Kernel.draw_zrle`."""
        tile, end, fault = self._kernel.draw_zrle(data, self._form, area, tile)
        return tile, end, Fault(fault)

    def hextile(self, area: Pixels, tile: int, colours: Pixels) -> tuple[int, Fault]:
        """Draw the tiles of a Hextile rectangle that are whole in the inbox, and consume them.

        As `Kernel.draw_hextile`: returns the first that is not whole, and what is wrong with it.
        """
        inbox = self._engine.inbox
        data, start, stop = inbox.window()
        tile, end, fault = self._kernel.draw_hextile(
            data, start, stop, self._form, area, tile, colours
        )
        inbox.consume(end - start)
        return tile, Fault(fault)

    def _prepare(
        self, batch: _Batch, data: memoryview, offset: int, *, share: bool = False
    ) -> None:
        """Inflate and decode what the batch holds, or let other threads begin to.

        What goes wrong is told by `_finish`, when all that is before the batch is drawn.
        """
        batch.failure = None
        if batch.count > 1:
            batch.streams = {
                number: self._streams[number].copy()
                for number in range(STREAMS)
                if batch.work >> number & 1
            }
        if resets := batch.work >> RESETS_SHIFT:
            for number in range(_TIGHT_STREAMS):
                if resets >> number & 1:
                    self._streams[number].reset()
        work: list[_Task] = [
            partial(self._inflate, batch, number, data, offset)
            for number in range(STREAMS)
            if batch.work >> number & 1
        ]
        if self._pool is None or not share:
            try:
                for task in work:
                    task()
            except RfbError as error:
                batch.failure = error
        else:
            if batch.work & PICTURES:
                work += self._pictures(batch, data, offset)
            batch.waiting = [(self._pool.submit(task), task) for task in work]

    def _inflate(self, batch: _Batch, number: int, data: memoryview, offset: int) -> None:
        compressed, size = self._kernel.gather(data, batch.table, batch.count, number)
        try:
            batch.inflated[number] = self._streams[number].inflate(compressed, size)
        except InflateError as error:
            first = int(np.argmax(batch.jobs["source"][: batch.count] == number))
            raise self._error(batch, first, offset, str(error)) from error.__cause__

    def _pictures(self, batch: _Batch, data: memoryview, offset: int) -> list[_Task]:
        fields = batch.jobs[["kind", "start", "length", "width", "height"]]
        work: list[_Task] = []
        room = 0
        for number, (kind, start, length, width, height) in enumerate(
            fields[: batch.count].tolist()
        ):
            if kind in _PICTURES:
                body, size = data[start : start + length], (height, width)
                task = partial(self._picture, batch, number, _PICTURES[kind], body, size, room)
                work.append(partial(task, offset))
                room += width * height
        if batch.images.size < room:
            batch.images = np.empty(room, np.uint32)
        return work

    def _picture(  # noqa: PLR0917
        self,
        batch: _Batch,
        number: int,
        decode: Callable[[memoryview, Pixels, Layout], None],
        body: memoryview,
        size: tuple[int, int],
        place: int,
        offset: int,
    ) -> None:
        """Decode a picture to ``place`` in the batch's; the job then is to draw it from there."""
        picture = batch.images[place : place + size[0] * size[1]].reshape(size)
        try:
            decode(body, picture, self._engine.layout)
        except PictureError as error:
            raise self._error(batch, number, offset, str(error)) from error.__cause__
        batch.jobs["kind"][number] = Kind.IMAGE
        batch.jobs["start"][number] = place

    def _decode(self, batch: _Batch, data: memoryview, offset: int, number: int) -> Pixels:
        """Decode a picture that is drawn now."""
        job = batch.jobs[number]
        picture = np.empty((job["height"], job["width"]), np.uint32)
        start, decode = int(job["start"]), _PICTURES[int(job["kind"])]
        try:
            decode(data[start : start + int(job["length"])], picture, self._engine.layout)
        except PictureError as error:
            raise self._error(batch, number, offset, str(error)) from error.__cause__
        return picture

    def _wait(self, batch: _Batch) -> None:
        """Wait until all is inflated and decoded, and help."""
        while batch.waiting:
            # From the end, where nobody has begun yet.
            future, task = batch.waiting.pop()
            try:
                if future.cancel():
                    task()
                else:
                    future.result()
            except RfbError as error:
                batch.failure = error

    def _finish(self, batch: _Batch, data: memoryview, offset: int) -> None:
        """Draw a batch of which all is inflated and decoded.

        Raises RfbError for the first rectangle at fault.
        """
        try:
            if batch.failure is not None:
                raise batch.failure
            self._draw(batch, data, offset)
        except RfbError:
            if batch.count > 1 and None not in batch.streams.values():
                self._one_by_one(batch, data, offset)
            raise

    def _one_by_one(self, batch: _Batch, data: memoryview, offset: int) -> None:
        """Do a batch that failed again, a rectangle at a time: the first at fault raises.

        Together, a rectangle whose data end too soon takes what is the next one's.
        """
        for number, stream in batch.streams.items():
            if stream is not None:
                self._streams[number] = stream
        for row in batch.jobs[: batch.count].copy():
            job = Job(*row.tolist()[:-1])
            one = self._spare
            one.jobs[0] = row
            one.count, one.work = 1, job.work
            one.images = batch.images if job.kind == Kind.IMAGE else np.zeros(0, np.uint32)
            self._prepare(one, data, offset)
            self._finish(one, data, offset)

    def _draw(self, batch: _Batch, data: memoryview, offset: int) -> None:
        damage = self._engine.damage
        damage.used, stopped, fault = self._kernel.draw(
            data, self._form, batch.table, 0, batch.count, tuple(batch.inflated), batch.images,
            self._engine.framebuffer.pixels, damage.boxes, damage.used, self.wavelet_level,
            partial(self._decode, batch, data, offset),
        )  # fmt: skip
        for number in range(STREAMS):
            if batch.work >> number & 1:
                batch.inflated[number] = b""
        if fault:
            last = min(stopped, batch.count - 1)
            raise self._error(batch, last, offset, FAULTS[Fault(fault)])

    def _let_go(self) -> None:
        """Wait for what other threads still do with the server's bytes, after an error."""
        for batch in self._batches:
            for future, _ in batch.waiting:
                if not future.cancel():
                    future.exception()
            batch.waiting = []

    def _error(self, batch: _Batch, number: int, offset: int, what: str) -> RfbError:
        job = batch.jobs[number]
        where = f"{job['width']}x{job['height']} at {job['x']},{job['y']}"
        return self.error(where, Kind(int(job["kind"])), what, offset + int(job["header"]))

    def error(self, where: object, kind: Kind, what: str, offset: int) -> RfbError:
        """Return the error that a rectangle, whose header is at ``offset``, cannot be drawn."""
        return RfbError(
            f"{self._engine.message}: a rectangle {where} ({kind.name}): {what}", offset=offset
        )
