# A rectangle of the framebuffer, and what is drawn into it whole.

cdef struct Area:
    uint32_t* to
    # From one row to the next, in words.
    Py_ssize_t stride
    Py_ssize_t width
    Py_ssize_t height


cdef struct Span:
    # The bytes that are still to be read, [at, end), in what begins at base.
    const uint8_t* base
    const uint8_t* at
    const uint8_t* end


cdef inline void _run(uint32_t* to, Py_ssize_t count, uint32_t colour) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        to[i] = colour


cdef inline void _fill(
    uint32_t* to, Py_ssize_t stride, Py_ssize_t width, Py_ssize_t height, uint32_t colour
) noexcept nogil:
    cdef Py_ssize_t i
    if width == 16:
        # A constant count is four stores.
        for i in range(height):
            _run(to, 16, colour)
            to += stride
        return
    for i in range(height):
        _run(to, width, colour)
        to += stride


cdef inline void _blit(
    const Layout* layout, const Area* area, const uint8_t* source
) noexcept nogil:
    """Draw PIXELs that fill the area, row by row."""
    cdef uint32_t* to = area.to
    cdef Py_ssize_t row = area.width * layout.pixel_bytes
    cdef Py_ssize_t i
    if layout.native:
        if row == 64:
            # 16 pixels, QEMU's favourite width: a copy of known length is four moves, not a call.
            for i in range(area.height):
                memcpy(to, source, 64)
                to += area.stride
                source += 64
            return
        if area.width == area.stride:
            memcpy(to, source, row * area.height)
            return
    for i in range(area.height):
        _pixels(layout, to, source, area.width)
        to += area.stride
        source += row


cdef inline void _paste(const Area* area, const uint32_t* source) noexcept nogil:
    """Draw words that fill the area, row by row."""
    cdef uint32_t* to = area.to
    cdef Py_ssize_t i
    for i in range(area.height):
        memcpy(to, source, 4 * area.width)
        to += area.stride
        source += area.width


cdef inline void _copy(const Area* area, const uint32_t* source) noexcept nogil:
    """Draw another part of the framebuffer, which may overlap."""
    cdef uint32_t* to = area.to
    cdef Py_ssize_t stride = area.stride
    cdef Py_ssize_t i
    if to > source:
        # Downwards: begin at the bottom, or a row would be overwritten before it is read.
        to += stride * (area.height - 1)
        source += stride * (area.height - 1)
        stride = -stride
    for i in range(area.height):
        memmove(to, source, 4 * area.width)
        to += stride
        source += stride
