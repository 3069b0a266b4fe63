/* Advanced Matrix Extensions: one instruction multiplies 16 tokens x 32 columns with 32 columns x
 * 16 rows. The integer sums are those of the vector kernels and the floating-point steps are the
 * same, so the bits are too. A group's codes are unpacked once, made signed, and used for all
 * tiles of 16 tokens; vector kernels do what is left over. */

enum { /* tile registers */
    TILE_SUMS = 0, /* 0..3: [16 tokens][16 rows] of int32 */
    TILE_TOKENS = 4, /* 4, 5: [16 tokens][depth] of int8 */
    TILE_CODES = 6, /* 6, 7: [depth / 4][16 rows][4] of int8 */
};

INLINE void amx_configure(int depth) { /* columns that share a scale: 32, or 16 for Q6 */
    struct __attribute__((packed)) {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < 4; i++) config.row_bytes[TILE_SUMS + i] = 64, config.rows[TILE_SUMS + i] = 16;
    for (int i = 0; i < 2; i++) {
        config.row_bytes[TILE_TOKENS + i] = (uint16_t)depth, config.rows[TILE_TOKENS + i] = 16;
        config.row_bytes[TILE_CODES + i] = 64, config.rows[TILE_CODES + i] = (uint8_t)(depth / 4);
    }
    _tile_loadconfig(&config);
}

INLINE void amx_unpack(const int format, const uint8_t *codes, int blocks, uint8_t *out) {
    const struct layout layout = layout_of(format);
    const vi zero = _mm512_set1_epi8((char)(layout.minimum ? 0 : 128 >> layout.zero_shift));
    for (int b = 0; b < blocks; b++, codes += layout.code_bytes) {
        vi w[8];
        unpack(layout.bits, codes, 0, w);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++, out += 64) _mm512_storeu_si512(out, _mm512_sub_epi8(w[j], zero));
    }
}

/* sum[t] += integer sums of token t times weight scale times token scale (plus minimum times scaled sum). */
INLINE void amx_scale(const int32_t *dots, vf weight_scale, bool minimum, vf weight_minimum, const float *scale,
                      const float *scaled_sum, vf *sum) {
#pragma GCC unroll 16
    for (int t = 0; t < TILE_ROWS; t++) {
        const vf both = f_mul(weight_scale, f_set(scale[t]));
        sum[t] = f_fma(f_from_int(i_load(dots + 16 * t)), both, sum[t]);
        if (minimum) sum[t] = f_fma(weight_minimum, f_set(scaled_sum[t]), sum[t]);
    }
}

/* Two blocks are in flight: while one's sums leave the tile registers the other's are computed. */
INLINE void amx_tile(const int format, const uint8_t *codes, const uint8_t *scales, const struct activations *in,
                     int64_t tile, float *out, int64_t stride, bool add) {
    const struct layout layout = layout_of(format);
    const int blocks = in->columns / BLOCK;
    const int8_t *x = in->codes + tile * TILE_ROWS * in->columns;
    const float *scale = in->scale + tile * TILE_ROWS * blocks, *scaled_sum = in->scaled_sum + tile * TILE_ROWS * blocks;
    _Alignas(64) int32_t dots[4][TILE_ROWS * 16];
    vf sum[TILE_ROWS];
#pragma GCC unroll 16
    for (int t = 0; t < TILE_ROWS; t++) sum[t] = f_zero();
#define PRODUCT(sums, tokens, weights, step, half)                                                 \
    _tile_zero(sums);                                                                              \
    _tile_loadd(tokens, x + (int64_t)(step) * TILE_ROWS * BLOCK + 16 * (half), BLOCK);             \
    _tile_loadd(weights, codes + (int64_t)(step) * 512 + 256 * (half), 64);                        \
    _tile_dpbssd(sums, tokens, weights);
    if (format == FORMAT_Q6) {
        for (int b = 0; b < blocks; b++) {
            PRODUCT(0, 4, 6, b, 0)
            PRODUCT(1, 5, 7, b, 1)
            _tile_stored(0, dots[0], 64);
            _tile_stored(1, dots[1], 64);
            const uint16_t *s = (const uint16_t *)(scales + b * layout.scale_bytes);
            const vf first = f_load_half(s), second = f_load_half(s + 16);
#pragma GCC unroll 16
            for (int t = 0; t < TILE_ROWS; t++) {
                const vf xs = f_set(scale[b * TILE_ROWS + t]);
                sum[t] = f_fma(f_from_int(i_load(dots[0] + 16 * t)), f_mul(first, xs), sum[t]);
                sum[t] = f_fma(f_from_int(i_load(dots[1] + 16 * t)), f_mul(second, xs), sum[t]);
            }
        }
    } else {
        int b = 0;
#define SCALE(step, from)                                                                          \
    {                                                                                              \
        const uint16_t *s = (const uint16_t *)(scales + (step) * layout.scale_bytes);              \
        amx_scale(dots[from], f_load_half(s), layout.minimum, layout.minimum ? f_load_half(s + 16) : f_zero(), \
                  scale + (step) * TILE_ROWS, scaled_sum + (step) * TILE_ROWS, sum);               \
    }
        PRODUCT(0, 4, 6, 0, 0)
        for (; b + 2 < blocks; b += 2) {
            PRODUCT(1, 5, 7, b + 1, 0)
            _tile_stored(0, dots[0], 64);
            SCALE(b, 0)
            PRODUCT(0, 4, 6, b + 2, 0)
            _tile_stored(1, dots[1], 64);
            SCALE(b + 1, 1)
        }
        if (b + 1 < blocks) {
            PRODUCT(1, 5, 7, b + 1, 0)
            _tile_stored(1, dots[1], 64);
        }
        _tile_stored(0, dots[0], 64);
        SCALE(b, 0)
        if (b + 1 < blocks) SCALE(b + 1, 1)
#undef SCALE
    }
#undef PRODUCT
#pragma GCC unroll 16
    for (int t = 0; t < TILE_ROWS; t++) put(out + t * stride, sum[t], add);
}

/* One group times the full tiles of [begin, end); returns the first tile that is left. */
INLINE int amx_group_times_tiles(const int format, const uint8_t *group, const struct activations *in, int begin,
                                 int end, float *out, int64_t stride, bool add, uint8_t *codes) {
    const int blocks = in->columns / BLOCK, full = in->rows / TILE_ROWS < end ? in->rows / TILE_ROWS : end;
    if (begin >= full) return begin;
    amx_unpack(format, group, blocks, codes);
    const uint8_t *scales = group + (int64_t)blocks * layout_of(format).code_bytes;
    for (int tile = begin; tile < full; tile++)
        amx_tile(format, codes, scales, in, tile, out + (int64_t)tile * TILE_ROWS * stride, stride, add);
    return full;
}
