/* From a JPEG's brightness and colour differences to words (JFIF 1.02; ITU-R BT.601), and the
 * enlarging of differences that have half the resolution: three quarters of the nearer sample and
 * one of the farther, as the JPEG group's software does. */

#ifndef VMCONNECT_JPEG_COLOUR_H
#define VMCONNECT_JPEG_COLOUR_H

#include <stdint.h>

#include "transform.h"

static inline void colour_word(int y, int cb, int cr, int swapped, uint32_t *to) {
    int red = clamped(y + ((91881 * cr + 32768) >> 16));
    int green = clamped(y + ((-22554 * cb - 46802 * cr + 32768) >> 16));
    int blue = clamped(y + ((116130 * cb + 32768) >> 16));
    *to = (uint32_t)(swapped ? red | green << 8 | blue << 16 : blue | green << 8 | red << 16);
}

#ifdef __SSE2__
#define VECTOR __m128i
#define WITH(name) name##_in_half
#define OF(operation) _mm_##operation
#define ZERO _mm_setzero_si128()
#define SAMPLES(from) _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)(from)), zero)
#define STORE(at, low, high)                       \
    _mm_storeu_si128((__m128i *)(at), low);        \
    _mm_storeu_si128((__m128i *)(at) + 1, high)
#define TARGET
#include "colour_vector.h"
#endif

#ifdef VMCONNECT_JPEG_WIDE
#define VECTOR __m256i
#define WITH(name) name##_in_whole
#define OF(operation) _mm256_##operation
#define ZERO _mm256_setzero_si256()
#define SAMPLES(from) _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(from)))
/* Each half has its own pixels' low and high ones. */
#define STORE(at, low, high)                                                                \
    _mm256_storeu_si256((__m256i *)(at), _mm256_permute2x128_si256(low, high, 0x20));       \
    _mm256_storeu_si256((__m256i *)(at) + 1, _mm256_permute2x128_si256(low, high, 0x31))
#define TARGET WIDE
#include "colour_vector.h"
#endif

/* Write `width` words 0x00RRGGBB, or 0x00BBGGRR if `swapped`. */
static void colour_row(const uint8_t *y, const uint8_t *cb, const uint8_t *cr, int width,
                       int swapped, int how, uint32_t *to) {
    int x = 0;
#ifdef VMCONNECT_JPEG_WIDE
    if (how == IN_PAIRS) x = colours_in_whole(y, cb, cr, x, width, swapped, to);
#endif
#ifdef __SSE2__
    if (how != ONE_BY_ONE) x = colours_in_half(y, cb, cr, x, width, swapped, to);
#endif
    (void)how;
    for (; x < width; x++) colour_word(y[x], cb[x] - 128, cr[x] - 128, swapped, to + x);
}

static void grey_row(const uint8_t *y, int width, uint32_t *to) {
    for (int x = 0; x < width; x++) to[x] = y[x] * 0x010101u;
}

/* Two samples for each of `count`. */
static void enlarge_row(const uint8_t *from, int count, uint8_t *to) {
    if (count <= 2) {
        for (int x = 0; x < count; x++) to[2 * x] = to[2 * x + 1] = from[x];
        return;
    }
    to[0] = from[0];
    to[1] = (uint8_t)((3 * from[0] + from[1] + 2) >> 2);
    for (int x = 1; x < count - 1; x++) {
        to[2 * x] = (uint8_t)((3 * from[x] + from[x - 1] + 1) >> 2);
        to[2 * x + 1] = (uint8_t)((3 * from[x] + from[x + 1] + 2) >> 2);
    }
    to[2 * count - 2] = (uint8_t)((3 * from[count - 1] + from[count - 2] + 1) >> 2);
    to[2 * count - 1] = from[count - 1];
}

/* The same in both directions: `far` is the row above or below; `sums` has room for `count`. */
static void enlarge_rows(const uint8_t *near, const uint8_t *far, int count, uint16_t *sums,
                         uint8_t *to) {
    if (count <= 2) {
        for (int x = 0; x < count; x++) to[2 * x] = to[2 * x + 1] = near[x];
        return;
    }
    for (int x = 0; x < count; x++) sums[x] = (uint16_t)(3 * near[x] + far[x]);
    to[0] = (uint8_t)((4 * sums[0] + 8) >> 4);
    to[1] = (uint8_t)((3 * sums[0] + sums[1] + 7) >> 4);
    for (int x = 1; x < count - 1; x++) {
        to[2 * x] = (uint8_t)((3 * sums[x] + sums[x - 1] + 8) >> 4);
        to[2 * x + 1] = (uint8_t)((3 * sums[x] + sums[x + 1] + 7) >> 4);
    }
    to[2 * count - 2] = (uint8_t)((3 * sums[count - 1] + sums[count - 2] + 8) >> 4);
    to[2 * count - 1] = (uint8_t)((4 * sums[count - 1] + 7) >> 4);
}

#endif
