# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""The loops over rectangles and pixels, without the GIL; one noun a file in ``_kernel/``.

Each has its double in Python, in `vmconnect.vnc.encodings`, with the same contract and the same
result. Every length from the wire is compared before a byte is touched, also in what `scan` has
seen before: sums are in Py_ssize_t, and the largest, 65535 * 65535 * 12, is far from its end.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset

cdef enum:
    HEADER_BYTES = 12
    GRADIENT_WIDTH = 16384
    MOST_COVERED = 16

# The numbers and fields of `vmconnect.vnc.jobs`.
cdef enum:
    PIXELS = 0
    COPY = 1
    RRE = 2
    CORRE = 3
    HEXTILE = 4
    TRLE = 5
    ZRLE = 6
    ZYWRLE = 7
    FILL = 8
    TPIXELS = 9
    BITS = 10
    INDICES = 11
    GRADIENT = 12
    JPEG = 13
    PNG = 14
    IMAGE = 15

cdef enum:
    WIRE = -1
    ZRLE_STREAM = 4
    ZLIB_STREAM = 5
    STREAMS = 6
    LARGE_INFLATED = 1 << 20
    PICTURES = 1 << STREAMS
    RESETS_SHIFT = STREAMS + 1

cdef enum Fault:
    FINE = 0
    SHORT = 1
    OUTSIDE = 2
    BAD_KIND = 3
    BAD_INDEX = 4
    BAD_RUN = 5
    LEFT_OVER = 6
    TOO_MUCH = 7

cdef packed struct Job:
    int64_t header
    int64_t start
    int64_t length
    int64_t size
    int64_t palette
    uint16_t x
    uint16_t y
    uint16_t width
    uint16_t height
    uint16_t colours
    uint8_t kind
    int8_t source
    uint8_t resets
    uint8_t[3] spare

include "_kernel/layout.pxi"
include "_kernel/area.pxi"
include "_kernel/damage.pxi"
include "_kernel/rre.pxi"
include "_kernel/hextile.pxi"
include "_kernel/tiles.pxi"
include "_kernel/wavelets.pxi"
include "_kernel/tight.pxi"
include "_kernel/scan.pxi"
include "_kernel/jpeg.pxi"
include "_kernel/draw.pxi"


cdef class Format:
    """How pixels lie in the bytes: `vmconnect.vnc.layout.Layout`, compiled."""

    cdef Layout layout
    cdef const uint32_t[::1] colours
    cdef JpegDecoder jpegs
    # Whether pictures have red lowest, or blue; elsewhere their words are made in Python.
    cdef bint swapped, usual

    def __init__(self, layout):
        """Take all from ``layout``, which must not change."""
        cdef int i
        self.layout.pixel_bytes = layout.pixel_bytes
        self.layout.cpixel_bytes = layout.cpixel_bytes
        self.layout.tpixel_bytes = layout.tpixel_bytes
        self.layout.cpixel_shift = layout.cpixel_shift
        self.layout.big_endian = layout.big_endian
        self.layout.native = layout.native
        for i in range(3):
            self.layout.shift[i] = layout.shifts[i]
            self.layout.wire_shift[i] = layout.wire_shifts[i]
            self.layout.wire_max[i] = layout.wire_maxima[i]
        if self.layout.pixel_bytes not in (1, 2, 4) or not 1 <= self.layout.cpixel_bytes <= 4:
            raise ValueError("pixels have 1, 2 or 4 bytes")
        if self.layout.tpixel_bytes not in (self.layout.pixel_bytes, 3):
            raise ValueError("pixels of Tight have 3 bytes or as many as others")
        for i in range(3):
            if not 0 <= self.layout.shift[i] < 32 or not 0 <= self.layout.wire_shift[i] < 32:
                raise ValueError("colours are shifted by 0 to 31 bits")
        self.jpegs = JpegDecoder()
        self.swapped = layout.shifts == (0, 8, 16)
        self.usual = self.swapped or layout.shifts == (16, 8, 0)
        self.colours = layout.colours
        self.layout.colour_count = self.colours.shape[0]
        self.layout.colours = &self.colours[0] if self.layout.colour_count else NULL


cdef int _check_rows(uint32_t[:, :] pixels) except -1:
    if pixels.shape[1] > 1 and pixels.strides[1] != 4:
        raise ValueError("each row of pixels must be contiguous")
    if pixels.strides[0] % 4:
        raise ValueError("rows must be whole words apart")
    return 0


cdef class Table:
    """A table of jobs, its type checked once and not at every call."""

    cdef Job[::1] jobs

    def __init__(self, Job[::1] jobs not None):
        """Take ``jobs``, rows of `vmconnect.vnc.jobs.JOB`."""
        self.jobs = jobs


