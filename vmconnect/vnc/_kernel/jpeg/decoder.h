/* Baseline JPEGs of 8 bits (ITU-T T.81, annexes B and F), as VNC servers send them: grey, or
 * brightness and colour differences, these in full resolution or in half of it.
 *
 * Everything else (progressive, arithmetic coding, other colours, broken ones) is refused, and left
 * to a library that knows it all. Nothing that a JPEG says is believed before it is checked: sizes
 * against the picture that it is to fill, lengths against the data, codes at every block. */

#ifndef VMCONNECT_JPEG_DECODER_H
#define VMCONNECT_JPEG_DECODER_H

#include <stdlib.h>

#include "colour.h"
#include "huffman.h"
#include "transform.h"

enum {
    TABLES = 4,
    COMPONENTS = 3,
    /* A block takes 27 bits for each of 64 coefficients at most, and 8 bytes are read ahead. */
    PADDING = 256,
};

typedef struct {
    int id, across, down; /* blocks in a unit (MCU) */
    int quantization, dc_table, ac_table;
    int width, height; /* samples that are not padding */
    int mean;          /* of the last block */
    uint8_t *samples;
    ptrdiff_t stride;
} Component;

typedef struct {
    Huffman dc[TABLES], ac[TABLES];
    uint16_t quantization[TABLES][64]; /* in zigzag order */
    int quantized;                     /* a bit for each that is known */
    Component components[COMPONENTS];
    int count; /* of components, 0 before there is a frame */
    int width, height, across, down, interval;
    uint8_t *room;
    size_t room_size;
} Decoder;

typedef struct {
    uint32_t *to;
    ptrdiff_t stride; /* in words */
    int width, height;
    int swapped; /* whether red is the lowest byte */
    int how;     /* ONE_BY_ONE, IN_VECTORS or IN_PAIRS at most; less is for tests */
} Picture;

static const uint8_t ZIGZAG[64] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
};

static inline int word_at(const uint8_t *at) { return at[0] << 8 | at[1]; }

static int read_quantization(Decoder *decoder, const uint8_t *at, int size) {
    while (size > 0) {
        int wide = at[0] >> 4, number = at[0] & 15, length = 1 + (wide ? 128 : 64);
        if (wide > 1 || number >= TABLES || size < length) return 0;
        for (int i = 0; i < 64; i++)
            decoder->quantization[number][i] =
                (uint16_t)(wide ? word_at(at + 1 + 2 * i) : at[1 + i]);
        decoder->quantized |= 1 << number;
        at += length;
        size -= length;
    }
    return 1;
}

static int read_codes(Decoder *decoder, const uint8_t *at, int size) {
    while (size >= 17) {
        int ac = at[0] >> 4, number = at[0] & 15, count = 0;
        for (int i = 1; i <= 16; i++) count += at[i];
        if (ac > 1 || number >= TABLES || count > 256 || size < 17 + count) return 0;
        Huffman *table = ac ? &decoder->ac[number] : &decoder->dc[number];
        if (!huffman_define(table, at + 1, count, !ac)) return 0;
        at += 17 + count;
        size -= 17 + count;
    }
    return size == 0;
}

static int read_frame(Decoder *decoder, const uint8_t *at, int size, const Picture *picture) {
    if (decoder->count || size < 6 || at[0] != 8) return 0;
    int count = at[5];
    decoder->height = word_at(at + 1);
    decoder->width = word_at(at + 3);
    if (decoder->width != picture->width || decoder->height != picture->height) return 0;
    if ((count != 1 && count != COMPONENTS) || size != 6 + 3 * count) return 0;
    for (int i = 0; i < count; i++, at += 3) {
        Component *each = &decoder->components[i];
        each->id = at[6];
        each->across = at[7] >> 4;
        each->down = at[7] & 15;
        each->quantization = at[8];
        if (each->quantization >= TABLES) return 0;
    }
    Component *first = decoder->components;
    if (count == 1) first->across = first->down = 1;
    decoder->across = first->across;
    decoder->down = first->down;
    if (first->across < 1 || first->across > 2 || first->down < 1 || first->down > first->across)
        return 0;
    for (int i = 1; i < count; i++)
        if (first[i].across != 1 || first[i].down != 1) return 0;
    /* Those whose colours are red, green and blue as they are. */
    if (count == 3 && first[0].id == 'R' && first[1].id == 'G' && first[2].id == 'B') return 0;
    decoder->count = count;
    return 1;
}

