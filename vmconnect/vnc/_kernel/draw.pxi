# Drawing what was found, rectangle by rectangle.

cdef Fault _draw_one(
    const Layout* layout, const Job* job, const Area* area, Span* wire, Span* source,
    int wavelet_level,
) noexcept nogil:
    cdef uint32_t[256] palette
    cdef Py_ssize_t tiles
    cdef Fault fault
    cdef int i
    if job.kind == PIXELS:
        if source.end - source.at < area.width * area.height * layout.pixel_bytes:
            return SHORT
        _blit(layout, area, source.at)
        source.at += area.width * area.height * layout.pixel_bytes
        return FINE
    if job.kind == TPIXELS:
        return _draw_tpixels(layout, area, source)
    if job.kind == BITS or job.kind == INDICES:
        if wire.end - wire.at < job.colours * layout.tpixel_bytes or job.colours > 256:
            return SHORT
        for i in range(job.colours):
            palette[i] = _tpixel(layout, wire.at + i * layout.tpixel_bytes)
        if job.kind == BITS:
            if job.colours == 1:
                palette[1] = palette[0]
            return _draw_two_colours(area, source, palette)
        return _draw_indices(area, source, palette, job.colours)
    if job.kind == FILL:
        if source.end - source.at < layout.tpixel_bytes:
            return SHORT
        _fill(area.to, area.stride, area.width, area.height, _tpixel(layout, source.at))
        return FINE
    if job.kind == GRADIENT:
        return _draw_gradient(layout, area, source)
    if job.kind == ZRLE:
        return _draw_tiles(layout, area, source, 64)
    if job.kind == ZYWRLE:
        return _draw_wavelets(layout, area, source, wavelet_level)
    if job.kind == HEXTILE:
        palette[0] = palette[1] = 0
        tiles = ((area.width + 15) // 16) * ((area.height + 15) // 16)
        if _draw_hextile(layout, area, 0, palette, source, &fault) < tiles and fault == FINE:
            return SHORT
        return fault
    if job.kind == RRE or job.kind == CORRE:
        return _draw_rre(layout, area, source, job.kind == CORRE)
    if job.kind == TRLE:
        return _draw_tiles(layout, area, source, 16)
    return BAD_KIND
