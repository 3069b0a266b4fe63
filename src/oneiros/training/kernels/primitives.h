/* What the arithmetic of attention is made of, with AMX's tile registers or in portable C.
 *
 * Matrices come in three layouts of bfloat16: by rows; in pairs, two rows side by side, as the
 * second factor of a product ([rows / 2][columns][2]); and float32 by rows, which products give. */
#ifndef PRIMITIVES_H
#define PRIMITIVES_H
#include "kernels.h"
#include "simd.h"

#ifdef ISA_AMX /* ------------------------------------------------------------------------------ */

struct __attribute__((packed)) tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* The compiler is not told that instructions on tiles read memory: what was stored has to be there. */
#define ALL_STORED() __asm__ volatile("" ::: "memory")

/* Eight tiles of 16 rows of 64 bytes; what was configured is kept, for whoever had it so. */
INLINE void tiles_begin(struct tile_config *before) {
    struct tile_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) config.row_bytes[i] = 64, config.rows[i] = 16;
    _tile_storeconfig(before);
    ALL_STORED();
    _tile_loadconfig(&config);
}

INLINE void tiles_end(const struct tile_config *before) {
    if (before->palette) _tile_loadconfig(before);
    else _tile_release();
}

/* c[m][n] = (add ? c : 0) + a[m][k] b[k][n], with b in pairs; m, n and k are multiples of 32. */
INLINE void multiply(float *c, int c_stride, const bf16 *a, int a_stride, const bf16 *b, int b_stride,
                     int m, int n, int k, bool add) {
    ALL_STORED();
    for (int i = 0; i < m; i += 32)
        for (int j = 0; j < n; j += 32) {
            float *out = c + (int64_t)i * c_stride + j;
            const bf16 *left = a + (int64_t)i * a_stride, *right = b + 2 * j;
            if (add) {
                _tile_loadd(0, out, c_stride * 4);
                _tile_loadd(1, out + 16, c_stride * 4);
                _tile_loadd(2, out + 16 * c_stride, c_stride * 4);
                _tile_loadd(3, out + 16 * c_stride + 16, c_stride * 4);
            } else {
                _tile_zero(0);
                _tile_zero(1);
                _tile_zero(2);
                _tile_zero(3);
            }
            for (int step = 0; step < k; step += 32) {
                _tile_loadd(4, left + step, a_stride * 2);
                _tile_loadd(5, left + step + 16 * a_stride, a_stride * 2);
                _tile_loadd(6, right + (int64_t)step * b_stride, b_stride * 4);
                _tile_loadd(7, right + (int64_t)step * b_stride + 32, b_stride * 4);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
            _tile_stored(0, out, c_stride * 4);
            _tile_stored(1, out + 16, c_stride * 4);
            _tile_stored(2, out + 16 * c_stride, c_stride * 4);
            _tile_stored(3, out + 16 * c_stride + 16, c_stride * 4);
        }
}

/* to[j][i] = from[i][j], of 16 x 16 words of 32 bits. */
INLINE void transpose(const void *from, int64_t from_stride, void *to, int64_t to_stride) {
    __m512i r[16], t[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_si512((const uint32_t *)from + i * from_stride);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) { /* then lane l of r[i + c] is column 4 l + c of rows i to i + 3 */
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        const __m512i even = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88), odd = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
        const __m512i even2 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
        const __m512i odd2 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
        t[c] = _mm512_shuffle_i32x4(even, even2, 0x88);
        t[4 + c] = _mm512_shuffle_i32x4(odd, odd2, 0x88);
        t[8 + c] = _mm512_shuffle_i32x4(even, even2, 0xdd);
        t[12 + c] = _mm512_shuffle_i32x4(odd, odd2, 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) _mm512_storeu_si512((uint32_t *)to + i * to_stride, t[i]);
}

/* to[i] = even[i], odd[i], for 32 values of each. */
INLINE void pair(const bf16 *even, const bf16 *odd, bf16 *to) {
    const __m512i a = _mm512_loadu_si512(even), b = _mm512_loadu_si512(odd);
    const __m512i low = _mm512_unpacklo_epi16(a, b), high = _mm512_unpackhi_epi16(a, b);
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), last = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    _mm512_storeu_si512(to, _mm512_permutex2var_epi64(low, first, high));
    _mm512_storeu_si512(to + 32, _mm512_permutex2var_epi64(low, last, high));
}

