# ZYWRLE: ZRLE whose raw tiles hold wavelet coefficients; `encodings.zywrle` says how.

cdef inline void _haar(int8_t* low, int8_t* high) noexcept nogil:
    """Undo (or do: it is its own inverse) the piecewise-linear Haar transform of two values."""
    cdef int a = low[0]
    cdef int b = high[0]
    cdef int first = a
    cdef int second = b
    if (a ^ b) & 0x80:
        b += a
        if not (b ^ second) & 0x80:
            a -= b
    else:
        a -= b
        if not (a ^ first) & 0x80:
            b += a
    low[0] = <int8_t>b
    high[0] = <int8_t>a


cdef void _undo_level(
    int8_t* line, Py_ssize_t count, Py_ssize_t apart, int level
) noexcept nogil:
    """Undo one level along a line of ``count`` pixels of 4 bytes, ``apart`` bytes each."""
    cdef Py_ssize_t pair = apart << level
    cdef Py_ssize_t i
    for i in range(count >> (level + 1)):
        _haar(line, line + pair)
        _haar(line + 1, line + 1 + pair)
        _haar(line + 2, line + 2 + pair)
        line += 2 * pair


cdef inline uint32_t _rounded(int value) noexcept nogil:
    return 0 if value < 0 else 255 if value > 255 else value


cdef Fault _synthesize(const Layout* layout, const Area* area, int level) noexcept nogil:
    """Turn the coefficients in a tile of the framebuffer into pixels."""
    # A tile has at most 64x64 pixels.
    cdef uint32_t[4096] wire
    cdef int8_t[16384] field
    cdef Py_ssize_t width = area.width & ~((<Py_ssize_t>1 << level) - 1)
    cdef Py_ssize_t height = area.height & ~((<Py_ssize_t>1 << level) - 1)
    cdef Py_ssize_t x, y, step, half
    cdef uint32_t* next = wire
    cdef int8_t* at
    cdef int i, band, luma, u, v, green
    if width == 0 or height == 0:
        return FINE
    for y in range(area.height):
        memcpy(&wire[y * area.width], area.to + y * area.stride, 4 * area.width)
    for i in range(level):
        half = <Py_ssize_t>1 << i
        step = 2 * half
        for band in range(3, -1 if i == level - 1 else 0, -1):
            y = half if band & 2 else 0
            while y < height:
                x = half if band & 1 else 0
                while x < width:
                    at = &field[4 * (y * width + x)]
                    at[0] = <int8_t>((next[0] >> layout.shift[2]) & 255)
                    at[1] = <int8_t>((next[0] >> layout.shift[1]) & 255)
                    at[2] = <int8_t>((next[0] >> layout.shift[0]) & 255)
                    next += 1
                    x += step
                y += step
    for i in range(level - 1, -1, -1):
        step = <Py_ssize_t>1 << i
        x = 0
        while x < width:
            _undo_level(&field[4 * x], height, 4 * width, i)
            x += step
        y = 0
        while y < height:
            _undo_level(&field[4 * y * width], width, 4, i)
            y += step
    for y in range(height):
        for x in range(width):
            at = &field[4 * (y * width + x)]
            u = 2 * at[0]
            luma = at[1] + 128
            v = 2 * at[2]
            green = luma - ((u + v) >> 2)
            area.to[y * area.stride + x] = (
                (_rounded(v + green) << layout.shift[0])
                | (_rounded(green) << layout.shift[1])
                | (_rounded(u + green) << layout.shift[2])
            )
    # What is left over at the right, at the bottom and in the corner was not transformed.
    for y in range(height):
        memcpy(area.to + y * area.stride + width, next, 4 * (area.width - width))
        next += area.width - width
    for y in range(height, area.height):
        memcpy(area.to + y * area.stride, next, 4 * width)
        next += width
    for y in range(height, area.height):
        memcpy(area.to + y * area.stride + width, next, 4 * (area.width - width))
        next += area.width - width
    return FINE


cdef Fault _draw_wavelets(
    const Layout* layout, const Area* area, Span* span, int level
) noexcept nogil:
    cdef Palette palette
    cdef Py_ssize_t x, y
    cdef Area tile
    cdef Fault fault
    cdef bint transformed
    if not layout.native or not 0 <= level <= 3:
        return BAD_KIND
    palette.size = 0
    memset(palette.colours, 0, 16 * 4)
    tile.stride = area.stride
    for y in range(0, area.height, 64):
        tile.height = min(<Py_ssize_t>64, area.height - y)
        for x in range(0, area.width, 64):
            tile.width = min(<Py_ssize_t>64, area.width - x)
            tile.to = area.to + y * area.stride + x
            transformed = level > 0 and span.at < span.end and span.at[0] == 0
            if transformed:
                span.at += 1
            fault = _draw_tile(layout, &tile, span, &palette, False)
            if fault == FINE and transformed:
                fault = _synthesize(layout, &tile, level)
            if fault != FINE:
                return fault
    return FINE
