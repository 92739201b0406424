# Tight's filters (rfbproto, "Tight Encoding"); copy is `_tpixels`, row by row.

cdef Fault _draw_tpixels(const Layout* layout, const Area* area, Span* span) noexcept nogil:
    cdef Py_ssize_t row_bytes = area.width * layout.tpixel_bytes
    cdef uint32_t* to = area.to
    cdef Py_ssize_t i
    if span.end - span.at < row_bytes * area.height:
        return SHORT
    for i in range(area.height):
        _tpixels(layout, to, span.at, area.width)
        span.at += row_bytes
        to += area.stride
    return FINE


cdef Fault _draw_two_colours(
    const Area* area, Span* span, const uint32_t* colours
) noexcept nogil:
    """Draw a bit a pixel, the highest first; each row begins with a byte of its own."""
    cdef Palette palette
    palette.colours[0] = colours[0]
    palette.colours[1] = colours[1]
    palette.size = 2
    return _draw_packed(area, span, &palette)


cdef Fault _draw_indices(
    const Area* area, Span* span, const uint32_t* colours, int size
) noexcept nogil:
    """Draw a byte a pixel; ``colours`` has room for 256."""
    cdef uint32_t* to = area.to
    cdef const uint8_t* at = span.at
    cdef Py_ssize_t count = area.width * area.height
    cdef Py_ssize_t i, x
    cdef uint8_t worst = 0
    if span.end - at < count:
        return SHORT
    for i in range(count):
        worst = max(worst, at[i])
    if worst >= size:
        return BAD_INDEX
    for i in range(area.height):
        for x in range(area.width):
            to[x] = colours[at[x]]
        at += area.width
        to += area.stride
    span.at = at
    return FINE


cdef inline int _predict(int left, int above, int corner, int most) noexcept nogil:
    cdef int value = left + above - corner
    return 0 if value < 0 else most if value > most else value


cdef Fault _draw_gradient(const Layout* layout, const Area* area, Span* span) noexcept nogil:
    """Draw what differs from the prediction of each pixel's neighbours."""
    if span.end - span.at < area.width * area.height * layout.tpixel_bytes:
        return SHORT
    if layout.tpixel_bytes == 3:
        _draw_gradient_888(layout, area, span)
    elif area.width > GRADIENT_WIDTH:
        return OUTSIDE
    else:
        _draw_gradient_any(layout, area, span)
    return FINE


cdef void _draw_gradient_888(const Layout* layout, const Area* area, Span* span) noexcept nogil:
    cdef int* shift = <int*>layout.shift
    cdef uint32_t* to = area.to
    cdef const uint32_t* above
    cdef const uint8_t* at = span.at
    cdef uint32_t before, corner
    cdef int red, green, blue, r, g, b
    cdef Py_ssize_t x, y
    for y in range(area.height):
        above = to - area.stride
        red = green = blue = 0
        corner = 0
        for x in range(area.width):
            before = above[x] if y else 0
            r = (before >> shift[0]) & 255
            g = (before >> shift[1]) & 255
            b = (before >> shift[2]) & 255
            red = (_predict(red, r, (corner >> shift[0]) & 255, 255) + at[0]) & 255
            green = (_predict(green, g, (corner >> shift[1]) & 255, 255) + at[1]) & 255
            blue = (_predict(blue, b, (corner >> shift[2]) & 255, 255) + at[2]) & 255
            to[x] = (
                (<uint32_t>red << shift[0])
                | (<uint32_t>green << shift[1])
                | (<uint32_t>blue << shift[2])
            )
            corner = before
            at += 3
        to += area.stride
    span.at = at


cdef void _draw_gradient_any(const Layout* layout, const Area* area, Span* span) noexcept nogil:
    """The same in the server's own colours; a row of them is kept beside the framebuffer."""
    cdef uint32_t[GRADIENT_WIDTH] row
    cdef uint32_t value, before, corner, left, pixel
    cdef uint32_t* to
    cdef const uint8_t* at
    cdef int i, most, shift
    cdef Py_ssize_t x, y
    for x in range(area.width):
        row[x] = 0
    to = area.to
    at = span.at
    for y in range(area.height):
        left = 0
        corner = 0
        for x in range(area.width):
            before = row[x]
            value = _value(layout, at, layout.pixel_bytes)
            pixel = 0
            for i in range(3):
                most = layout.wire_max[i]
                shift = layout.wire_shift[i]
                pixel |= <uint32_t>(
                    (
                        _predict(
                            (left >> shift) & most, (before >> shift) & most,
                            (corner >> shift) & most, most,
                        ) + <int>((value >> shift) & most)
                    ) & most
                ) << shift
            row[x] = pixel
            to[x] = pixel if layout.native else _foreign(layout, pixel)
            left = pixel
            corner = before
            at += layout.pixel_bytes
        to += area.stride
    span.at = at
