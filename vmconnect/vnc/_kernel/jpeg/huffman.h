/* Huffman codes of a JPEG (ITU-T T.81, annex C and section F.2.2), read by the table.
 *
 * The bits of a scan are read from a copy without stuffed bytes, so that eight bytes can be taken
 * at once. A look at the next LOOK bits gives a short code together with the value that follows
 * it; longer ones are found by their length. */

#ifndef VMCONNECT_JPEG_HUFFMAN_H
#define VMCONNECT_JPEG_HUFFMAN_H

#include <stdint.h>
#include <string.h>

enum { LOOK = 11 };

/* What a look gives, in 32 bits: how many bits are consumed, the code and the value (6 bits; 0 where
 * the code is longer than LOOK); how many of them are a value that has still to be taken from behind
 * the code (4 bits); how many coefficients of 0 come before it (6 bits, END if no more come at
 * all); and the value, where the look has it (16 bits). */
typedef uint32_t Look;

enum { END = 63 };

static inline int look_length(Look look) { return look & 63; }
static inline int look_size(Look look) { return look >> 6 & 15; }
static inline int look_skip(Look look) { return look >> 10 & 63; }
static inline int look_value(Look look) { return (int16_t)(look >> 16); }

typedef struct {
    Look looks[1 << LOOK];
    uint8_t symbols[256];
    int32_t largest[18]; /* the largest code of each length, -1 for none; then one above all */
    int32_t offset[17];  /* what is added to a code of that length for its symbol's place */
    uint8_t definition[16 + 256];
    int count; /* of symbols; 0 before there is a definition */
    int is_dc;
    int known; /* whether the picture has defined it: most define the same as the one before */
} Huffman;

static inline int extended(int bits, int size) {
    return bits < 1 << (size - 1) ? bits - (1 << size) + 1 : bits;
}

/* Return what a symbol means; its code has `length` bits. */
static inline Look look_of(int symbol, int is_dc, int length) {
    int size = is_dc ? symbol : symbol & 15, skip = is_dc ? 0 : symbol >> 4;
    if (!is_dc && size == 0 && skip < 15) skip = END;
    return (Look)(length + size) | (Look)size << 6 | (Look)skip << 10;
}

/* The same, with the value from the `rest` bits that follow the code, if it is in there. */
static inline Look with_value(Look look, int bits, int rest) {
    int size = look_size(look);
    if (size == 0 || size > rest) return look;
    int value = extended(bits >> (rest - size), size);
    return (look & ~(15u << 6)) | (Look)(uint16_t)value << 16;
}

/* Make a table of a definition: 16 counts, then the symbols. Return whether it makes sense. */
static int huffman_define(Huffman *table, const uint8_t *definition, int count, int is_dc) {
    int code = 0, place = 0;
    if (table->count == count && table->is_dc == is_dc &&
        memcmp(table->definition, definition, (size_t)(16 + count)) == 0) {
        table->known = 1;
        return 1;
    }
    table->count = 0;
    memset(table->looks, 0, sizeof table->looks);
    memcpy(table->symbols, definition + 16, (size_t)count);
    for (int length = 1; length <= 16; length++) {
        int codes = definition[length - 1];
        table->offset[length] = place - code;
        table->largest[length] = codes ? code + codes - 1 : -1;
        if (code + codes > 1 << length) return 0;
        for (int i = 0; i < codes; i++, code++, place++) {
            int symbol = table->symbols[place];
            /* More bits than a sample of 8 bits can need (section F.1.2). */
            if ((is_dc ? symbol : symbol & 15) > 11) return 0;
            if (length > LOOK) continue;
            Look look = look_of(symbol, is_dc, length);
            int rest = LOOK - length, first = code << rest;
            for (int bits = 0; bits < 1 << rest; bits++)
                table->looks[first + bits] = with_value(look, bits, rest);
        }
        code <<= 1;
    }
    table->largest[17] = INT32_MAX;
    memcpy(table->definition, definition, (size_t)(16 + count));
    table->is_dc = is_dc;
    table->count = count;
    table->known = 1;
    return 1;
}

typedef struct {
    uint64_t bits; /* the next ones, from the top */
    int count;     /* how many of them are there */
    const uint8_t *at;
} Bits;

static inline uint64_t big_endian(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* Have at least 56 bits; eight bytes are read, wherever `at` is. */
static inline void refill(Bits *from) {
    from->bits |= big_endian(from->at) >> from->count;
    from->at += (63 - from->count) >> 3;
    from->count |= 56;
}

/* Return what the next code means, of which all bits are there; 0 if there is no such code. */
static inline Look look_at(const Huffman *table, uint64_t bits) {
    Look look = table->looks[bits >> (64 - LOOK)];
    if (__builtin_expect(look == 0, 0)) {
        int length = LOOK + 1, code = (int)(bits >> (64 - LOOK - 1));
        while (code > table->largest[length]) {
            length++;
            code = (int)(bits >> (64 - length));
        }
        if (length > 16) return 0;
        look = look_of(table->symbols[(code + table->offset[length]) & 255], table->is_dc, length);
    }
    return look;
}

/* Consume a code and its value; return the value. */
static inline int take(Bits *from, Look look) {
    int length = look_length(look), size = look_size(look), value = look_value(look);
    if (size) value = extended((int)(from->bits << (length - size) >> (64 - size)), size);
    from->bits <<= length;
    from->count -= length;
    return value;
}

#endif
