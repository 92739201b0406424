# What is drawn, in a bounded number of boxes: `vmconnect.vnc.damage` says the rule.

cdef inline bint _inside(
    const int32_t* box, int32_t x, int32_t y, int32_t right, int32_t bottom
) noexcept nogil:
    return x >= box[0] and y >= box[1] and right <= box[2] and bottom <= box[3]


cdef Py_ssize_t _add_box(
    int32_t* boxes, Py_ssize_t capacity, Py_ssize_t used,
    int32_t x, int32_t y, int32_t width, int32_t height,
) noexcept nogil:
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
