/* The inverse cosine transform of 8x8 coefficients (ITU-T T.81, section A.3.3), in integers.
 *
 * After Loeffler, Ligtenberg and Moschytz, "Practical fast 1-D DCT algorithms with 11
 * multiplications" (1989), with 13 bits after the point and two more kept between the passes:
 * the very numbers of the JPEG group's accurate integer method, so that pictures are equal. */

#ifndef VMCONNECT_JPEG_TRANSFORM_H
#define VMCONNECT_JPEG_TRANSFORM_H

#include <stddef.h>
#include <stdint.h>

/* Where a processor may have more than every one of its kind, that is asked when it runs. */
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define VMCONNECT_JPEG_WIDE
#define WIDE __attribute__((target("avx2,bmi2")))
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

/* How much is done at once: one value, eight of them, or two times eight. */
enum { ONE_BY_ONE, IN_VECTORS, IN_PAIRS };

enum {
    POINT = 13,
    KEPT = 2,
    C0_298 = 2446,
    C0_390 = 3196,
    C0_541 = 4433,
    C0_765 = 6270,
    C0_899 = 7373,
    C1_175 = 9633,
    C1_501 = 12299,
    C1_847 = 15137,
    C1_961 = 16069,
    C2_053 = 16819,
    C2_562 = 20995,
    C3_072 = 25172,
};

static inline uint8_t clamped(int value) {
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* One dimension of eight values, `step` apart, into `to`; `shift` of the 13 bits and more go. */
static inline void transform_line(const int32_t *in, int32_t *to, int step, int shift) {
    int32_t even = (in[2 * step] + in[6 * step]) * C0_541;
    int32_t t2 = even - in[6 * step] * C1_847, t3 = even + in[2 * step] * C0_765;
    int32_t t0 = (int32_t)((uint32_t)(in[0] + in[4 * step]) << POINT);
    int32_t t1 = (int32_t)((uint32_t)(in[0] - in[4 * step]) << POINT);
    int32_t half = 1 << (shift - 1);
    int32_t e0 = t0 + t3 + half, e3 = t0 - t3 + half, e1 = t1 + t2 + half, e2 = t1 - t2 + half;
    int32_t i1 = in[step], i3 = in[3 * step], i5 = in[5 * step], i7 = in[7 * step];
    int32_t z5 = (i7 + i3 + i5 + i1) * C1_175;
    int32_t z1 = -(i7 + i1) * C0_899, z2 = -(i5 + i3) * C2_562;
    int32_t z3 = z5 - (i7 + i3) * C1_961, z4 = z5 - (i5 + i1) * C0_390;
    int32_t o0 = i7 * C0_298 + z1 + z3, o1 = i5 * C2_053 + z2 + z4;
    int32_t o2 = i3 * C3_072 + z2 + z3, o3 = i1 * C1_501 + z1 + z4;
    to[0] = (e0 + o3) >> shift;
    to[7 * step] = (e0 - o3) >> shift;
    to[step] = (e1 + o2) >> shift;
    to[6 * step] = (e1 - o2) >> shift;
    to[2 * step] = (e2 + o1) >> shift;
    to[5 * step] = (e2 - o1) >> shift;
    to[3 * step] = (e3 + o0) >> shift;
    to[4 * step] = (e3 - o0) >> shift;
}

static void transform_plain(const int16_t *block, uint8_t *to, ptrdiff_t stride) {
    int32_t values[64], line[8];
    for (int i = 0; i < 64; i++) values[i] = block[i];
    for (int x = 0; x < 8; x++) {
        int32_t column[64];
        for (int y = 0; y < 8; y++) column[y] = values[8 * y + x];
        transform_line(column, line, 1, POINT - KEPT);
        for (int y = 0; y < 8; y++) values[8 * y + x] = line[y];
    }
    for (int y = 0; y < 8; y++, to += stride) {
        transform_line(values + 8 * y, line, 1, POINT + KEPT + 3);
        for (int x = 0; x < 8; x++) to[x] = clamped(line[x] + 128);
    }
}

#ifdef __SSE2__

#define PAIR_OF(a, b) ((int)((uint32_t)(uint16_t)(b) << 16 | (uint16_t)(a)))
#define PAIR(a, b) _mm_set1_epi32(PAIR_OF(a, b))

/* One block at a time, in the registers that every x86-64 has. */
#define VECTOR __m128i
#define WITH(name) name##_in_half
#define OF(operation) _mm_##operation
#define ZERO _mm_setzero_si128()
#define TARGET
#include "transform_vector.h"

static inline void transform_one(const int16_t *block, uint8_t *to, ptrdiff_t stride) {
    __m128i rows[8];
    for (int i = 0; i < 8; i++) rows[i] = _mm_loadu_si128((const __m128i *)(block + 8 * i));
    transform_in_half(rows);
    for (int i = 0; i < 4; i++, to += 2 * stride) {
        _mm_storel_epi64((__m128i *)to, rows[i]);
        _mm_storel_epi64((__m128i *)(to + stride), _mm_srli_si128(rows[i], 8));
    }
}

#endif

#ifdef VMCONNECT_JPEG_WIDE

/* Two blocks at a time, one in each half of a register. */
#define VECTOR __m256i
#define WITH(name) name##_in_whole
#define OF(operation) _mm256_##operation
#define ZERO _mm256_setzero_si256()
#define TARGET WIDE
#include "transform_vector.h"

WIDE static inline void transform_two(int16_t blocks[2][64], uint8_t *const to[2],
                                      const ptrdiff_t strides[2]) {
    __m256i rows[8];
    for (int i = 0; i < 8; i++) {
        __m128i one = _mm_load_si128((const __m128i *)(blocks[0] + 8 * i));
        __m128i other = _mm_load_si128((const __m128i *)(blocks[1] + 8 * i));
        rows[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(one), other, 1);
    }
    transform_in_whole(rows);
    for (int part = 0; part < 2; part++) {
        uint8_t *at = to[part];
        for (int i = 0; i < 4; i++, at += 2 * strides[part]) {
            __m128i two = part ? _mm256_extracti128_si256(rows[i], 1) : _mm256_castsi256_si128(rows[i]);
            _mm_storel_epi64((__m128i *)at, two);
            _mm_storel_epi64((__m128i *)(at + strides[part]), _mm_srli_si128(two, 8));
        }
    }
}

#endif

/* A block of which only the mean is not 0. */
static inline void transform_flat(int mean, uint8_t *to, ptrdiff_t stride) {
    uint64_t all = clamped(((mean + 4) >> 3) + 128) * 0x0101010101010101u;
    for (int y = 0; y < 8; y++, to += stride) memcpy(to, &all, 8);
}

#endif
