/* Vectors of LANES floats or 32-bit integers for each instruction path. Every operation rounds
 * once and works lane by lane, so that AVX2 and AVX-512 give the same bits; sums across lanes go
 * through sum16(), whose order is the same for every width. */
#ifndef SIMD_H
#define SIMD_H
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

#if defined(ISA_AVX512) || defined(ISA_AMX) /* ------------------------------------------------ */
#include <immintrin.h>
#define LANES 16
typedef __m512 vf;
typedef __m512i vi;
INLINE vf f_zero(void) { return _mm512_setzero_ps(); }
INLINE vf f_set(float x) { return _mm512_set1_ps(x); }
INLINE vf f_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void f_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
INLINE vf f_add(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf f_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
INLINE vf f_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf f_div(vf a, vf b) { return _mm512_div_ps(a, b); }
INLINE vf f_max(vf a, vf b) { return _mm512_max_ps(a, b); } /* b where a is NaN, here and below */
INLINE vf f_min(vf a, vf b) { return _mm512_min_ps(a, b); }
INLINE vf f_abs(vf a) { return _mm512_abs_ps(a); }
INLINE vf f_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vf f_load_half(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
INLINE vf f_load_bf16(const uint16_t *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p)), 16));
}
INLINE void f_store_half(uint16_t *p, vf a) { _mm256_storeu_si256((void *)p, _mm512_cvtps_ph(a, 0)); }
INLINE vf f_from_int(vi a) { return _mm512_cvtepi32_ps(a); }
INLINE vi i_round(vf a) { return _mm512_cvtps_epi32(a); }
INLINE vi i_set(int32_t x) { return _mm512_set1_epi32(x); }
INLINE vi i_load(const void *p) { return _mm512_loadu_si512(p); }
INLINE vi i_and(vi a, vi b) { return _mm512_and_si512(a, b); }
INLINE vi i_or(vi a, vi b) { return _mm512_or_si512(a, b); }
INLINE vi i_shift_right16(vi a, int n) { return _mm512_srli_epi16(a, (unsigned)n); }
INLINE vi i_shift_left16(vi a, int n) { return _mm512_slli_epi16(a, (unsigned)n); }
INLINE vi i_arithmetic_right(vi a, int n) { return _mm512_srai_epi32(a, (unsigned)n); }
INLINE vf f_exponent(vi n) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n, i_set(127)), 23)); }
INLINE void i_store_bytes(int8_t *p, vi a) { _mm_storeu_si128((void *)p, _mm512_cvtsepi32_epi8(a)); }
INLINE float lanes_max(vf a) { return _mm512_reduce_max_ps(a); }
INLINE int32_t lanes_sum(vi a) { return _mm512_reduce_add_epi32(a); }
/* Sum of the products of `count` vectors of unsigned codes with 4 * count signed bytes at x. */
INLINE vi i_dot(vi sum, const vi *codes, int count, int bits, const int8_t *x) {
    (void)bits;
#pragma GCC unroll 8
    for (int j = 0; j < count; j++) {
        int32_t four;
        memcpy(&four, x + 4 * j, 4);
        sum = _mm512_dpbusd_epi32(sum, codes[j], _mm512_set1_epi32(four));
    }
    return sum;
}
#define SIGNED_EIGHT_BIT_DOT 0

