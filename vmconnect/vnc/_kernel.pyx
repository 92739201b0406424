# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The loops over pixels, without the GIL.

Each has its double in Python (`vmconnect.vnc.walk`), with the same contract and the same result.
Every length from the wire is compared before a byte is touched: sums are in Py_ssize_t, and the
largest, 12 + 65535 * 65535 * 4, is far from its end.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memcpy, memmove

cdef enum:
    HEADER_BYTES = 12
    RAW = 0
    COPYRECT = 1
    BUDGET = 1 << 24


cdef inline Py_ssize_t _u16(const uint8_t* at) noexcept nogil:
    return (at[0] << 8) | at[1]


cdef inline int32_t _s32(const uint8_t* at) noexcept nogil:
    return <int32_t>(
        (<uint32_t>at[0] << 24) | (<uint32_t>at[1] << 16) | (<uint32_t>at[2] << 8) | at[3]
    )


cdef inline bint _inside(
    const int32_t* box, int32_t x, int32_t y, int32_t right, int32_t bottom
) noexcept nogil:
    return x >= box[0] and y >= box[1] and right <= box[2] and bottom <= box[3]


cdef Py_ssize_t _add_box(
    int32_t* boxes, Py_ssize_t capacity, Py_ssize_t used,
    int32_t x, int32_t y, int32_t width, int32_t height,
) noexcept nogil:
    """Add an area: `vmconnect.vnc.damage.add_box` says the rule."""
    cdef int32_t right = x + width
    cdef int32_t bottom = y + height
    cdef int32_t* last
    cdef Py_ssize_t i
    if width == 0 or height == 0:
        return used
    if used > 0:
        last = boxes + 4 * (used - 1)
        if _inside(boxes, x, y, right, bottom) or _inside(last, x, y, right, bottom):
            return used
        if x == last[0] and right == last[2] and y <= last[3] and bottom >= last[1]:
            last[1] = min(last[1], y)
            last[3] = max(last[3], bottom)
            return used
        if y == last[1] and bottom == last[3] and x <= last[2] and right >= last[0]:
            last[0] = min(last[0], x)
            last[2] = max(last[2], right)
            return used
    if used == capacity:
        for i in range(1, capacity):
            boxes[0] = min(boxes[0], boxes[4 * i])
            boxes[1] = min(boxes[1], boxes[4 * i + 1])
            boxes[2] = max(boxes[2], boxes[4 * i + 2])
            boxes[3] = max(boxes[3], boxes[4 * i + 3])
        return _add_box(boxes, capacity, 1, x, y, width, height)
    last = boxes + 4 * used
    last[0] = x
    last[1] = y
    last[2] = right
    last[3] = bottom
    return used + 1


cdef inline void _draw(
    uint8_t* to, Py_ssize_t stride, const uint8_t* source, Py_ssize_t row, Py_ssize_t height
) noexcept nogil:
    cdef Py_ssize_t i
    if row == 64:
        # 16 pixels, QEMU's favourite width: a copy of known length is four moves, not a call.
        for i in range(height):
            memcpy(to, source, 64)
            to += stride
            source += 64
    elif row == stride:
        memcpy(to, source, row * height)
    else:
        for i in range(height):
            memcpy(to, source, row)
            to += stride
            source += row


cdef inline void _copy(
    uint8_t* to, const uint8_t* source, Py_ssize_t stride, Py_ssize_t row, Py_ssize_t height
) noexcept nogil:
    cdef Py_ssize_t i
    if to > source:
        # Downwards: begin at the bottom, or a row would be overwritten before it is read.
        to += stride * (height - 1)
        source += stride * (height - 1)
        stride = -stride
    for i in range(height):
        memmove(to, source, row)
        to += stride
        source += stride


def walk(
    const uint8_t[::1] data not None,
    Py_ssize_t start,
    Py_ssize_t stop,
    uint32_t[:, :] pixels not None,
    int32_t[:, ::1] boxes not None,
    Py_ssize_t used,
    Py_ssize_t count,
):
    """Draw plain rectangles, as `vmconnect.vnc.walk.Walk` says."""
    cdef Py_ssize_t screen_height = pixels.shape[0]
    cdef Py_ssize_t screen_width = pixels.shape[1]
    cdef Py_ssize_t stride = pixels.strides[0]
    cdef Py_ssize_t capacity = boxes.shape[0]
    cdef Py_ssize_t x, y, width, height, from_x, from_y, after
    cdef Py_ssize_t position = start
    cdef Py_ssize_t done = 0
    cdef Py_ssize_t drawn = 0
    cdef const uint8_t* at
    cdef uint8_t* screen
    cdef int32_t* box
    if not 0 <= start <= stop <= data.shape[0]:
        raise ValueError("start and stop must lie in the data")
    if boxes.shape[1] != 4 or not 0 <= used <= capacity or capacity < 2:
        raise ValueError("boxes must have the shape (2 or more, 4)")
    if screen_width > 1 and pixels.strides[1] != 4:
        raise ValueError("each row of pixels must be contiguous")
    if stop == start:
        return position, done, used
    with nogil:
        screen = <uint8_t*>&pixels[0, 0]
        box = &boxes[0, 0]
        while done < count and drawn < BUDGET and stop - position >= HEADER_BYTES:
            at = &data[position]
            x = _u16(at)
            y = _u16(at + 2)
            width = _u16(at + 4)
            height = _u16(at + 6)
            if x + width > screen_width or y + height > screen_height:
                break
            after = position + HEADER_BYTES
            if _s32(at + 8) == RAW:
                after += width * height * 4
                if after > stop:
                    break
                if width and height:
                    _draw(
                        screen + y * stride + x * 4, stride,
                        at + HEADER_BYTES, width * 4, height,
                    )
            elif _s32(at + 8) == COPYRECT:
                after += 4
                if after > stop:
                    break
                from_x = _u16(at + HEADER_BYTES)
                from_y = _u16(at + HEADER_BYTES + 2)
                if from_x + width > screen_width or from_y + height > screen_height:
                    break
                if width and height:
                    _copy(
                        screen + y * stride + x * 4, screen + from_y * stride + from_x * 4,
                        stride, width * 4, height,
                    )
            else:
                break
            used = _add_box(
                box, capacity, used,
                <int32_t>x, <int32_t>y, <int32_t>width, <int32_t>height,
            )
            drawn += width * height
            position = after
            done += 1
    return position, done, used
