/* Repacks weights from GGUF's blocks into groups of 16 rows (oneiros.h). The codes are kept as they
 * are; only the scales of the K formats, products of two stored numbers, are rounded to halves. */
#include "oneiros.h"
#include <math.h>
#include <string.h>

enum gguf_type { F32 = 0, F16 = 1, Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q4_K = 12, Q5_K = 13, Q6_K = 14, BF16 = 30 };

struct block { /* 32 weights of one row */
    uint8_t code[BLOCK];
    uint16_t scale, second; /* halves; second: minimum, or the scale of columns 16..31 */
};

static float half_to_float(uint16_t h) {
    const uint32_t magnitude = h & 0x7fffu;
    uint32_t bits = magnitude << 13;
    float f;
    memcpy(&f, &bits, 4);
    f *= 0x1p112f;
    if (magnitude > 0x7bffu) f = magnitude > 0x7c00u ? NAN : INFINITY;
    return h & 0x8000u ? -f : f;
}

static uint16_t float_to_half(float f) { /* to nearest even */
    uint32_t bits;
    memcpy(&bits, &f, 4);
    const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) { /* subnormal: units of 2^-24 */
        float absolute;
        memcpy(&absolute, &magnitude, 4);
        return (uint16_t)(sign | (uint32_t)nearbyintf(absolute * 0x1p24f));
    }
    return (uint16_t)(sign | (((magnitude + 0xfffu + (magnitude >> 13 & 1u)) >> 13) - (112u << 10)));
}

static uint16_t read_half(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

/* The packed format and the weights and bytes of one stored block of a GGUF type. */
static int describe(int type, int *format, int *weights, int *bytes) {
    static const struct { int type, format, weights, bytes; } table[] = {
        {Q4_0, FORMAT_Q4, 32, 18},     {Q4_1, FORMAT_Q4M, 32, 20},   {Q5_0, FORMAT_Q5, 32, 22},
        {Q5_1, FORMAT_Q5M, 32, 24},    {Q8_0, FORMAT_Q8, 32, 34},    {Q4_K, FORMAT_Q4M, 256, 144},
        {Q5_K, FORMAT_Q5M, 256, 176},  {Q6_K, FORMAT_Q6, 256, 210},  {F16, FORMAT_F16, 1, 2},
        {BF16, FORMAT_BF16, 1, 2},     {F32, FORMAT_F32, 1, 4},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].type == type) {
            *format = table[i].format, *weights = table[i].weights, *bytes = table[i].bytes;
            return 0;
        }
    return -1;
}

int oneiros_packed_format(int type) {
    int format, weights, bytes;
    return describe(type, &format, &weights, &bytes) ? -1 : format;
}

int64_t oneiros_group_bytes(int format, int columns) {
    const int64_t blocks = columns / BLOCK;
    int64_t bytes = 0;
    switch (format) {
    case FORMAT_Q4: bytes = blocks * (256 + 32); break;
    case FORMAT_Q4M: bytes = blocks * (256 + 64); break;
    case FORMAT_Q5: bytes = blocks * (320 + 32); break;
    case FORMAT_Q5M: bytes = blocks * (320 + 64); break;
    case FORMAT_Q6: bytes = blocks * (384 + 64); break;
    case FORMAT_Q8: bytes = blocks * (512 + 32); break;
    case FORMAT_F32: bytes = (int64_t)columns * 64; break;
    default: bytes = (int64_t)columns * 32; break;
    }
    return (bytes + 63) / 64 * 64;
}

static void nibbles(const uint8_t *q, uint8_t *code) {
    for (int i = 0; i < 16; i++) code[i] = q[i] & 15, code[16 + i] = q[i] >> 4;
}

static void fifth_bits(const uint8_t *high, uint8_t *code) {
    for (int i = 0; i < BLOCK; i++) code[i] |= (uint8_t)((high[i / 8] >> (i % 8) & 1) << 4);
}

/* Six-bit scale and minimum of sub-block j of a K block, from twelve bytes. */
static void six_bits(const uint8_t *s, int j, int *scale, int *minimum) {
    if (j < 4) {
        *scale = s[j] & 63, *minimum = s[j + 4] & 63;
        return;
    }
    *scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    *minimum = (s[j + 4] >> 4) | (s[j] >> 6) << 4;
}

static void read_k4_or_k5(int type, const uint8_t *p, int sub, struct block *out) {
    int scale, minimum;
    six_bits(p + 4, sub, &scale, &minimum);
    out->scale = float_to_half(half_to_float(read_half(p)) * (float)scale);
    out->second = float_to_half(-half_to_float(read_half(p + 2)) * (float)minimum);
    const uint8_t *q = p + (type == Q4_K ? 16 : 48) + 32 * (sub / 2), *high = p + 16;
    for (int i = 0; i < BLOCK; i++) {
        out->code[i] = sub % 2 ? q[i] >> 4 : q[i] & 15;
        if (type == Q5_K) out->code[i] |= (uint8_t)((high[i] >> sub & 1) << 4);
    }
}

