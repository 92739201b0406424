# The tiles of TRLE, 16x16, and ZRLE, 64x64 (RFC 6143, sections 7.7.5 and 7.7.6).

cdef struct Palette:
    uint32_t[128] colours
    # 0: there was none yet.
    int size


cdef inline int _index_bits(int colours) noexcept nogil:
    """How many bits a packed index has."""
    return 1 if colours == 2 else 2 if colours <= 4 else 4


cdef Fault _draw_packed(const Area* area, Span* span, const Palette* palette) noexcept nogil:
    """Draw indices of 1, 2 or 4 bits; each row begins with a byte of its own.

    Those past the palette's end are found out when they are drawn: it has room for 16 colours.
    """
    cdef int bits = _index_bits(palette.size)
    cdef uint32_t mask = (1 << bits) - 1
    cdef Py_ssize_t row_bytes = (area.width * bits + 7) // 8
    cdef const uint32_t* colours = palette.colours
    cdef const uint8_t* at = span.at
    cdef uint32_t* to = area.to
    cdef uint32_t index, worst = 0
    cdef uint32_t byte
    cdef uint64_t[4] pairs
    cdef Py_ssize_t i, x
    if (span.end - at) < row_bytes * area.height:
        return SHORT
    if bits == 1:
        for i in range(4):
            pairs[i] = colours[i >> 1] | (<uint64_t>colours[i & 1] << 32)
        for i in range(area.height):
            x = 0
            while x <= area.width - 8:
                byte = at[x >> 3]
                memcpy(to + x, &pairs[byte >> 6], 8)
                memcpy(to + x + 2, &pairs[(byte >> 4) & 3], 8)
                memcpy(to + x + 4, &pairs[(byte >> 2) & 3], 8)
                memcpy(to + x + 6, &pairs[byte & 3], 8)
                x += 8
            while x < area.width:
                to[x] = colours[(at[x >> 3] >> (7 - (x & 7))) & 1]
                x += 1
            at += row_bytes
            to += area.stride
    elif bits == 4:
        for i in range(area.height):
            x = 0
            while x <= area.width - 2:
                byte = at[x >> 1]
                to[x] = colours[byte >> 4]
                to[x + 1] = colours[byte & 15]
                worst = max(worst, max(byte >> 4, byte & 15))
                x += 2
            if x < area.width:
                to[x] = colours[at[x >> 1] >> 4]
                worst = max(worst, <uint32_t>at[x >> 1] >> 4)
            at += row_bytes
            to += area.stride
    else:
        for i in range(area.height):
            for x in range(area.width):
                index = (at[x >> 2] >> (6 - 2 * (x & 3))) & mask
                to[x] = colours[index]
                worst = max(worst, index)
            at += row_bytes
            to += area.stride
    span.at = at
    return FINE if worst < <uint32_t>palette.size else BAD_INDEX


cdef inline Py_ssize_t _run_length(Span* span, Py_ssize_t most) noexcept nogil:
    """Read a length: bytes of 255 and one less, plus one; 0 if the bytes end before it does.

    Of one that is more than ``most``, only as much is read as tells it.
    """
    cdef Py_ssize_t length = 1
    while span.at < span.end:
        length += span.at[0]
        span.at += 1
        if span.at[-1] != 255 or length > most:
            return length
    return 0


cdef Fault _draw_runs(
    const Layout* layout, const Area* area, Span* span, const Palette* palette
) noexcept nogil:
    """Draw runs of CPIXELs, or of a palette's colours, which go on from row to row."""
    cdef Py_ssize_t left = area.width * area.height
    cdef Py_ssize_t room = area.width
    cdef Py_ssize_t length, step
    cdef uint32_t* to = area.to
    cdef uint32_t colour
    cdef uint8_t index
    while left > 0:
        if palette != NULL:
            if span.at >= span.end:
                return SHORT
            index = span.at[0]
            span.at += 1
            if (index & 127) >= palette.size:
                return BAD_INDEX
            colour = palette.colours[index & 127]
            length = 1
            if index & 128:
                length = _run_length(span, left)
        else:
            if span.end - span.at <= layout.cpixel_bytes:
                return SHORT
            colour = _cpixel(layout, span.at)
            span.at += layout.cpixel_bytes
            length = _run_length(span, left)
        if length == 0:
            return SHORT
        left -= length
        if left < 0:
            return BAD_RUN
        while length >= room:
            _run(to, room, colour)
            to += room + area.stride - area.width
            length -= room
            room = area.width
        if length:
            for step in range(length):
                to[step] = colour
            to += length
            room -= length
    return FINE


cdef Fault _read_palette(
    const Layout* layout, Span* span, Palette* palette, int size
) noexcept nogil:
    cdef int i
    if span.end - span.at < size * layout.cpixel_bytes:
        return SHORT
    for i in range(size):
        palette.colours[i] = _cpixel(layout, span.at)
        span.at += layout.cpixel_bytes
    palette.size = size
    return FINE