def scan(
    const uint8_t[::1] data not None,
    Py_ssize_t start,
    Py_ssize_t stop,
    Format form not None,
    Py_ssize_t screen_width,
    Py_ssize_t screen_height,
    Table table not None,
    Py_ssize_t count,
    Py_ssize_t budget,
):
    """Find rectangles, as `vmconnect.vnc.walk.Scan` says."""
    cdef Layout* layout = &form.layout
    cdef Py_ssize_t capacity = min(count, table.jobs.shape[0])
    cdef int work = 0
    cdef Py_ssize_t done = 0
    cdef Py_ssize_t pixels = 0
    cdef Span span
    cdef Job* job
    cdef const uint8_t* at
    if not 0 <= start <= stop <= data.shape[0]:
        raise ValueError("start and stop must lie in the data")
    if stop == start or capacity < 1:
        return start, 0, 0
    with nogil:
        span.base = &data[0]
        span.at = span.base + start
        span.end = span.base + stop
        while done < capacity and pixels < budget and span.end - span.at >= HEADER_BYTES:
            at = span.at
            job = &table.jobs[done]
            job.header = at - span.base
            job.x = <uint16_t>_u16(at)
            job.y = <uint16_t>_u16(at + 2)
            job.width = <uint16_t>_u16(at + 4)
            job.height = <uint16_t>_u16(at + 6)
            if job.x + job.width > screen_width or job.y + job.height > screen_height:
                break
            span.at += HEADER_BYTES
            if not _scan_one(layout, job, <int32_t>_u32(at + 8), &span) or (job.resets and done):
                # A stream begins anew: what came before must be inflated first.
                span.at = at
                break
            if job.source != WIRE:
                work |= 1 << job.source
            elif job.kind == JPEG or job.kind == PNG:
                work |= PICTURES
            work |= <int>job.resets << RESETS_SHIFT
            pixels += <Py_ssize_t>job.width * job.height
            done += 1
    return span.at - span.base, done, work


def draw(
    const uint8_t[::1] data not None,
    Format form not None,
    Table table not None,
    Py_ssize_t first,
    Py_ssize_t last,
    tuple inflated not None,
    const uint32_t[::1] images not None,
    uint32_t[:, :] pixels not None,
    int32_t[:, ::1] boxes not None,
    Py_ssize_t used,
    int wavelet_level,
    decode,
):
    """Draw what was found, as `vmconnect.vnc.walk.Draw` says."""
    cdef const uint32_t[:, ::1] picture
    cdef Layout* layout = &form.layout
    cdef Py_ssize_t screen_height = pixels.shape[0]
    cdef Py_ssize_t screen_width = pixels.shape[1]
    cdef Py_ssize_t capacity = boxes.shape[0]
    cdef Py_ssize_t data_size = data.shape[0]
    cdef Py_ssize_t image_size = images.shape[0]
    cdef Py_ssize_t i, from_x, from_y
    cdef Span[STREAMS] streams
    cdef bint[STREAMS] touched
    cdef Span wire, plain
    cdef Span* source
    cdef Area area
    cdef Job* job
    cdef int32_t* box
    cdef const uint8_t* base
    cdef bytes part
    cdef Fault fault = FINE
    if not 0 <= first <= last <= table.jobs.shape[0]:
        raise ValueError("first and last must lie in the jobs")
    if boxes.shape[1] != 4 or not 0 <= used <= capacity or capacity < 2:
        raise ValueError("boxes must have the shape (2 or more, 4)")
    _check_rows(pixels)
    if len(inflated) != STREAMS:
        raise ValueError("there must be bytes for each stream")
    if first == last:
        return used, first, 0
    for i in range(STREAMS):
        part = inflated[i]
        streams[i].base = <const uint8_t*>PyBytes_AS_STRING(part)
        streams[i].at = streams[i].base
        streams[i].end = streams[i].base + len(part)
        touched[i] = False
    with nogil:
        base = &data[0] if data_size else NULL
        area.stride = pixels.strides[0] // 4
        box = &boxes[0, 0]
        for i in range(first, last):
            job = &table.jobs[i]
            area.width = job.width
            area.height = job.height
            if job.x + area.width > screen_width or job.y + area.height > screen_height:
                fault = OUTSIDE
                break
            if area.width == 0 or area.height == 0:
                if 0 <= job.source < STREAMS:
                    touched[job.source] = True
                continue
            area.to = &pixels[job.y, job.x]
            if job.kind == IMAGE:
                if not 0 <= job.start <= image_size - area.width * area.height:
                    fault = SHORT
                    break
                _paste(&area, &images[job.start])
            else:
                if job.source == WIRE:
                    if not (0 <= job.start <= data_size and 0 <= job.length <= data_size - job.start):
                        fault = SHORT
                        break
                    plain.base = plain.at = base + job.start
                    plain.end = plain.at + job.length
                    source = &plain
                elif 0 <= job.source < STREAMS:
                    source = &streams[job.source]
                    touched[job.source] = True
                else:
                    fault = BAD_KIND
                    break
                if job.kind == COPY:
                    if job.source != WIRE or job.length < 4:
                        fault = SHORT
                        break
                    from_x = _u16(plain.at)
                    from_y = _u16(plain.at + 2)
                    if from_x + area.width > screen_width or from_y + area.height > screen_height:
                        fault = OUTSIDE
                        break
                    _copy(&area, &pixels[from_y, from_x])
                elif job.kind == JPEG or job.kind == PNG:
                    if job.kind != JPEG or not form.usual or not _decode_jpeg(
                        form.jpegs._decoder, plain.at, plain.end, &area, form.swapped, IN_PAIRS
                    ):
                        with gil:
                            picture = decode(i)
                            if picture.shape[0] != area.height or picture.shape[1] != area.width:
                                raise ValueError("a picture must be as large as its rectangle")
                        _paste(&area, &picture[0, 0])
                else:
                    if not 0 <= job.palette <= data_size:
                        fault = SHORT
                        break
                    wire.base = wire.at = base + job.palette
                    wire.end = base + data_size
                    fault = _draw_one(layout, job, &area, &wire, source, wavelet_level)
                    if fault != FINE:
                        break
            used = _add_box(box, capacity, used, job.x, job.y, job.width, job.height)
        else:
            i = last
    if fault == FINE:
        for i in range(STREAMS):
            if touched[i] and streams[i].at != streams[i].end:
                fault = LEFT_OVER
        i = last
    return used, i, <int>fault