static int read_scan(Decoder *decoder, const uint8_t *at, int size) {
    int count = decoder->count;
    if (!count || size != 4 + 2 * count || at[0] != count) return 0;
    for (int i = 0; i < count; i++) {
        Component *each = &decoder->components[i];
        each->dc_table = at[2 + 2 * i] >> 4;
        each->ac_table = at[2 + 2 * i] & 15;
        if (at[1 + 2 * i] != each->id || each->dc_table >= TABLES || each->ac_table >= TABLES)
            return 0;
        if (!decoder->dc[each->dc_table].known || !decoder->ac[each->ac_table].known) return 0;
        if (!(decoder->quantized >> each->quantization & 1)) return 0;
    }
    at += 1 + 2 * count;
    return at[0] == 0 && at[1] == 63 && at[2] == 0;
}

/* Read a block's next coefficient, of which all bits are there, or its end; go to where that leads. */
#define READ_COEFFICIENT                                       \
    {                                                          \
        Look look = look_at(ac, bits.bits);                    \
        if (__builtin_expect(look == 0, 0)) return -1;         \
        k += 1 + look_skip(look);                              \
        int value = take(&bits, look);                         \
        if (k > 63) {                                          \
            if (look_skip(look) != END) return -1;             \
            break;                                             \
        }                                                      \
        block[ZIGZAG[k]] = (int16_t)(value * steps[k]);        \
        last = k;                                              \
        if (k == 63) break;                                    \
    }

/* Read a block into zeroed coefficients; return the last that is not 0, or -1 for what is none. */
static inline __attribute__((always_inline)) int read_block(Bits *from, const Huffman *dc,
                                                            const Huffman *ac,
                                                            const uint16_t *steps, int *mean,
                                                            int16_t *block) {
    Bits bits = *from;
    int k = 0, last = 0;
    refill(&bits);
    Look first = look_at(dc, bits.bits);
    if (first == 0) return -1;
    *mean = (int)((unsigned)*mean + (unsigned)take(&bits, first));
    block[0] = (int16_t)((unsigned)*mean * steps[0]);
    /* What a refill gives is enough for two. */
    for (;;) {
        READ_COEFFICIENT
        refill(&bits);
        READ_COEFFICIENT
    }
    *from = bits;
    return last;
}

/* By themselves, or there are too few registers for the loop. */
typedef int ReadBlock(Bits *, const Huffman *, const Huffman *, const uint16_t *, int *, int16_t *);

__attribute__((noinline)) static int read_block_plainly(Bits *from, const Huffman *dc,
                                                        const Huffman *ac, const uint16_t *steps,
                                                        int *mean, int16_t *block) {
    return read_block(from, dc, ac, steps, mean, block);
}

#ifdef VMCONNECT_JPEG_WIDE
WIDE __attribute__((noinline)) static int read_block_widely(Bits *from, const Huffman *dc,
                                                            const Huffman *ac,
                                                            const uint16_t *steps, int *mean,
                                                            int16_t *block) {
    return read_block(from, dc, ac, steps, mean, block);
}
#else
#define read_block_widely read_block_plainly
#endif

/* Copy a scan up to its next marker without stuffed bytes; return where that is, or NULL. */
static const uint8_t *unstuff(const uint8_t *at, const uint8_t *end, uint8_t **to) {
    while (at < end) {
        const uint8_t *found = memchr(at, 0xFF, (size_t)(end - at));
        if (found == NULL || end - found < 2) return NULL;
        size_t length = (size_t)(found - at);
        memcpy(*to, at, length);
        *to += length;
        if (found[1] != 0) return found;
        *(*to)++ = 0xFF;
        at = found + 2;
    }
    return NULL;
}

/* Blocks whose coefficients are read and that are still to be transformed. */
typedef struct {
    _Alignas(32) int16_t blocks[2][64];
    uint8_t *to[2];
    ptrdiff_t strides[2];
    int count;
} Pending;

#ifdef VMCONNECT_JPEG_WIDE
/* Inlined where it may be used alone, as the processor has been asked. */
WIDE static inline void transform_pair(Pending *pending) {
    transform_two(pending->blocks, pending->to, pending->strides);
}
#endif

static inline __attribute__((always_inline)) void transform_pending(Pending *pending, int how) {
    for (int i = 0; i < pending->count; i++) {
#ifdef __SSE2__
        if (how != ONE_BY_ONE) {
            transform_one(pending->blocks[i], pending->to[i], pending->strides[i]);
            continue;
        }
#endif
        transform_plain(pending->blocks[i], pending->to[i], pending->strides[i]);
    }
    (void)how;
    pending->count = 0;
}

