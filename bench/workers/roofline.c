/* What the machine itself can do: bytes a second read from memory, and 8-bit multiply-adds a second.
 * Compiled and loaded by bench/engine.py; a call measures one thread's share. */
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

/* Reads `bytes` bytes; the sum is returned so that the reads happen. */
int64_t read_all(const int64_t *data, size_t bytes) {
    int64_t sum[8] = {0};
    for (size_t i = 0; i < bytes / 8; i += 8) {
        __builtin_prefetch(data + i + 256);
        for (int j = 0; j < 8; j++) sum[j] += data[i + j];
    }
    return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

/* Does `rounds` rounds of independent dot products; returns the multiply-adds of one round. */
#ifdef __AVX512VNNI__
int64_t multiply_add(int64_t rounds, int32_t *out) {
    __m512i sum[12], a = _mm512_set1_epi32(*out), b = _mm512_set1_epi32(*out + 1);
    for (int i = 0; i < 12; i++) sum[i] = _mm512_setzero_si512();
    for (int64_t r = 0; r < rounds; r++)
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++) sum[i] = _mm512_dpbusd_epi32(sum[i], a, b);
    for (int i = 0; i < 12; i++) *out += _mm512_reduce_add_epi32(sum[i]);
    return 12 * 64;
}
#else
int64_t multiply_add(int64_t rounds, int32_t *out) {
    __m256i sum[6], a = _mm256_set1_epi32(*out), b = _mm256_set1_epi32(*out + 1), one = _mm256_set1_epi16(1);
    for (int i = 0; i < 6; i++) sum[i] = _mm256_setzero_si256();
    for (int64_t r = 0; r < rounds; r++)
#pragma GCC unroll 6
        for (int i = 0; i < 6; i++)
            sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), one));
    for (int i = 0; i < 6; i++) *out += _mm256_extract_epi32(sum[i], 0);
    return 6 * 32;
}
#endif