def gather(
    const uint8_t[::1] data not None, Table table not None, Py_ssize_t count, int stream
):
    """Join what a stream's rectangles hold of it, as `vmconnect.vnc.walk.Gather` says."""
    cdef Py_ssize_t total = 0
    cdef Py_ssize_t size = 0
    cdef Py_ssize_t i
    cdef uint8_t* to
    cdef Job* job
    if not 0 <= count <= table.jobs.shape[0]:
        raise ValueError("count must lie in the jobs")
    for i in range(count):
        job = &table.jobs[i]
        if job.source == stream:
            if not (
                0 <= job.start <= data.shape[0] and 0 <= job.length <= data.shape[0] - job.start
            ):
                raise ValueError("jobs must lie in the data")
            total += job.length
            size += job.size
    joined = PyBytes_FromStringAndSize(NULL, total)
    to = <uint8_t*>PyBytes_AS_STRING(joined)
    for i in range(count):
        job = &table.jobs[i]
        if job.source == stream and job.length:
            memcpy(to, &data[job.start], job.length)
            to += job.length
    return joined, size


def draw_hextile(
    const uint8_t[::1] data not None,
    Py_ssize_t start,
    Py_ssize_t stop,
    Format form not None,
    uint32_t[:, :] pixels not None,
    Py_ssize_t tile,
    uint32_t[::1] colours not None,
):
    """Draw tiles as they come, as `vmconnect.vnc.encodings.hextile.draw_hextile` does."""
    cdef Area area
    cdef Span span
    cdef Fault fault = FINE
    if not 0 <= start <= stop <= data.shape[0] or tile < 0:
        raise ValueError("start and stop must lie in the data")
    if colours.shape[0] != 2:
        raise ValueError("there must be two colours")
    area.height = pixels.shape[0]
    area.width = pixels.shape[1]
    _check_rows(pixels)
    if start == stop or not area.height or not area.width:
        return tile, start, <int>fault
    with nogil:
        area.to = &pixels[0, 0]
        area.stride = pixels.strides[0] // 4
        span.base = &data[0]
        span.at = span.base + start
        span.end = span.base + stop
        tile = _draw_hextile(&form.layout, &area, tile, &colours[0], &span, &fault)
    return tile, span.at - span.base, <int>fault


def draw_zrle(
    const uint8_t[::1] data not None,
    Format form not None,
    uint32_t[:, :] pixels not None,
    Py_ssize_t tile,
):
    """Draw tiles as they come, as `vmconnect.vnc.encodings.zrle.draw_zrle_from` does."""
    cdef Area area
    cdef Span span
    cdef Fault fault = FINE
    if tile < 0:
        raise ValueError("tile must be a number of one")
    _check_rows(pixels)
    area.height = pixels.shape[0]
    area.width = pixels.shape[1]
    if not data.shape[0] or not area.height or not area.width:
        return tile, 0, <int>fault
    with nogil:
        area.to = &pixels[0, 0]
        area.stride = pixels.strides[0] // 4
        span.base = span.at = &data[0]
        span.end = span.base + data.shape[0]
        tile = _draw_zrle_from(&form.layout, &area, tile, &span, &fault)
    return tile, span.at - span.base, <int>fault
