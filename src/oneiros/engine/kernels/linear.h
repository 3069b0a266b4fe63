/* Packed matrix times activations. A kernel computes 16 rows (LANES at a time) for a few tokens;
 * each output accumulates over blocks in order, whatever the number of tokens, so that a token's
 * result does not depend on its neighbours. */
#include "compute.h"
#include "simd.h"

#if LANES == 16
enum { TOKENS_AT_ONCE = 16 };
#else
enum { TOKENS_AT_ONCE = 4 }; /* sixteen registers hold no more */
#endif

enum { PREFETCH_BYTES = 4096 }; /* how far a kernel looks ahead: the hardware stops at each page of memory */

struct layout { /* of a block */
    int bits, code_bytes, scale_bytes, zero_shift; /* zero point = 128 >> zero_shift */
    bool minimum;
};

INLINE struct layout layout_of(int format) {
    switch (format) {
    case FORMAT_Q4: return (struct layout){4, 256, 32, 4, false};
    case FORMAT_Q4M: return (struct layout){4, 256, 64, 0, true};
    case FORMAT_Q5: return (struct layout){5, 320, 32, 3, false};
    case FORMAT_Q5M: return (struct layout){5, 320, 64, 0, true};
    case FORMAT_Q6: return (struct layout){6, 384, 64, 2, false};
    default: return (struct layout){8, 512, 32, 0, false};
    }
}

/* The codes of LANES rows of one block as eight vectors; vector j holds columns 4j .. 4j+3. */
INLINE void unpack(int bits, const uint8_t *block, int part, vi codes[8]) {
    const uint8_t *p = block + 4 * LANES * part;
    if (bits == 8) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) codes[j] = i_load(p + 64 * j);
        return;
    }
    const vi nibble = i_set(0x0f0f0f0f);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        vi both = i_load(p + 64 * j);
        codes[j] = i_and(both, nibble);
        codes[4 + j] = i_and(i_shift_right16(both, 4), nibble);
    }
    if (bits == 5) {
        const vi bit4 = i_set(0x10101010);
        vi high = i_load(p + 256);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            codes[j] = i_or(codes[j], i_and(i_shift_left16(high, 4 - j), bit4));
            codes[4 + j] = i_or(codes[4 + j], i_and(i_shift_right16(high, j), bit4));
        }
    }
    if (bits == 6) {
        const vi bits45 = i_set(0x30303030);
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++) {
            vi high = i_load(p + 256 + 64 * v);
            codes[4 * v] = i_or(codes[4 * v], i_and(i_shift_left16(high, 4), bits45));
            codes[4 * v + 1] = i_or(codes[4 * v + 1], i_and(i_shift_left16(high, 2), bits45));
            codes[4 * v + 2] = i_or(codes[4 * v + 2], i_and(high, bits45));
            codes[4 * v + 3] = i_or(codes[4 * v + 3], i_and(i_shift_right16(high, 2), bits45));
        }
    }
}

