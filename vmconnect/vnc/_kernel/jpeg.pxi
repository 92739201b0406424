# Baseline JPEGs; the decoder itself is in C, for its vectors.

from libc.stddef cimport size_t
from libc.stdlib cimport calloc, free


cdef extern from "_kernel/jpeg/decoder.h":
    cdef enum:
        IN_PAIRS

    ctypedef struct Decoder:
        uint8_t* room

    ctypedef struct Picture:
        uint32_t* to
        Py_ssize_t stride
        int width
        int height
        bint swapped
        int how

    bint jpeg_decode(
        Decoder* decoder, const uint8_t* at, size_t size, const Picture* picture
    ) nogil


cdef bint _decode_jpeg(
    Decoder* decoder, const uint8_t* at, const uint8_t* end, const Area* area, bint swapped,
    int how,
) noexcept nogil:
    """Decode a JPEG into an area of its size; return whether it is one that is decoded here."""
    cdef Picture picture
    if area.width > 65535 or area.height > 65535 or area.width < 1 or area.height < 1:
        return False
    picture.to = area.to
    picture.stride = area.stride
    picture.width = <int>area.width
    picture.height = <int>area.height
    picture.swapped = swapped
    picture.how = how
    return jpeg_decode(decoder, at, end - at, &picture)


cdef class JpegDecoder:
    """Decodes one JPEG at a time; keeps its memory and the last tables for the next."""

    cdef Decoder* _decoder

    def __cinit__(self):
        """Make room for the tables."""
        self._decoder = <Decoder*>calloc(1, sizeof(Decoder))
        if self._decoder == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self._decoder != NULL:
            free(self._decoder.room)
            free(self._decoder)

    def decode(
        self, const uint8_t[::1] data not None, uint32_t[:, :] picture not None, bint swapped,
        int how=IN_PAIRS,
    ):
        """Fill ``picture`` with words 0x00RRGGBB, or 0x00BBGGRR if ``swapped``.

        Returns whether ``data`` is a JPEG that is decoded here, whole, and of that size; if not,
        what is in ``picture`` has no meaning. ``how`` is 0 for no vector instructions, 1 for
        those of every processor, 2 for the best.
        """
        cdef Area area
        cdef bint done
        if not 0 <= how <= IN_PAIRS:
            raise ValueError("how is 0, 1 or 2")
        area.height = picture.shape[0]
        area.width = picture.shape[1]
        if not area.width or not area.height or not data.shape[0]:
            return False
        if area.width > 1 and picture.strides[1] != 4 or picture.strides[0] % 4:
            raise ValueError("rows of pixels must be contiguous, and whole words apart")
        area.to = &picture[0, 0]
        area.stride = picture.strides[0] // 4
        with nogil:
            done = _decode_jpeg(
                self._decoder, &data[0], &data[0] + data.shape[0], &area, swapped, how
            )
        return done
