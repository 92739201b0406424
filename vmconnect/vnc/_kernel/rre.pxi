# RRE and CoRRE: a background and rectangles of one colour (RFC 6143, section 7.7.3; rfbproto).

cdef Fault _draw_rre(
    const Layout* layout, const Area* area, Span* span, bint compact
) noexcept nogil:
    cdef Py_ssize_t count, x, y, width, height
    cdef Py_ssize_t left = MOST_COVERED * area.width * area.height
    cdef uint32_t colour
    cdef int step = layout.pixel_bytes + (4 if compact else 8)
    cdef const uint8_t* at = span.at
    if span.end - at < 4 + layout.pixel_bytes:
        return SHORT
    count = _u32(at)
    _fill(area.to, area.stride, area.width, area.height, _pixel(layout, at + 4))
    at += 4 + layout.pixel_bytes
    if (span.end - at) // step < count:
        return SHORT
    while count:
        colour = _pixel(layout, at)
        at += layout.pixel_bytes
        if compact:
            x, y, width, height = at[0], at[1], at[2], at[3]
            at += 4
        else:
            x, y, width, height = _u16(at), _u16(at + 2), _u16(at + 4), _u16(at + 6)
            at += 8
        if x + width > area.width or y + height > area.height:
            return OUTSIDE
        left -= width * height
        if left < 0:
            return TOO_MUCH
        _fill(area.to + y * area.stride + x, area.stride, width, height, colour)
        count -= 1
    span.at = at
    return FINE