/* LANES rows x `tokens` tokens (tokens <= TOKENS_AT_ONCE) starting at token `t0` of a tile of `n`. */
INLINE void integer_kernel(const int format, const uint8_t *codes, const uint8_t *scales, int blocks, int part,
                           const struct activations *in, int64_t tile, int n, int t0, const int tokens, vf *sum) {
    const struct layout layout = layout_of(format);
    const int8_t *x = in->codes + tile * TILE_ROWS * in->columns + BLOCK * t0;
    const int64_t at = tile * TILE_ROWS * blocks + t0;
    const float *scale = in->scale + at, *scaled_sum = in->scaled_sum + at;
    const int32_t *offset = in->offset + at, *half_offset = in->half_offset + at;
#pragma GCC unroll 16
    for (int t = 0; t < tokens; t++) sum[t] = f_zero();
    for (int b = 0; b < blocks; b++) {
        if (tokens <= 4) /* bound by memory; into the second-level cache, which has more reads under way */
            for (int line = 0; line < layout.code_bytes; line += 64)
                __builtin_prefetch(codes + PREFETCH_BYTES + line, 0, 2);
        vi w[8];
        unpack(layout.bits, codes, part, w);
        const uint16_t *s = (const uint16_t *)scales + LANES * part;
        const vf ws = f_load_half(s);
        const vf second = layout.scale_bytes == 64 ? f_load_half(s + 16) : ws;
#pragma GCC unroll 16
        for (int t = 0; t < tokens; t++) {
            const int8_t *xt = x + BLOCK * t;
            const vf xs = f_set(scale[t]);
            if (format == FORMAT_Q6) {
                vi low = i_dot(i_arithmetic_right(i_set(half_offset[t]), 2), w, 4, 6, xt);
                vi high = i_dot(i_arithmetic_right(i_set(offset[t] - half_offset[t]), 2), w + 4, 4, 6, xt + 16);
                sum[t] = f_fma(f_from_int(low), f_mul(ws, xs), sum[t]);
                sum[t] = f_fma(f_from_int(high), f_mul(second, xs), sum[t]);
                continue;
            }
            vi start = i_set(0);
            if (!layout.minimum && !(layout.bits == 8 && SIGNED_EIGHT_BIT_DOT))
                start = i_arithmetic_right(i_set(offset[t]), layout.zero_shift);
            vi dot = i_dot(start, w, 8, layout.bits, xt);
            sum[t] = f_fma(f_from_int(dot), f_mul(ws, xs), sum[t]);
            if (layout.minimum) sum[t] = f_fma(second, f_set(scaled_sum[t]), sum[t]);
        }
        codes += layout.code_bytes;
        scales += layout.scale_bytes;
        x += BLOCK * n;
        scale += n;
        scaled_sum += n;
        offset += n;
        half_offset += n;
    }
}

/* LANES rows of each of `groups` neighbouring groups x `tokens` tokens, floating-point weights. */
INLINE void float_kernel(const int format, const uint8_t *group, int64_t group_bytes, const int groups, int part,
                         const struct activations *in, int64_t token, const int tokens, vf *sum) {
    const int bytes = format == FORMAT_F32 ? 4 : 2;
    const float *x = in->values + token * in->columns;
#pragma GCC unroll 16
    for (int i = 0; i < groups * tokens; i++) sum[i] = f_zero();
    for (int k = 0; k < in->columns; k++) {
#pragma GCC unroll 4
        for (int g = 0; g < groups; g++) {
            const uint8_t *p = group + g * group_bytes + (int64_t)(16 * k + LANES * part) * bytes;
            vf w = format == FORMAT_F32   ? f_load((const float *)p)
                   : format == FORMAT_F16 ? f_load_half((const uint16_t *)p)
                                          : f_load_bf16((const uint16_t *)p);
#pragma GCC unroll 16
            for (int t = 0; t < tokens; t++)
                sum[g * tokens + t] = f_fma(w, f_set(x[(int64_t)t * in->columns + k]), sum[g * tokens + t]);
        }
    }
}

INLINE void put(float *out, vf value, bool add) { f_store(out, add ? f_add(f_load(out), value) : value); }

/* One group times `tokens` tokens of a tile; out[t * stride + row in group]. */
INLINE void group_times_tokens(const int format, const uint8_t *group, int64_t group_bytes,
                               const struct activations *in, int64_t tile, int n, int t0, const int tokens,
                               float *out, int64_t stride, bool add) {
    const int blocks = in->columns / BLOCK;
    const uint8_t *scales = group + (int64_t)blocks * layout_of(format).code_bytes;
    for (int part = 0; part < PARTS; part++) {
        vf sum[TOKENS_AT_ONCE];
        if (format <= FORMAT_Q8)
            integer_kernel(format, group, scales, blocks, part, in, tile, n, t0, tokens, sum);
        else
            float_kernel(format, group, group_bytes, 1, part, in, tile * TILE_ROWS + t0, tokens, sum);
#pragma GCC unroll 16
        for (int t = 0; t < tokens; t++) put(out + t * stride + LANES * part, sum[t], add);
    }
}

