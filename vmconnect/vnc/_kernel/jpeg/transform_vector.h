/* The transform in vectors: VECTOR holds eight values of 16 bits, or two times eight, that go
 * through the same operations, OF(operation). Included once for each width. */

#define SUM(a, b) OF(add_epi32)(a, b)
#define LESS(a, b) OF(sub_epi32)(a, b)
#define PRODUCTS(pair, a, b) OF(madd_epi16)(pair, OF(set1_epi32)(PAIR_OF(a, b)))

/* Eight lines at once: value i of each is in rows[i]. */
TARGET static inline void WITH(transform_rows)(VECTOR rows[8], int shift) {
    const VECTOR half = OF(set1_epi32)(1 << (shift - 1)), zero = ZERO;
    VECTOR out[8][2];
    VECTOR z13 = OF(add_epi16)(rows[7], rows[3]), z24 = OF(add_epi16)(rows[5], rows[1]);
    VECTOR sum = OF(add_epi16)(rows[0], rows[4]), less = OF(sub_epi16)(rows[0], rows[4]);
    for (int part = 0; part < 2; part++) {
        /* Of two rows in pairs, sums of two products are one operation. */
#define BOTH(a, b) (part ? OF(unpackhi_epi16)(a, b) : OF(unpacklo_epi16)(a, b))
        VECTOR p26 = BOTH(rows[2], rows[6]), p71 = BOTH(rows[7], rows[1]);
        VECTOR p53 = BOTH(rows[5], rows[3]), z = BOTH(z13, z24);
        VECTOR t3 = PRODUCTS(p26, C0_541 + C0_765, C0_541);
        VECTOR t2 = PRODUCTS(p26, C0_541, C0_541 - C1_847);
        VECTOR t0 = SUM(OF(srai_epi32)(BOTH(zero, sum), 16 - POINT), half);
        VECTOR t1 = SUM(OF(srai_epi32)(BOTH(zero, less), 16 - POINT), half);
        VECTOR z3 = PRODUCTS(z, C1_175 - C1_961, C1_175);
        VECTOR z4 = PRODUCTS(z, C1_175, C1_175 - C0_390);
        VECTOR o0 = SUM(PRODUCTS(p71, C0_298 - C0_899, -C0_899), z3);
        VECTOR o3 = SUM(PRODUCTS(p71, -C0_899, C1_501 - C0_899), z4);
        VECTOR o1 = SUM(PRODUCTS(p53, C2_053 - C2_562, -C2_562), z4);
        VECTOR o2 = SUM(PRODUCTS(p53, -C2_562, C3_072 - C2_562), z3);
        VECTOR e0 = SUM(t0, t3), e3 = LESS(t0, t3), e1 = SUM(t1, t2), e2 = LESS(t1, t2);
#undef BOTH
        out[0][part] = OF(srai_epi32)(SUM(e0, o3), shift);
        out[7][part] = OF(srai_epi32)(LESS(e0, o3), shift);
        out[1][part] = OF(srai_epi32)(SUM(e1, o2), shift);
        out[6][part] = OF(srai_epi32)(LESS(e1, o2), shift);
        out[2][part] = OF(srai_epi32)(SUM(e2, o1), shift);
        out[5][part] = OF(srai_epi32)(LESS(e2, o1), shift);
        out[3][part] = OF(srai_epi32)(SUM(e3, o0), shift);
        out[4][part] = OF(srai_epi32)(LESS(e3, o0), shift);
    }
    for (int i = 0; i < 8; i++) rows[i] = OF(packs_epi32)(out[i][0], out[i][1]);
}

TARGET static inline void WITH(transpose)(VECTOR rows[8]) {
    VECTOR a[8], b[8];
    for (int i = 0; i < 4; i++) {
        a[2 * i] = OF(unpacklo_epi16)(rows[2 * i], rows[2 * i + 1]);
        a[2 * i + 1] = OF(unpackhi_epi16)(rows[2 * i], rows[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        b[4 * i] = OF(unpacklo_epi32)(a[4 * i], a[4 * i + 2]);
        b[4 * i + 1] = OF(unpackhi_epi32)(a[4 * i], a[4 * i + 2]);
        b[4 * i + 2] = OF(unpacklo_epi32)(a[4 * i + 1], a[4 * i + 3]);
        b[4 * i + 3] = OF(unpackhi_epi32)(a[4 * i + 1], a[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        rows[2 * i] = OF(unpacklo_epi64)(b[i], b[i + 4]);
        rows[2 * i + 1] = OF(unpackhi_epi64)(b[i], b[i + 4]);
    }
}

/* From rows of coefficients to rows of samples, two in each of the first four. */
TARGET static inline void WITH(transform)(VECTOR rows[8]) {
    const VECTOR middle = OF(set1_epi8)((char)128);
    WITH(transform_rows)(rows, POINT - KEPT);
    WITH(transpose)(rows);
    WITH(transform_rows)(rows, POINT + KEPT + 3);
    WITH(transpose)(rows);
    for (int i = 0; i < 4; i++)
        rows[i] = OF(add_epi8)(OF(packs_epi16)(rows[2 * i], rows[2 * i + 1]), middle);
}

#undef SUM
#undef LESS
#undef PRODUCTS
#undef VECTOR
#undef WITH
#undef OF
#undef ZERO
#undef TARGET
