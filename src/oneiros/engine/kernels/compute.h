/* The kernels that exist once for each instruction path (compute.c), as a table of functions. */
#ifndef COMPUTE_H
#define COMPUTE_H
#include "oneiros.h"
#include <stdbool.h>

/* The input of a matrix product: `rows` tokens of `columns` features, in tiles of 16 tokens (the
 * last tile may hold fewer, n). For integer formats each block of 32 features of a token is
 * quantised to int8 with scale = absmax / 127 (as in GGML's Q8_1); for floating-point formats the
 * values themselves are kept. Tile t starts at 16 * t * columns (codes) or 16 * t * blocks. */
struct activations {
    int rows, columns;
    bool want_codes, want_values; /* what the matrices that read this need */
    int8_t *codes;        /* per tile [blocks][n][32] */
    float *scale;         /* per tile [blocks][n] */
    float *scaled_sum;    /* per tile [blocks][n], scale * sum of the codes */
    int32_t *offset;      /* per tile [blocks][n], -128 * sum of the codes */
    int32_t *half_offset; /* per tile [blocks][n], the same over columns 0..15 */
    float *values;        /* [rows][columns] */
};

/* One attention problem: the queries of consecutive positions of one sequence that share one
 * key/value head, against the positions of one span of the cache. */
struct attention_span {
    const float *query;        /* scaled queries; query i, head h at query + i * query_stride + h * head_dim */
    int64_t query_stride;
    int queries;               /* <= MAX_SPAN_QUERIES */
    int heads;                 /* query heads of this key/value head */
    int head_dim;
    int first_position;        /* of query 0 */
    int span;                  /* positions [span * 256, span * 256 + 256) */
    uint8_t *const *page_table;
    int64_t page_offset;       /* of this layer and key/value head within a page */
};

enum { MAX_SPAN_QUERIES = 8, MAX_SPAN_ROWS = 64 }; /* rows: queries * heads */

/* Softmax-weighted values before normalisation (Milakov & Gimelshein 2018): for each row the
 * maximum score, the sum of exp(score - maximum) and the so weighted sum of values. */
struct attention_partial {
    float *maximum;  /* [rows] */
    float *sum;      /* [rows] */
    float *output;   /* [rows][head_dim] */
};

/* What stands beside a matrix: matrix . in is added to its output. */
struct addend {
    const struct matrix *matrix; /* of floating-point format; null: nothing */
    const struct activations *in;
};

struct compute {
    /* out[token * stride + row] = (add ? itself : 0) + w . activations, for rows of groups [first, last). */
    void (*linear)(const struct matrix *w, int first, int last, const struct activations *in,
                   float *out, int64_t stride, bool add);
    /* out[token * stride + row] = a . values of the activations, for rows [first, last) of a. */
    void (*low_rank)(const float *a, int first, int last, const struct activations *in, float *out, int64_t stride);
    /* SwiGLU (Shazeer 2020): out = silu(gate . in) * (up . in) for rows of blocks [first, last) of 32. */
    void (*gate_up)(const struct matrix *gate, const struct matrix *up, const struct addend *gate_more,
                    const struct addend *up_more, int first, int last, const struct activations *in,
                    struct activations *out);
    /* Quantises (or stores) row `row` of `out`. */
    void (*put_row)(const float *x, int row, struct activations *out);
    /* y = x / rms(x) * weight (Zhang & Sennrich 2019). */
    void (*rms_norm)(const float *x, const float *weight, int n, float epsilon, float *y);
    /* Stores the key and value of one head at slot `slot` of a page: K is [head_dim][32], V [32][head_dim]. */
    void (*store_key_value)(const float *key, const float *value, int head_dim, int slot, uint8_t *page);
    void (*attend)(const struct attention_span *a, struct attention_partial *out);
    /* Merges `from` into `into`, row by row (both [rows]); an empty `into` has sum 0. */
    void (*merge)(struct attention_partial *into, const struct attention_partial *from, int rows, int head_dim);
    void (*embed)(const struct matrix *w, int row, float *out);
};

extern const struct compute compute_portable;
#ifdef HAVE_AVX2
extern const struct compute compute_avx2;
#endif
#ifdef HAVE_AVX512
extern const struct compute compute_avx512;
#endif
#ifdef HAVE_AMX
extern const struct compute compute_amx;
#endif
#endif
