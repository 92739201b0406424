# Where an update's rectangles are in the bytes, without drawing them: `vmconnect.vnc.jobs`.
#
# Each function takes one rectangle's body, [span.at, span.end), moves span.at to its end and
# fills in the job. False means: not whole, or not as it should be. Python looks at it then.

cdef inline bint _past(Span* span, Py_ssize_t length) noexcept nogil:
    if span.end - span.at < length:
        return False
    span.at += length
    return True


cdef inline Py_ssize_t _compressed_at_most(Py_ssize_t size) noexcept nogil:
    """`vmconnect.vnc.jobs.compressed_at_most`."""
    return size + size // 8 + 1024


cdef inline Py_ssize_t _zrle_at_most(
    Py_ssize_t width, Py_ssize_t height, int cpixel_bytes
) noexcept nogil:
    """`vmconnect.vnc.encodings.zrle.at_most`."""
    return (
        width * height * (cpixel_bytes + 1)
        + ((width + 63) // 64) * ((height + 63) // 64) * (2 + 127 * cpixel_bytes)
    )


cdef bint _scan_zlib(Job* job, Span* span, int8_t source, Py_ssize_t size) noexcept nogil:
    if span.end - span.at < 4:
        return False
    job.source = source
    job.length = _u32(span.at)
    job.size = size
    span.at += 4
    if job.length > _compressed_at_most(size):
        return False
    job.start = span.at - span.base
    return _past(span, job.length)


cdef inline Py_ssize_t _compact(Span* span) noexcept nogil:
    """Read Tight's length of one to three bytes, or -1."""
    cdef Py_ssize_t length = 0
    cdef int i
    for i in range(3):
        if span.at >= span.end:
            return -1
        length |= <Py_ssize_t>(span.at[0] if i == 2 else span.at[0] & 127) << (7 * i)
        span.at += 1
        if not span.at[-1] & 128:
            break
    return length


cdef bint _scan_tight(
    const Layout* layout, Job* job, Span* span, bint png
) noexcept nogil:
    cdef Py_ssize_t row_bytes = <Py_ssize_t>job.width * layout.tpixel_bytes
    cdef uint8_t control, chosen
    if span.at >= span.end:
        return False
    control = span.at[0]
    span.at += 1
    job.resets = control & 15
    chosen = control >> 4
    if chosen == 8:
        job.kind = FILL
        job.start = span.at - span.base
        job.length = layout.tpixel_bytes
        return _past(span, job.length)
    if chosen == 9 or (chosen == 10 and png):
        job.kind = JPEG if chosen == 9 else PNG
        job.length = _compact(span)
        job.start = span.at - span.base
        return job.length >= 0 and _past(span, job.length)
    if chosen > 7 and chosen != 10 and chosen != 14:
        return False
    job.kind = TPIXELS
    if chosen & 4:
        if span.at >= span.end:
            return False
        span.at += 1
        if span.at[-1] == 1:
            if span.at >= span.end:
                return False
            job.colours = span.at[0] + 1
            span.at += 1
            job.palette = span.at - span.base
            if not _past(span, job.colours * layout.tpixel_bytes):
                return False
            if job.colours <= 2:
                job.kind = BITS
                row_bytes = (<Py_ssize_t>job.width + 7) // 8
            else:
                job.kind = INDICES
                row_bytes = job.width
        elif span.at[-1] == 2:
            job.kind = GRADIENT
        elif span.at[-1] != 0:
            return False
    job.size = row_bytes * job.height
    if job.size < 12:
        job.length = job.size
    else:
        job.length = _compact(span)
        if chosen > 7:
            # libvncserver's: as it is.
            if job.length != job.size:
                return False
        else:
            job.source = chosen & 3
            if not 0 <= job.length <= _compressed_at_most(job.size):
                return False
    job.start = span.at - span.base
    return _past(span, job.length)


cdef bint _scan_one(const Layout* layout, Job* job, int32_t encoding, Span* span) noexcept nogil:
    cdef Py_ssize_t pixels = <Py_ssize_t>job.width * job.height
    cdef Py_ssize_t count
    cdef int colours = 0
    job.source = WIRE
    job.resets = 0
    job.colours = 0
    job.palette = 0
    job.size = 0
    job.start = span.at - span.base
    if encoding == 7 or encoding == -260:
        return _scan_tight(layout, job, span, encoding == -260)
    if encoding == 0:
        job.kind = PIXELS
        job.length = pixels * layout.pixel_bytes
        return _past(span, job.length)
    if encoding == 16 or encoding == 17:
        job.kind = ZRLE if encoding == 16 else ZYWRLE
        count = _zrle_at_most(job.width, job.height, layout.cpixel_bytes)
        if count > LARGE_INFLATED and encoding == 16:
            return False
        return _scan_zlib(job, span, ZRLE_STREAM, count)
    if encoding == 5:
        job.kind = HEXTILE
        count = ((<Py_ssize_t>job.width + 15) // 16) * ((<Py_ssize_t>job.height + 15) // 16)
        if _measure_hextile(layout.pixel_bytes, job.width, job.height, 0, span) < count:
            return False
        job.length = span.at - span.base - job.start
        return True
    if encoding == 1:
        job.kind = COPY
        job.length = 4
        return _past(span, 4)
    if encoding == 6:
        if pixels * layout.pixel_bytes > LARGE_INFLATED:
            return False
        job.kind = PIXELS
        return _scan_zlib(job, span, ZLIB_STREAM, pixels * layout.pixel_bytes)
    if encoding == 2 or encoding == 4:
        job.kind = RRE if encoding == 2 else CORRE
        if span.end - span.at < 4:
            return False
        count = _u32(span.at)
        if count > pixels:
            return False
        job.length = 4 + layout.pixel_bytes + count * (
            layout.pixel_bytes + (8 if encoding == 2 else 4)
        )
        return _past(span, job.length)
    if encoding == 15:
        job.kind = TRLE
        count = ((<Py_ssize_t>job.width + 15) // 16) * ((<Py_ssize_t>job.height + 15) // 16)
        if _measure_trle(
            layout.cpixel_bytes, job.width, job.height, 0, &colours, span
        ) < count:
            return False
        job.length = span.at - span.base - job.start
        return True
    return False
