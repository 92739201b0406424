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


cdef Py_ssize_t _draw_hextile(
    const Layout* layout, const Area* area, Py_ssize_t number, uint32_t* colours, Span* span,
    Fault* fault,
) noexcept nogil:
    """Draw tiles, from ``number``; return the first that is not whole, or that has a fault.

    ``colours`` are the background and the foreground, which go on from tile to tile.
    """
    cdef int pixel_bytes = layout.pixel_bytes
    cdef Py_ssize_t columns = (area.width + 15) // 16
    cdef Py_ssize_t rows = (area.height + 15) // 16
    cdef Py_ssize_t row, column, width, height, length, count, left, top, w, h
    cdef uint32_t colour
    cdef uint8_t mask
    cdef Area tile
    cdef const uint8_t* at = span.at
    fault[0] = FINE
    if number >= columns * rows:
        return number
    row = number // columns
    column = number % columns
    tile.stride = area.stride
    while row < rows:
        height = min(<Py_ssize_t>16, area.height - 16 * row)
        while column < columns:
            width = min(<Py_ssize_t>16, area.width - 16 * column)
            span.at = at
            left = span.end - at
            if left < 1:
                return row * columns + column
            tile.to = area.to + 16 * row * area.stride + 16 * column
            mask = at[0]
            at += 1
            if mask & HEX_RAW:
                length = width * height * pixel_bytes
                if left < 1 + length:
                    return row * columns + column
                tile.width = width
                tile.height = height
                _blit(layout, &tile, at)
                at += length
                column += 1
                continue
            length = 1
            if mask & HEX_BACKGROUND:
                length += pixel_bytes
            if mask & HEX_FOREGROUND:
                length += pixel_bytes
            count = 0
            if mask & HEX_SUBRECTS:
                if left <= length:
                    return row * columns + column
                count = span.at[length]
                length += 1 + count * (2 + (pixel_bytes if mask & HEX_COLOURED else 0))
            if left < length:
                return row * columns + column
            if mask & HEX_BACKGROUND:
                colours[0] = _pixel(layout, at)
                at += pixel_bytes
            if mask & HEX_FOREGROUND:
                colours[1] = _pixel(layout, at)
                at += pixel_bytes
            _fill(tile.to, tile.stride, width, height, colours[0])
            if mask & HEX_SUBRECTS:
                at += 1
            while count:
                if mask & HEX_COLOURED:
                    colour = _pixel(layout, at)
                    at += pixel_bytes
                else:
                    colour = colours[1]
                left = at[0] >> 4
                top = at[0] & 15
                w = (at[1] >> 4) + 1
                h = (at[1] & 15) + 1
                at += 2
                if left + w > width or top + h > height:
                    fault[0] = OUTSIDE
                    return row * columns + column
                _fill_small(tile.to + top * tile.stride + left, tile.stride, w, h, colour)
                count -= 1
            column += 1
        column = 0
        row += 1
    span.at = at
    return rows * columns


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