/* Decode units from `first` to before `stop`. */
static inline __attribute__((always_inline)) int read_units(Decoder *decoder, Bits *from,
                                                            const uint8_t *end, int first,
                                                            int stop, int units_across, int how) {
    /* A pair is transformed when the next is read: words that were just written in pieces cannot be
     * read as a whole without waiting. */
    Pending pairs[2], *pending = pairs;
    ReadBlock *const read = how == IN_PAIRS ? read_block_widely : read_block_plainly;
    pairs[0].count = pairs[1].count = 0;
    Bits bits = *from;
    int unit_x = first % units_across, unit_y = first / units_across;
    for (int unit = first; unit < stop; unit++) {
        for (int i = 0; i < decoder->count; i++) {
            Component *each = &decoder->components[i];
            const Huffman *dc = &decoder->dc[each->dc_table], *ac = &decoder->ac[each->ac_table];
            const uint16_t *steps = decoder->quantization[each->quantization];
            for (int v = 0; v < each->down; v++)
                for (int h = 0; h < each->across; h++) {
                    int16_t *block = pending->blocks[pending->count];
                    memset(block, 0, sizeof pending->blocks[0]);
                    int last = read(&bits, dc, ac, steps, &each->mean, block);
                    if (last < 0 || bits.at - (bits.count >> 3) > end) return 0;
                    uint8_t *to = each->samples +
                                  8 * (unit_y * each->down + v) * each->stride +
                                  8 * (unit_x * each->across + h);
                    if (last == 0) {
                        transform_flat(block[0], to, each->stride);
                        continue;
                    }
                    pending->to[pending->count] = to;
                    pending->strides[pending->count++] = each->stride;
#ifdef VMCONNECT_JPEG_WIDE
                    if (how == IN_PAIRS) {
                        if (pending->count < 2) continue;
                        pending = pending == pairs ? pairs + 1 : pairs;
                        if (pending->count) transform_pair(pending);
                        pending->count = 0;
                        continue;
                    }
#endif
                    transform_pending(pending, how);
                }
        }
        if (++unit_x == units_across) {
            unit_x = 0;
            unit_y++;
        }
    }
    transform_pending(pairs, how);
    transform_pending(pairs + 1, how);
    *from = bits;
    return 1;
}

typedef int ReadUnits(Decoder *, Bits *, const uint8_t *, int, int, int);

static int read_units_plainly(Decoder *decoder, Bits *from, const uint8_t *end, int first,
                              int stop, int units_across) {
    return read_units(decoder, from, end, first, stop, units_across, ONE_BY_ONE);
}

static int read_units_in_vectors(Decoder *decoder, Bits *from, const uint8_t *end, int first,
                                 int stop, int units_across) {
    return read_units(decoder, from, end, first, stop, units_across, IN_VECTORS);
}

#ifdef VMCONNECT_JPEG_WIDE
WIDE static int read_units_in_pairs(Decoder *decoder, Bits *from, const uint8_t *end, int first,
                                    int stop, int units_across) {
    return read_units(decoder, from, end, first, stop, units_across, IN_PAIRS);
}
#else
#define read_units_in_pairs read_units_in_vectors
#endif

static ReadUnits *const READ_UNITS[] = {
    read_units_plainly,
    read_units_in_vectors,
    read_units_in_pairs,
};

/* Return the most that this processor can do at once, if it is no more than `most`. */
static int best_way(int most) {
#ifdef VMCONNECT_JPEG_WIDE
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) return most;
#endif
    return most < IN_VECTORS ? most : IN_VECTORS;
}

/* Let the components have room in memory; return where there is room for `size` bytes more. */
static uint8_t *make_room(Decoder *decoder, int units_across, int units_down, size_t size) {
    size_t row = (size_t)units_across * 8 * (size_t)decoder->across;
    size_t need = 6 * (row + 64) + size;
    for (int i = 0; i < decoder->count; i++) {
        Component *each = &decoder->components[i];
        each->stride = (ptrdiff_t)8 * units_across * each->across;
        each->width = (decoder->width * each->across + decoder->across - 1) / decoder->across;
        each->height = (decoder->height * each->down + decoder->down - 1) / decoder->down;
        need += (size_t)each->stride * (size_t)(8 * units_down * each->down);
    }
    if (need > decoder->room_size) {
        free(decoder->room);
        decoder->room_size = 0;
        if ((decoder->room = malloc(need)) == NULL) return NULL;
        decoder->room_size = need;
    }
    uint8_t *at = decoder->room + 6 * (row + 64);
    for (int i = 0; i < decoder->count; i++) {
        Component *each = &decoder->components[i];
        each->samples = at;
        at += each->stride * (8 * units_down * each->down);
    }
    return at;
}

