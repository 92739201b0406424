# Hextile: tiles of 16x16, each Raw or a background and subrectangles (RFC 6143, section 7.7.4).

cdef enum:
    HEX_RAW = 1
    HEX_BACKGROUND = 2
    HEX_FOREGROUND = 4
    HEX_SUBRECTS = 8
    HEX_COLOURED = 16


cdef Py_ssize_t _measure_hextile(
    int pixel_bytes, Py_ssize_t width, Py_ssize_t height, Py_ssize_t tile, Span* span,
) noexcept nogil:
    """Go past tiles, from number ``tile``; return the first that is not whole."""
    cdef Py_ssize_t columns = (width + 15) // 16
    cdef Py_ssize_t rows = (height + 15) // 16
    cdef Py_ssize_t column, row, length, left
    cdef uint8_t mask
    if tile >= columns * rows:
        return tile
    row = tile // columns
    column = tile % columns
    while row < rows:
        while column < columns:
            left = span.end - span.at
            if left < 1:
                return row * columns + column
            mask = span.at[0]
            length = 1
            if mask & HEX_RAW:
                length += (
                    min(<Py_ssize_t>16, width - 16 * column)
                    * min(<Py_ssize_t>16, height - 16 * row) * pixel_bytes
                )
            else:
                if mask & HEX_BACKGROUND:
                    length += pixel_bytes
                if mask & HEX_FOREGROUND:
                    length += pixel_bytes
                if mask & HEX_SUBRECTS:
                    if left <= length:
                        return row * columns + column
                    length += 1 + span.at[length] * (
                        2 + (pixel_bytes if mask & HEX_COLOURED else 0)
                    )
            if left < length:
                return row * columns + column
            span.at += length
            column += 1
        column = 0
        row += 1
    return rows * columns


cdef Fault _draw_hextile(const Layout* layout, const Area* area, Span* span) noexcept nogil:
    cdef int pixel_bytes = layout.pixel_bytes
    cdef Py_ssize_t x, y, width, height, count, left, top, w, h
    cdef uint32_t background = 0
    cdef uint32_t foreground = 0
    cdef uint32_t colour
    cdef uint8_t mask
    cdef Area tile
    cdef const uint8_t* at = span.at
    tile.stride = area.stride
    for y in range(0, area.height, 16):
        height = min(<Py_ssize_t>16, area.height - y)
        for x in range(0, area.width, 16):
            width = min(<Py_ssize_t>16, area.width - x)
            tile.to = area.to + y * area.stride + x
            if span.end - at < 1:
                return SHORT
            mask = at[0]
            at += 1
            if mask & HEX_RAW:
                if span.end - at < width * height * pixel_bytes:
                    return SHORT
                tile.width = width
                tile.height = height
                _blit(layout, &tile, at)
                at += width * height * pixel_bytes
                continue
            if span.end - at < 2 * pixel_bytes + 1:
                # Hardly ever: near the end of the bytes, each piece is asked for.
                if span.end - at < (
                    (pixel_bytes if mask & HEX_BACKGROUND else 0)
                    + (pixel_bytes if mask & HEX_FOREGROUND else 0)
                    + (1 if mask & HEX_SUBRECTS else 0)
                ):
                    return SHORT
            if mask & HEX_BACKGROUND:
                background = _pixel(layout, at)
                at += pixel_bytes
            if mask & HEX_FOREGROUND:
                foreground = _pixel(layout, at)
                at += pixel_bytes
            _fill(tile.to, tile.stride, width, height, background)
            if not mask & HEX_SUBRECTS:
                continue
            count = at[0]
            at += 1
            if span.end - at < count * (2 + (pixel_bytes if mask & HEX_COLOURED else 0)):
                return SHORT
            while count:
                if mask & HEX_COLOURED:
                    colour = _pixel(layout, at)
                    at += pixel_bytes
                else:
                    colour = foreground
                left = at[0] >> 4
                top = at[0] & 15
                w = (at[1] >> 4) + 1
                h = (at[1] & 15) + 1
                at += 2
                if left + w > width or top + h > height:
                    return OUTSIDE
                _fill_small(tile.to + top * tile.stride + left, tile.stride, w, h, colour)
                count -= 1
    span.at = at
    return FINE


cdef inline void _fill_small(
    uint32_t* to, Py_ssize_t stride, Py_ssize_t width, Py_ssize_t height, uint32_t colour
) noexcept nogil:
    """Fill at most 16x16 pixels, mostly far fewer: no call, no set-up."""
    cdef uint64_t pair = (<uint64_t>colour << 32) | colour
    cdef uint32_t* end = to + stride * height
    cdef Py_ssize_t i
    if width == 1:
        while to != end:
            to[0] = colour
            to += stride
        return
    # Two at a time; the last pair may overlap the one before.
    while to != end:
        i = 0
        while i < width - 1:
            memcpy(to + i, &pair, 8)
            i += 2
        memcpy(to + width - 2, &pair, 8)
        to += stride