cdef Fault _draw_tile(
    const Layout* layout, const Area* area, Span* span, Palette* palette, bint trle
) noexcept nogil:
    cdef Py_ssize_t row_bytes, i
    cdef uint32_t* to
    cdef Fault fault
    cdef uint8_t kind
    if span.at >= span.end:
        return SHORT
    kind = span.at[0]
    span.at += 1
    if kind == 0:
        row_bytes = area.width * layout.cpixel_bytes
        if span.end - span.at < row_bytes * area.height:
            return SHORT
        to = area.to
        for i in range(area.height):
            _cpixels(layout, to, span.at, area.width)
            span.at += row_bytes
            to += area.stride
        return FINE
    if kind == 1:
        if span.end - span.at < layout.cpixel_bytes:
            return SHORT
        _fill(area.to, area.stride, area.width, area.height, _cpixel(layout, span.at))
        span.at += layout.cpixel_bytes
        return FINE
    if kind <= 16:
        fault = _read_palette(layout, span, palette, kind)
        return fault if fault != FINE else _draw_packed(area, span, palette)
    if kind == 128:
        return _draw_runs(layout, area, span, NULL)
    if kind >= 130:
        fault = _read_palette(layout, span, palette, kind - 128)
        return fault if fault != FINE else _draw_runs(layout, area, span, palette)
    if trle and palette.size:
        if kind == 129:
            return _draw_runs(layout, area, span, palette)
        if kind == 127 and palette.size <= 16:
            return _draw_packed(area, span, palette)
    return BAD_KIND


cdef Fault _draw_tiles(
    const Layout* layout, const Area* area, Span* span, int side
) noexcept nogil:
    """Draw all tiles of a rectangle, ``side`` pixels wide and high: 16 for TRLE, else ZRLE."""
    cdef Palette palette
    cdef Py_ssize_t x, y
    cdef Area tile
    cdef Fault fault
    palette.size = 0
    memset(palette.colours, 0, 16 * 4)
    tile.stride = area.stride
    y = 0
    while y < area.height:
        tile.height = min(<Py_ssize_t>side, area.height - y)
        x = 0
        while x < area.width:
            tile.width = min(<Py_ssize_t>side, area.width - x)
            tile.to = area.to + y * area.stride + x
            fault = _draw_tile(layout, &tile, span, &palette, side == 16)
            if fault != FINE:
                return fault
            x += side
        y += side
    return FINE


cdef Py_ssize_t _draw_zrle_from(
    const Layout* layout, const Area* area, Py_ssize_t number, Span* span, Fault* fault
) noexcept nogil:
    """Draw ZRLE's tiles, from ``number``; return the first that is not whole, or has a fault."""
    cdef Palette palette
    cdef Py_ssize_t columns = (area.width + 63) // 64
    cdef Py_ssize_t count = columns * ((area.height + 63) // 64)
    cdef Py_ssize_t x, y
    cdef const uint8_t* start
    cdef Area tile
    fault[0] = FINE
    palette.size = 0
    memset(palette.colours, 0, 16 * 4)
    tile.stride = area.stride
    while number < count:
        y = 64 * (number // columns)
        x = 64 * (number % columns)
        tile.height = min(<Py_ssize_t>64, area.height - y)
        tile.width = min(<Py_ssize_t>64, area.width - x)
        tile.to = area.to + y * area.stride + x
        start = span.at
        fault[0] = _draw_tile(layout, &tile, span, &palette, False)
        if fault[0] != FINE:
            span.at = start
            if fault[0] == SHORT:
                fault[0] = FINE
            return number
        number += 1
    return number


cdef Py_ssize_t _measure_runs(
    Span* span, Py_ssize_t pixels, int cpixel_bytes, bint indexed
) noexcept nogil:
    """Go past runs for that many pixels; return whether they are whole. Bad ones end it too."""
    cdef Py_ssize_t length
    while pixels > 0:
        if indexed:
            if span.at >= span.end:
                return 0
            span.at += 1
            length = _run_length(span, pixels) if span.at[-1] & 128 else 1
        else:
            if span.end - span.at < cpixel_bytes:
                return 0
            span.at += cpixel_bytes
            length = _run_length(span, pixels)
        if length == 0:
            return 0
        pixels -= length
    return 1


cdef Py_ssize_t _measure_trle(
    int cpixel_bytes, Py_ssize_t width, Py_ssize_t height, Py_ssize_t tile, int* colours,
    Span* span,
) noexcept nogil:
    """Go past tiles, from number ``tile``; return the first that is not whole.

    ``colours`` is the size of the palette before. A tile that is not allowed counts as one byte:
    drawing it will tell.
    """
    cdef Py_ssize_t columns = (width + 15) // 16
    cdef Py_ssize_t count = columns * ((height + 15) // 16)
    cdef Py_ssize_t w, h, length
    cdef const uint8_t* start
    cdef uint8_t kind
    cdef int size
    while tile < count:
        start = span.at
        if span.at >= span.end:
            return tile
        w = min(<Py_ssize_t>16, width - 16 * (tile % columns))
        h = min(<Py_ssize_t>16, height - 16 * (tile // columns))
        kind = span.at[0]
        span.at += 1
        size = colours[0]
        length = 0
        if kind == 0:
            length = w * h * cpixel_bytes
        elif kind == 1:
            length = cpixel_bytes
        elif kind <= 16:
            size = kind
            length = size * cpixel_bytes + h * ((w * _index_bits(size) + 7) // 8)
        elif kind == 127 and 0 < size <= 16:
            length = h * ((w * _index_bits(size) + 7) // 8)
        elif kind >= 130:
            size = kind - 128
            length = size * cpixel_bytes
        if span.end - span.at < length:
            span.at = start
            return tile
        span.at += length
        if (kind == 128 or kind >= 130 or (kind == 129 and size)) and not _measure_runs(
            span, w * h, cpixel_bytes, kind != 128
        ):
            span.at = start
            return tile
        colours[0] = size
        tile += 1
    return tile
