# How pixels lie in the server's bytes; `vmconnect.vnc.layout` fills it in.

cdef struct Layout:
    # The length of a PIXEL, of a CPIXEL (ZRLE, TRLE) and of a TPIXEL (Tight), in bytes.
    int pixel_bytes
    int cpixel_bytes
    int tpixel_bytes
    # By how many bits a CPIXEL of three bytes is shifted up.
    int cpixel_shift
    bint big_endian
    # The framebuffer has the server's words, as they come.
    bint native
    # Where the framebuffer's words have red, green and blue.
    int[3] shift
    # Where the server's have them, and their greatest values.
    int[3] wire_shift
    int[3] wire_max
    # The framebuffer's word of each pixel of one or two bytes; else empty.
    const uint32_t* colours
    Py_ssize_t colour_count


cdef inline Py_ssize_t _u16(const uint8_t* at) noexcept nogil:
    return (at[0] << 8) | at[1]


cdef inline uint32_t _u32(const uint8_t* at) noexcept nogil:
    return (<uint32_t>at[0] << 24) | (<uint32_t>at[1] << 16) | (<uint32_t>at[2] << 8) | at[3]


cdef inline uint32_t _word(const uint8_t* at) noexcept nogil:
    """A word as the machine has it: little-endian, or the package is not compiled."""
    cdef uint32_t word
    memcpy(&word, at, 4)
    return word


cdef uint32_t _foreign(const Layout* layout, uint32_t value) noexcept nogil:
    """The framebuffer's word for a pixel of another format."""
    cdef uint32_t word = 0
    cdef uint32_t most
    cdef int i
    if layout.pixel_bytes <= 2:
        return layout.colours[value] if value < layout.colour_count else 0
    for i in range(3):
        most = layout.wire_max[i]
        if most:
            word |= <uint32_t>(
                (<uint64_t>((value >> layout.wire_shift[i]) & most) * 255 + most // 2) // most
            ) << layout.shift[i]
    return word


cdef uint32_t _value(const Layout* layout, const uint8_t* at, int count) noexcept nogil:
    """The number that ``count`` bytes are."""
    cdef uint32_t value = 0
    cdef int i
    for i in range(count):
        if layout.big_endian:
            value = (value << 8) | at[i]
        else:
            value |= <uint32_t>at[i] << (8 * i)
    return value


cdef inline uint32_t _pixel(const Layout* layout, const uint8_t* at) noexcept nogil:
    """The framebuffer's word for a PIXEL."""
    if layout.native:
        return _word(at)
    return _foreign(layout, _value(layout, at, layout.pixel_bytes))


cdef inline uint32_t _cpixel(const Layout* layout, const uint8_t* at) noexcept nogil:
    """The framebuffer's word for a CPIXEL (RFC 6143, section 7.7.5)."""
    if layout.native:
        if layout.cpixel_bytes == 3:
            return at[0] | (<uint32_t>at[1] << 8) | (<uint32_t>at[2] << 16)
        return _word(at)
    return _foreign(
        layout, _value(layout, at, layout.cpixel_bytes) << layout.cpixel_shift
    )


cdef inline uint32_t _tpixel(const Layout* layout, const uint8_t* at) noexcept nogil:
    """The framebuffer's word for a TPIXEL (rfbproto, "Tight Encoding")."""
    if layout.tpixel_bytes == 3:
        return (
            (<uint32_t>at[0] << layout.shift[0])
            | (<uint32_t>at[1] << layout.shift[1])
            | (<uint32_t>at[2] << layout.shift[2])
        )
    return _pixel(layout, at)


cdef inline void _pixels(
    const Layout* layout, uint32_t* to, const uint8_t* at, Py_ssize_t count
) noexcept nogil:
    cdef Py_ssize_t i
    if layout.native:
        memcpy(to, at, 4 * count)
        return
    for i in range(count):
        to[i] = _pixel(layout, at + i * layout.pixel_bytes)


cdef inline void _cpixels(
    const Layout* layout, uint32_t* to, const uint8_t* at, Py_ssize_t count
) noexcept nogil:
    cdef Py_ssize_t i
    if layout.native and layout.cpixel_bytes == 3:
        # Four bytes at once, of which one is the next pixel's: not for the last.
        for i in range(count - 1):
            to[i] = _word(at + 3 * i) & 0xFFFFFF
        if count:
            to[count - 1] = _cpixel(layout, at + 3 * (count - 1))
        return
    for i in range(count):
        to[i] = _cpixel(layout, at + i * layout.cpixel_bytes)


cdef inline void _tpixels(
    const Layout* layout, uint32_t* to, const uint8_t* at, Py_ssize_t count
) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint32_t word
    if layout.tpixel_bytes == 3 and layout.shift[1] == 8:
        if layout.shift[0] == 0:
            for i in range(count - 1):
                to[i] = _word(at + 3 * i) & 0xFFFFFF
        else:
            for i in range(count - 1):
                word = _word(at + 3 * i)
                to[i] = ((word & 0xFF) << 16) | (word & 0xFF00) | ((word >> 16) & 0xFF)
        if count:
            to[count - 1] = _tpixel(layout, at + 3 * (count - 1))
        return
    for i in range(count):
        to[i] = _tpixel(layout, at + i * layout.tpixel_bytes)