static void write_picture(const Decoder *decoder, const Picture *picture, int how) {
    const Component *y = decoder->components, *cb = y + 1, *cr = y + 2;
    size_t row = ((size_t)y->stride + 63) & ~(size_t)63;
    uint16_t *sums = (uint16_t *)decoder->room;
    uint8_t *blue = decoder->room + 2 * row, *red = blue + row + 16;
    uint32_t *to = picture->to;
    for (int i = 0; i < picture->height; i++, to += picture->stride) {
        const uint8_t *light = y->samples + i * y->stride, *b = blue, *r = red;
        if (decoder->count == 1) {
            grey_row(light, picture->width, to);
            continue;
        }
        int near = i / decoder->down;
        ptrdiff_t at = near * cb->stride;
        if (decoder->across == 1) {
            b = cb->samples + at;
            r = cr->samples + at;
        } else if (decoder->down == 1) {
            enlarge_row(cb->samples + at, cb->width, blue);
            enlarge_row(cr->samples + at, cr->width, red);
        } else {
            int other = i & 1 ? near + 1 : near - 1;
            other = other < 0 ? 0 : other >= cb->height ? cb->height - 1 : other;
            ptrdiff_t far = other * cb->stride;
            enlarge_rows(cb->samples + at, cb->samples + far, cb->width, sums, blue);
            enlarge_rows(cr->samples + at, cr->samples + far, cr->width, sums, red);
        }
        colour_row(light, b, r, picture->width, picture->swapped, how, to);
    }
}

/* Decode all units; `at` is the scan's first byte. */
static int decode_scan(Decoder *decoder, const uint8_t *at, const uint8_t *end,
                       const Picture *picture) {
    int across = 8 * decoder->across, down = 8 * decoder->down;
    int units_across = (decoder->width + across - 1) / across;
    int units_down = (decoder->height + down - 1) / down;
    int units = units_across * units_down;
    uint8_t *scan = make_room(decoder, units_across, units_down, (size_t)(end - at) + PADDING);
    if (scan == NULL) return 0;
    int interval = decoder->interval ? decoder->interval : units;
    int how = best_way(picture->how);
    for (int first = 0, number = 0; first < units; first += interval, number++) {
        uint8_t *stop = scan;
        if ((at = unstuff(at, end, &stop)) == NULL) return 0;
        memset(stop, 0, PADDING);
        Bits bits = {0, 0, scan};
        for (int i = 0; i < decoder->count; i++) decoder->components[i].mean = 0;
        int last = units - first <= interval ? units : first + interval;
        if (!READ_UNITS[how](decoder, &bits, stop, first, last, units_across)) return 0;
        if (at[1] != (last == units ? 0xD9 : 0xD0 + number % 8)) return 0;
        at += 2;
    }
    write_picture(decoder, picture, how);
    return 1;
}

/* Decode a JPEG into a picture of its size; return whether it was one that is decoded here. */
static int jpeg_decode(Decoder *decoder, const uint8_t *at, size_t size, const Picture *picture) {
    static const uint8_t adobe[] = {'A', 'd', 'o', 'b', 'e'};
    const uint8_t *end = at + size;
    decoder->count = decoder->interval = decoder->quantized = 0;
    for (int i = 0; i < TABLES; i++) decoder->dc[i].known = decoder->ac[i].known = 0;
    if (size < 4 || word_at(at) != 0xFFD8) return 0;
    at += 2;
    while (end - at >= 4) {
        int marker = at[1], length = word_at(at + 2);
        if (at[0] != 0xFF || length < 2 || end - at < 2 + length) return 0;
        const uint8_t *body = at + 4;
        int rest = length - 2;
        at += 2 + length;
        switch (marker) {
        case 0xC0:
        case 0xC1:
            if (!read_frame(decoder, body, rest, picture)) return 0;
            break;
        case 0xC4:
            if (!read_codes(decoder, body, rest)) return 0;
            break;
        case 0xDA:
            return read_scan(decoder, body, rest) && decode_scan(decoder, at, end, picture);
        case 0xDB:
            if (!read_quantization(decoder, body, rest)) return 0;
            break;
        case 0xDD:
            if (rest != 2) return 0;
            decoder->interval = word_at(body);
            break;
        default:
            /* Comments and applications' notes, of which one tells of other colours. */
            if (marker != 0xFE && (marker < 0xE0 || marker > 0xEF)) return 0;
            if (marker == 0xEE && rest >= 5 && memcmp(body, adobe, 5) == 0) return 0;
        }
    }
    return 0;
}

#endif