#elif defined(ISA_AVX2) /* --------------------------------------------------------------------- */
#include <immintrin.h>
#define LANES 8
typedef __m256 vf;
typedef __m256i vi;
INLINE vf f_zero(void) { return _mm256_setzero_ps(); }
INLINE vf f_set(float x) { return _mm256_set1_ps(x); }
INLINE vf f_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void f_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
INLINE vf f_add(vf a, vf b) { return _mm256_add_ps(a, b); }
INLINE vf f_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
INLINE vf f_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
INLINE vf f_div(vf a, vf b) { return _mm256_div_ps(a, b); }
INLINE vf f_max(vf a, vf b) { return _mm256_max_ps(a, b); }
INLINE vf f_min(vf a, vf b) { return _mm256_min_ps(a, b); }
INLINE vf f_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
INLINE vf f_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vf f_load_half(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p)); }
INLINE vf f_load_bf16(const uint16_t *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p)), 16));
}
INLINE void f_store_half(uint16_t *p, vf a) { _mm_storeu_si128((void *)p, _mm256_cvtps_ph(a, 0)); }
INLINE vf f_from_int(vi a) { return _mm256_cvtepi32_ps(a); }
INLINE vi i_round(vf a) { return _mm256_cvtps_epi32(a); }
INLINE vi i_set(int32_t x) { return _mm256_set1_epi32(x); }
INLINE vi i_load(const void *p) { return _mm256_loadu_si256(p); }
INLINE vi i_and(vi a, vi b) { return _mm256_and_si256(a, b); }
INLINE vi i_or(vi a, vi b) { return _mm256_or_si256(a, b); }
INLINE vi i_shift_right16(vi a, int n) { return _mm256_srli_epi16(a, n); }
INLINE vi i_shift_left16(vi a, int n) { return _mm256_slli_epi16(a, n); }
INLINE vi i_arithmetic_right(vi a, int n) { return _mm256_srai_epi32(a, n); }
INLINE vf f_exponent(vi n) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, i_set(127)), 23)); }
INLINE void i_store_bytes(int8_t *p, vi a) {
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    _mm_storel_epi64((void *)p, _mm_packs_epi16(words, words));
}
INLINE float lanes_max(vf a) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
}
INLINE int32_t lanes_sum(vi a) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}
INLINE vi i_four(const int8_t *x) {
    int32_t four;
    memcpy(&four, x, 4);
    return _mm256_set1_epi32(four);
}
/* Pairs of products are summed in 16 bits for as long as they cannot overflow:
 * 2 * 127 * (2^bits - 1) fits 8, 4 and 2 times for 4, 5 and 6 bits. Eight-bit codes are made signed
 * again and multiplied as |code| by sign(code) * x. */
INLINE vi i_dot(vi sum, const vi *codes, int count, int bits, const int8_t *x) {
    const vi ones = _mm256_set1_epi16(1);
    if (bits == 8) {
#pragma GCC unroll 8
        for (int j = 0; j < count; j++) {
            vi w = _mm256_xor_si256(codes[j], _mm256_set1_epi8((char)0x80));
            vi pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(i_four(x + 4 * j), w));
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
        }
        return sum;
    }
    const int safe = bits == 4 ? 8 : bits == 5 ? 4 : 2;
#pragma GCC unroll 8
    for (int j = 0; j < count; j += safe) {
        vi pairs = _mm256_maddubs_epi16(codes[j], i_four(x + 4 * j));
        for (int i = j + 1; i < j + safe && i < count; i++)
            pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(codes[i], i_four(x + 4 * i)));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
    }
    return sum;
}
#define SIGNED_EIGHT_BIT_DOT 1