/* The lower and the upper half of 16 words. */
INLINE void halves(const bf16 *pairs, bf16 *low, bf16 *high) {
    const __m512i words = _mm512_loadu_si512(pairs);
    _mm256_storeu_si256((void *)low, _mm512_cvtepi32_epi16(words));
    _mm256_storeu_si256((void *)high, _mm512_cvtepi32_epi16(_mm512_srli_epi32(words, 16)));
}

INLINE void store_bf16(bf16 *p, vf a) { /* to nearest even */
    _mm256_storeu_si256((void *)p, (__m256i)_mm512_cvtneps_pbh(a));
}

/* The same of two vectors, as even[i], odd[i]. */
INLINE void store_paired(bf16 *p, vf even, vf odd) {
    const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even));
    const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));
    _mm512_storeu_si512(p, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}

#else /* portable ------------------------------------------------------------------------------ */

struct tile_config { char nothing; };
INLINE void tiles_begin(struct tile_config *before) { (void)before; }
INLINE void tiles_end(const struct tile_config *before) { (void)before; }

INLINE float widened(bf16 bits) {
    const uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

INLINE void multiply(float *c, int c_stride, const bf16 *a, int a_stride, const bf16 *b, int b_stride,
                     int m, int n, int k, bool add) {
    for (int i = 0; i < m; i++) {
        float *out = c + (int64_t)i * c_stride;
        if (!add) memset(out, 0, (size_t)n * sizeof *out);
        for (int step = 0; step < k; step += 2) {
            const float even = widened(a[(int64_t)i * a_stride + step]), odd = widened(a[(int64_t)i * a_stride + step + 1]);
            const bf16 *right = b + (int64_t)step * b_stride;
            for (int j = 0; j < n; j++) out[j] += even * widened(right[2 * j]) + odd * widened(right[2 * j + 1]);
        }
    }
}

INLINE void transpose(const void *from, int64_t from_stride, void *to, int64_t to_stride) {
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++)
            memcpy((uint32_t *)to + j * to_stride + i, (const uint32_t *)from + i * from_stride + j, sizeof(uint32_t));
}

INLINE void pair(const bf16 *even, const bf16 *odd, bf16 *to) {
    for (int i = 0; i < 32; i++) to[2 * i] = even[i], to[2 * i + 1] = odd[i];
}

INLINE void halves(const bf16 *pairs, bf16 *low, bf16 *high) {
    for (int i = 0; i < 16; i++) low[i] = pairs[2 * i], high[i] = pairs[2 * i + 1];
}

INLINE bf16 narrowed(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bf16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

INLINE void store_bf16(bf16 *p, vf a) {
    for (int i = 0; i < LANES; i++) p[i] = narrowed(a[i]);
}

INLINE void store_paired(bf16 *p, vf even, vf odd) {
    for (int i = 0; i < LANES; i++) p[2 * i] = narrowed(even[i]), p[2 * i + 1] = narrowed(odd[i]);
}
#endif

/* 2^x for x <= 126, relative error below 3e-6; from -126.5 down 0 (subnormal numbers would be slow).
 * NaN stays NaN. */
INLINE vf f_exp2(vf x) {
    x = f_max(f_set(-127.0f), x); /* whose exponent's bits are 0 */
    const vi n = i_round(x);
    const vf r = f_mul(f_sub(x, f_from_int(n)), f_set(0.693147181f));
    vf p = f_set(1.0f / 120.0f);
    p = f_fma(p, r, f_set(1.0f / 24.0f));
    p = f_fma(p, r, f_set(1.0f / 6.0f));
    p = f_fma(p, r, f_set(0.5f));
    p = f_fma(p, r, f_set(1.0f));
    p = f_fma(p, r, f_set(1.0f));
    return f_mul(p, f_exponent(n));
}
#endif