/* One group times one tile of n tokens. */
INLINE void group_times_tile(const int format, const uint8_t *group, int64_t group_bytes,
                             const struct activations *in, int64_t tile, int n, float *out, int64_t stride, bool add) {
    for (int t = 0; t < n;) {
        float *o = out + t * stride;
        int left = n - t;
#define TOKENS(count)                                                                              \
    if (count <= TOKENS_AT_ONCE && left >= count) {                                                \
        group_times_tokens(format, group, group_bytes, in, tile, n, t, count <= TOKENS_AT_ONCE ? count : 1, o, stride, \
                           add);                                                                   \
        t += count;                                                                                \
        continue;                                                                                  \
    }
        TOKENS(16)
        TOKENS(8)
        TOKENS(4)
        TOKENS(2)
        TOKENS(1)
#undef TOKENS
    }
}

/* A single token leaves a floating-point kernel waiting for its one chain of additions: four
 * groups at once give it four. */
INLINE int float_groups_times_token(const int format, const struct matrix *w, int first, int last,
                                    const struct activations *in, float *out, bool add) {
    int g = first;
    for (; g + 4 <= last; g += 4)
        for (int part = 0; part < PARTS; part++) {
            vf sum[4];
            float_kernel(format, w->data + g * w->group_bytes, w->group_bytes, 4, part, in, 0, 1, sum);
            for (int i = 0; i < 4; i++) put(out + 16 * (g + i) + LANES * part, sum[i], add);
        }
    return g;
}

enum { BYTES_AT_ONCE = 1024 * 1024 }; /* of activations, to stay in the second-level cache */

INLINE int tiles_at_once(const struct activations *in) {
    int tiles = BYTES_AT_ONCE / (TILE_ROWS * in->columns);
    return tiles > 0 ? tiles : 1;
}

INLINE int tile_rows(const struct activations *in, int tile) {
    int left = in->rows - tile * TILE_ROWS;
    return left < TILE_ROWS ? left : TILE_ROWS;
}

#ifdef ISA_AMX
#include "tiles.h"
#endif

INLINE void linear_of(const int format, const struct matrix *w, int first, int last, const struct activations *in,
                      float *out, int64_t stride, bool add) {
    if (format > FORMAT_Q8 && in->rows == 1)
        first = float_groups_times_token(format, w, first, last, in, out, add);
    const int tiles = (in->rows + TILE_ROWS - 1) / TILE_ROWS, at_once = tiles_at_once(in);
#ifdef ISA_AMX
    const bool amx = format <= FORMAT_Q8 && in->rows >= TILE_ROWS;
    uint8_t codes[amx ? 16 * in->columns : 1];
    if (amx) amx_configure(format == FORMAT_Q6 ? 16 : 32);
#endif
    for (int begin = 0; begin < tiles; begin += at_once) {
        const int end = begin + at_once < tiles ? begin + at_once : tiles;
        for (int g = first; g < last; g++) {
            const uint8_t *group = w->data + g * w->group_bytes;
            int tile = begin;
#ifdef ISA_AMX
            if (amx) tile = amx_group_times_tiles(format, group, in, begin, end, out + 16 * g, stride, add, codes);
#endif
            for (; tile < end; tile++)
                group_times_tile(format, group, w->group_bytes, in, tile, tile_rows(in, tile),
                                 out + (int64_t)tile * TILE_ROWS * stride + 16 * g, stride, add);
        }
    }
#ifdef ISA_AMX
    if (amx) _tile_release();
#endif
}

#define EACH_FORMAT(apply)                                                                         \
    apply(FORMAT_Q4) apply(FORMAT_Q4M) apply(FORMAT_Q5) apply(FORMAT_Q5M) apply(FORMAT_Q6) apply(FORMAT_Q8) \
        apply(FORMAT_F16) apply(FORMAT_BF16) apply(FORMAT_F32)

static void linear(const struct matrix *w, int first, int last, const struct activations *in, float *out,
                   int64_t stride, bool add) {
    switch (w->format) {
#define CASE(format)                                                                               \
    case format: linear_of(format, w, first, last, in, out, stride, add); return;
        EACH_FORMAT(CASE)
#undef CASE
    }
}