#else /* portable: GCC and Clang vector extensions on any processor ----------------------------- */
#define LANES 8
typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
typedef uint16_t v16 __attribute__((vector_size(32)));
INLINE vf f_set(float x) { return (vf){x, x, x, x, x, x, x, x}; }
INLINE vf f_zero(void) { return f_set(0.0f); }
INLINE vf f_load(const float *p) { vf a; memcpy(&a, p, sizeof a); return a; }
INLINE void f_store(float *p, vf a) { memcpy(p, &a, sizeof a); }
INLINE vf f_add(vf a, vf b) { return a + b; }
INLINE vf f_sub(vf a, vf b) { return a - b; }
INLINE vf f_mul(vf a, vf b) { return a * b; }
INLINE vf f_div(vf a, vf b) { return a / b; }
INLINE vf f_max(vf a, vf b) { vi m = a > b; return (vf)(((vi)a & m) | ((vi)b & ~m)); }
INLINE vf f_min(vf a, vf b) { vi m = a < b; return (vf)(((vi)a & m) | ((vi)b & ~m)); }
INLINE vf f_abs(vf a) { return (vf)((vi)a & 0x7fffffff); }
INLINE vf f_fma(vf a, vf b, vf c) { return a * b + c; }
INLINE vi i_set(int32_t x) { return (vi){x, x, x, x, x, x, x, x}; }
INLINE vi i_load(const void *p) { vi a; memcpy(&a, p, sizeof a); return a; }
INLINE vi i_and(vi a, vi b) { return a & b; }
INLINE vi i_or(vi a, vi b) { return a | b; }
INLINE vi i_shift_right16(vi a, int n) { return (vi)((v16)a >> (uint16_t)n); }
INLINE vi i_shift_left16(vi a, int n) { return (vi)((v16)a << (uint16_t)n); }
INLINE vi i_arithmetic_right(vi a, int n) { return a >> n; }
INLINE vf f_from_int(vi a) { return __builtin_convertvector(a, vf); }
INLINE vi i_round(vf a) { /* to nearest even, for |a| < 2^22 */
    const vf magic = f_set(12582912.0f);
    return __builtin_convertvector((a + magic) - magic, vi);
}
INLINE vf f_exponent(vi n) { return (vf)((n + 127) << 23); }
INLINE vf f_load_half(const uint16_t *p) {
    vi bits;
    for (int i = 0; i < LANES; i++) bits[i] = p[i];
    vi magnitude = bits & 0x7fff;
    vf value = (vf)(magnitude << 13) * f_set(0x1p112f); /* rebias the exponent; subnormals come out right */
    vi special = magnitude > 0x7bff;                    /* infinity and NaN keep an all-ones exponent */
    vi result = ((vi)value & ~special) | (((magnitude << 13) | 0x7f800000) & special);
    return (vf)(result | ((bits & 0x8000) << 16));
}
INLINE vf f_load_bf16(const uint16_t *p) {
    vi bits;
    for (int i = 0; i < LANES; i++) bits[i] = p[i];
    return (vf)(bits << 16);
}
INLINE void f_store_half(uint16_t *p, vf a) {
    vi bits = (vi)a, sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
    /* Normal: drop 13 bits, rounding to even. Subnormal: adding 0.5 aligns and rounds the mantissa. */
    vi normal = ((magnitude + 0xfff + ((magnitude >> 13) & 1)) >> 13) - (112 << 10);
    vi small = (vi)((vf)magnitude + f_set(0.5f)) - (vi)f_set(0.5f);
    vi is_small = magnitude < 0x38800000, is_big = magnitude >= 0x477ff000, is_nan = magnitude > 0x7f800000;
    vi half = (small & is_small) | (normal & ~is_small & ~is_big) | (0x7c00 & is_big);
    half |= sign | (0x0200 & is_nan);
    for (int i = 0; i < LANES; i++) p[i] = (uint16_t)half[i];
}
INLINE void i_store_bytes(int8_t *p, vi a) {
    for (int i = 0; i < LANES; i++) p[i] = (int8_t)a[i];
}
INLINE float lanes_max(vf a) {
    float m = a[0];
    for (int i = 1; i < LANES; i++) m = a[i] > m ? a[i] : m;
    return m;
}
INLINE int32_t lanes_sum(vi a) {
    int32_t s = 0;
    for (int i = 0; i < LANES; i++) s += a[i];
    return s;
}
INLINE vi i_dot(vi sum, const vi *codes, int count, int bits, const int8_t *x) {
    (void)bits;
    for (int j = 0; j < count; j++)
        for (int b = 0; b < 4; b++) sum += ((codes[j] >> (8 * b)) & 0xff) * i_set(x[4 * j + b]);
    return sum;
}
#define SIGNED_EIGHT_BIT_DOT 0
#endif

#define PARTS (16 / LANES) /* vectors that hold sixteen values */

/* The sum of sixteen values in an order that does not depend on LANES. */
INLINE float sum16(const vf *parts) {
    float v[16];
    for (int i = 0; i < PARTS; i++) f_store(v + LANES * i, parts[i]);
    for (int width = 8; width > 0; width /= 2)
        for (int i = 0; i < width; i++) v[i] += v[i + width];
    return v[0];
}

/* e^x for x <= 88, relative error below 2e-7; e^-87 below that. Cody-Waite reduction, Taylor degree 7. */
INLINE vf f_exp(vf x) {
    x = f_max(x, f_set(-87.0f));
    vi n = i_round(f_mul(x, f_set(1.44269504f)));
    vf nf = f_from_int(n);
    vf r = f_fma(nf, f_set(-0.693145752f), x);
    r = f_fma(nf, f_set(-1.42860677e-6f), r);
    vf p = f_set(1.0f / 5040.0f);
    p = f_fma(p, r, f_set(1.0f / 720.0f));
    p = f_fma(p, r, f_set(1.0f / 120.0f));
    p = f_fma(p, r, f_set(1.0f / 24.0f));
    p = f_fma(p, r, f_set(1.0f / 6.0f));
    p = f_fma(p, r, f_set(0.5f));
    p = f_fma(p, r, f_set(1.0f));
    p = f_fma(p, r, f_set(1.0f));
    return f_mul(p, f_exponent(n));
}
#endif