static void read_k6(const uint8_t *p, int sub, struct block *out) {
    const float d = half_to_float(read_half(p + 208));
    const int8_t *scales = (const int8_t *)p + 192 + 2 * sub;
    out->scale = float_to_half(d * (float)scales[0]);
    out->second = float_to_half(d * (float)scales[1]);
    const uint8_t *low = p + 64 * (sub / 4) + 32 * (sub % 2), *high = p + 128 + 32 * (sub / 4);
    for (int i = 0; i < BLOCK; i++)
        out->code[i] = (uint8_t)((sub % 4 < 2 ? low[i] & 15 : low[i] >> 4) | (high[i] >> 2 * (sub % 4) & 3) << 4);
}

static void read_block(int type, const uint8_t *row, int64_t index, struct block *out) {
    const uint8_t *p = row;
    switch (type) {
    case Q4_0:
        p += index * 18, out->scale = read_half(p), nibbles(p + 2, out->code);
        return;
    case Q4_1:
        p += index * 20, out->scale = read_half(p), out->second = read_half(p + 2), nibbles(p + 4, out->code);
        return;
    case Q5_0:
        p += index * 22, out->scale = read_half(p), nibbles(p + 6, out->code), fifth_bits(p + 2, out->code);
        return;
    case Q5_1:
        p += index * 24, out->scale = read_half(p), out->second = read_half(p + 2);
        nibbles(p + 8, out->code), fifth_bits(p + 4, out->code);
        return;
    case Q8_0:
        p += index * 34, out->scale = read_half(p);
        for (int i = 0; i < BLOCK; i++) out->code[i] = p[2 + i] ^ 0x80;
        return;
    case Q4_K: read_k4_or_k5(type, p + index / 8 * 144, (int)(index % 8), out); return;
    case Q5_K: read_k4_or_k5(type, p + index / 8 * 176, (int)(index % 8), out); return;
    default: read_k6(p + index / 8 * 210, (int)(index % 8), out); return;
    }
}

static void write_block(int format, const struct block *from, int lane, uint8_t *codes, uint8_t *scales) {
    uint16_t *scale = (uint16_t *)scales;
    scale[lane] = from->scale;
    if (format == FORMAT_Q4M || format == FORMAT_Q5M || format == FORMAT_Q6) scale[16 + lane] = from->second;
    const uint8_t *c = from->code;
    for (int i = 0; i < 16; i++) { /* columns i = 4j + b and 16 + i */
        uint8_t *lane_bytes = codes + 4 * lane + i % 4;
        if (format == FORMAT_Q8) {
            lane_bytes[64 * (i / 4)] = c[i];
            lane_bytes[64 * (4 + i / 4)] = c[16 + i];
            continue;
        }
        lane_bytes[64 * (i / 4)] = (uint8_t)((c[i] & 15) | c[16 + i] << 4);
        if (format == FORMAT_Q5 || format == FORMAT_Q5M)
            lane_bytes[256] |= (uint8_t)((c[i] >> 4 & 1) << i / 4 | (c[16 + i] >> 4 & 1) << (4 + i / 4));
        if (format == FORMAT_Q6) {
            lane_bytes[256] |= (uint8_t)((c[i] >> 4) << 2 * (i / 4));
            lane_bytes[320] |= (uint8_t)((c[16 + i] >> 4) << 2 * (i / 4));
        }
    }
}

int oneiros_pack(int type, const uint8_t *source, int64_t rows, int64_t columns, uint8_t *destination) {
    int format, weights, bytes;
    if (describe(type, &format, &weights, &bytes)) return -1;
    const int64_t group_bytes = oneiros_group_bytes(format, (int)columns), row_bytes = columns / weights * bytes;
    const int64_t blocks = columns / BLOCK;
    static const int code_bytes[] = {256, 256, 320, 320, 384, 512}, scale_bytes[] = {32, 64, 32, 64, 64, 32};
    for (int64_t r = 0; r < rows; r++, source += row_bytes) {
        uint8_t *group = destination + r / 16 * group_bytes;
        const int lane = (int)(r % 16);
        if (format > FORMAT_Q8) {
            for (int64_t k = 0; k < columns; k++)
                memcpy(group + (16 * k + lane) * bytes, source + k * bytes, (size_t)bytes);
            continue;
        }
        for (int64_t b = 0; b < blocks; b++) {
            struct block block = {.second = 0};
            read_block(type, source, b, &block);
            write_block(format, &block, lane, group + b * code_bytes[format],
                        group + blocks * code_bytes[format] + b * scale_bytes[format]);
        }
    }
    return 0;
}
