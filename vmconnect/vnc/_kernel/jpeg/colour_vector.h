/* Colours in vectors: VECTOR holds 8 or 16 values of 16 bits. Included once for each width. */

/* The upper 16 bits of a sum of two products, each of a value with its factor, and of `more`. */
#define SCALED(a, b, by, more)                                                               \
    OF(packs_epi32)(                                                                         \
        OF(srai_epi32)(OF(add_epi32)(OF(madd_epi16)(OF(unpacklo_epi16)(a, b), by), more), 16), \
        OF(srai_epi32)(OF(add_epi32)(OF(madd_epi16)(OF(unpackhi_epi16)(a, b), by), more), 16))

/* Write words from `x` on, as many as whole vectors have; return where it stopped. */
TARGET static inline int WITH(colours)(const uint8_t *y, const uint8_t *cb, const uint8_t *cr, int x,
                                       int width, int swapped, uint32_t *to) {
    const VECTOR zero = ZERO, middle = OF(set1_epi16)(128), two = OF(set1_epi16)(2);
    const VECTOR half = OF(set1_epi32)(32768);
    /* The factors without their whole parts, which are added apart: 16 bits hold the rest. */
    const VECTOR by_red = OF(set1_epi32)(PAIR_OF(91881 - 65536, 16384));
    const VECTOR by_blue = OF(set1_epi32)(PAIR_OF(116130 - 131072, 16384));
    const VECTOR by_green = OF(set1_epi32)(PAIR_OF(-22554, 65536 - 46802));
    const int count = (int)sizeof(VECTOR) / 2;
    for (; x + count <= width; x += count) {
        VECTOR light = SAMPLES(y + x), b = OF(sub_epi16)(SAMPLES(cb + x), middle);
        VECTOR r = OF(sub_epi16)(SAMPLES(cr + x), middle);
        VECTOR red = OF(add_epi16)(OF(add_epi16)(light, r), SCALED(r, two, by_red, zero));
        VECTOR blue = OF(add_epi16)(OF(add_epi16)(light, OF(add_epi16)(b, b)),
                                    SCALED(b, two, by_blue, zero));
        VECTOR green = OF(add_epi16)(OF(sub_epi16)(light, r), SCALED(b, r, by_green, half));
        VECTOR low = OF(packus_epi16)(swapped ? red : blue, zero);
        VECTOR high = OF(packus_epi16)(swapped ? blue : red, zero);
        VECTOR lower = OF(unpacklo_epi8)(low, OF(packus_epi16)(green, zero));
        VECTOR upper = OF(unpacklo_epi8)(high, zero);
        STORE(to + x, OF(unpacklo_epi16)(lower, upper), OF(unpackhi_epi16)(lower, upper));
    }
    return x;
}

#undef SCALED
#undef VECTOR
#undef WITH
#undef OF
#undef ZERO
#undef SAMPLES
#undef STORE
#undef TARGET
