/* Causal attention within documents, forward and backward, without ever holding all scores (Dao et
 * al. 2022, "FlashAttention"). Compiled twice: with AMX's tiles (-DISA_AMX), and portable.
 *
 * One thread at a time does a (row, key/value head) with all of its query heads, so that no sum
 * depends on the threads. Positions are taken in blocks of 64. Scores are computed with keys as
 * rows and queries as columns: what belongs to a query (its maximum, its sum) then lies along the
 * lanes of a vector, and the weights come out as the second factor of the product with the values.
 */
#include "primitives.h"
#include <stdlib.h>

#ifdef ISA_AMX
#define NAME(function) oneiros_##function##_tiles
#else
#define NAME(function) oneiros_##function##_portable
#endif

enum { BLOCK = 64, LANE_VECTORS = BLOCK / LANES };
#define EACH_VECTOR _Pragma("GCC unroll 8") for (int v = 0; v < LANE_VECTORS; v++)
static const float LOG2_E = 1.44269504f, UNSEEN = -INFINITY, LOWEST = -3.4e38f /* of what is seen */;

/* Where the parts of a head lie: position p at base + p * stride. */
struct head { int64_t base, stride; };

static struct head head_of(const struct attention *a, int row, int head, int heads) {
    const int64_t stride = (int64_t)heads * a->head_dim;
    return (struct head){.base = (int64_t)row * a->positions * stride + (int64_t)head * a->head_dim, .stride = stride};
}

static int blocks_of(const struct attention *a) { return (a->positions + BLOCK - 1) / BLOCK; }

/* --- layouts of a block of 64 positions, each of BLOCK * head_dim values ------------------------ */

/* By rows: [64][F]. Positions that are not there are 0. */
INLINE void pack_rows(const bf16 *from, struct head head, int begin, const struct attention *a, bf16 *to) {
    for (int i = 0; i < BLOCK; i++, to += a->head_dim) {
        if (begin + i < a->positions)
            memcpy(to, from + head.base + (begin + i) * head.stride, (size_t)a->head_dim * sizeof *to);
        else
            memset(to, 0, (size_t)a->head_dim * sizeof *to);
    }
}

/* As a second factor with positions as rows: [32][F][2]. */
INLINE void pack_pairs(const bf16 *rows, int head_dim, bf16 *to) {
    for (int i = 0; i < BLOCK; i += 2, rows += 2 * head_dim)
        for (int f = 0; f < head_dim; f += 32, to += 64) pair(rows + f, rows + head_dim + f, to);
}

/* As a second factor with positions as columns: [F / 2][64][2]. */
INLINE void pack_turned(const bf16 *rows, int head_dim, bf16 *to) {
    for (int i = 0; i < BLOCK; i += 16)
        for (int f = 0; f < head_dim; f += 32)
            transpose(rows + i * head_dim + f, head_dim / 2, to + f * BLOCK + 2 * i, BLOCK);
}

/* Transposed: [F][64]. */
INLINE void pack_columns(const bf16 *rows, int head_dim, bf16 *to) {
    _Alignas(64) bf16 turned[16 * 32];
    for (int i = 0; i < BLOCK; i += 16)
        for (int f = 0; f < head_dim; f += 32) {
            transpose(rows + i * head_dim + f, head_dim / 2, turned, 16);
            for (int j = 0; j < 16; j++)
                halves(turned + 32 * j, to + (f + 2 * j) * BLOCK + i, to + (f + 2 * j + 1) * BLOCK + i);
        }
}

/* [F][64] times one factor for each position, to rows of bfloat16. */
INLINE void unpack_columns(const float *columns, const float *factor, struct head head, int begin,
                           const struct attention *a, bf16 *to) {
    _Alignas(64) float part[16 * 16], rows[16 * 16];
    for (int i = 0; i < BLOCK; i += 16)
        for (int f = 0; f < a->head_dim; f += 16) {
            for (int j = 0; j < 16; j++)
                for (int lane = 0; lane < 16; lane += LANES)
                    f_store(part + 16 * j + lane, f_mul(f_load(columns + (f + j) * BLOCK + i + lane), f_load(factor + i + lane)));
            transpose(part, 16, rows, 16);
            for (int j = 0; j < 16 && begin + i + j < a->positions; j++)
                for (int lane = 0; lane < 16; lane += LANES)
                    store_bf16(to + head.base + (begin + i + j) * head.stride + f + lane, f_load(rows + 16 * j + lane));
        }
}

/* --- which position sees which ------------------------------------------------------------------ */

static int first_of(const struct attention *a, int row, int position) {
    if (position >= a->positions) position = a->positions - 1;
    const int first = a->first[(int64_t)row * a->first_stride + position];
    return first < 0 ? 0 : first < position ? first : position;
}

/* Sets the scores [key][query] of two blocks to UNSEEN where the query does not see the key: queries
 * before the key, and those from the first one on whose document begins after it. */
static void hide(const struct attention *a, int row, int key_begin, int query_begin, float *scores) {
    if (key_begin < query_begin && first_of(a, row, query_begin + BLOCK - 1) <= key_begin) return;
    for (int k = 0, end = 0; k < BLOCK; k++, scores += BLOCK) {
        const int key = key_begin + k;
        while (end < BLOCK && first_of(a, row, query_begin + end) <= key) end++;
        for (int q = 0; q < key - query_begin; q++) scores[q] = UNSEEN;
        for (int q = end; q < BLOCK; q++) scores[q] = UNSEEN;
    }
}

/* --- the work of a thread ------------------------------------------------------------------------ */

/* Memory of `values` floats and `packed` blocks of bfloat16, or null. */
static void *memory_for(const struct attention *a, size_t values, size_t packed) {
    const size_t block = (size_t)BLOCK * (size_t)a->head_dim;
    const size_t bytes = values * sizeof(float) + packed * block * sizeof(bf16);
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

/* The weights of one block of keys, [key][query] as a second factor ([32][64][2]). Maximum, sum and
 * what was mixed so far follow the largest score (Milakov & Gimelshein 2018). */
INLINE void weigh(const float *scores, float unit, float *maximum, float *sum, float *columns, int head_dim,
                  bf16 *weights) {
    vf now[LANE_VECTORS], added[LANE_VECTORS], factor[LANE_VECTORS];
    EACH_VECTOR now[v] = f_load(maximum + v * LANES), added[v] = f_zero();
    for (int k = 0; k < BLOCK; k++)
        EACH_VECTOR now[v] = f_max(now[v], f_load(scores + k * BLOCK + v * LANES));
    EACH_VECTOR {
        factor[v] = f_exp2(f_mul(f_sub(f_load(maximum + v * LANES), now[v]), f_set(unit)));
        f_store(maximum + v * LANES, now[v]);
    }
    for (int k = 0; k < BLOCK; k += 2)
        EACH_VECTOR {
            const float *score = scores + k * BLOCK + v * LANES;
            const vf even = f_exp2(f_mul(f_sub(f_load(score), now[v]), f_set(unit)));
            const vf odd = f_exp2(f_mul(f_sub(f_load(score + BLOCK), now[v]), f_set(unit)));
            added[v] = f_add(added[v], f_add(even, odd));
            store_paired(weights + k * BLOCK + 2 * v * LANES, even, odd);
        }
    EACH_VECTOR f_store(sum + v * LANES, f_fma(f_load(sum + v * LANES), factor[v], added[v]));
    for (int f = 0; f < head_dim; f++)
        EACH_VECTOR {
            float *column = columns + f * BLOCK + v * LANES;
            f_store(column, f_mul(f_load(column), factor[v]));
        }
}

static void forward_heads(struct attention *a, int row, int kv_head, bf16 *packed, float *columns) {
    const int dim = a->head_dim, blocks = blocks_of(a), size = BLOCK * dim, group = a->heads / a->kv_heads;
    bf16 *keys = packed, *values = keys + blocks * size, *rows = values + blocks * size, *query = rows + size;
    const struct head kv = head_of(a, row, kv_head, a->kv_heads);
    const float unit = a->scale * LOG2_E;
    for (int b = 0; b < blocks; b++) {
        pack_rows(a->keys, kv, b * BLOCK, a, keys + b * size);
        pack_rows(a->values, kv, b * BLOCK, a, rows);
        pack_columns(rows, dim, values + b * size);
    }
    for (int h = kv_head * group; h < (kv_head + 1) * group; h++) {
        const struct head head = head_of(a, row, h, a->heads);
        float *log_sum = a->log_sum + ((int64_t)row * a->heads + h) * a->positions;
        for (int b = 0; b < blocks; b++) {
            _Alignas(64) float scores[BLOCK * BLOCK], maximum[BLOCK], sum[BLOCK];
            _Alignas(64) bf16 weights[BLOCK * BLOCK];
            pack_rows(a->queries, head, b * BLOCK, a, rows);
            pack_turned(rows, dim, query);
            memset(columns, 0, (size_t)size * sizeof *columns);
            for (int q = 0; q < BLOCK; q++) maximum[q] = LOWEST, sum[q] = 0;
            for (int k = first_of(a, row, b * BLOCK) / BLOCK; k <= b; k++) {
                multiply(scores, BLOCK, keys + k * size, dim, query, BLOCK, BLOCK, BLOCK, dim, false);
                hide(a, row, k * BLOCK, b * BLOCK, scores);
                weigh(scores, unit, maximum, sum, columns, dim, weights);
                multiply(columns, BLOCK, values + k * size, BLOCK, weights, BLOCK, dim, BLOCK, BLOCK, true);
            }
            for (int q = 0; q < BLOCK; q++) {
                if (b * BLOCK + q < a->positions) log_sum[b * BLOCK + q] = maximum[q] * unit + log2f(sum[q]);
                sum[q] = 1 / sum[q];
            }
            unpack_columns(columns, sum, head, b * BLOCK, a, a->mixed);
        }
    }
}

/* From scores and the gradients of weights, both [key][query]: the weights by rows, and the
 * gradients of scores by rows and in pairs. */
INLINE void differentiate(const float *scores, const float *slopes, float scale, const float *log_sum,
                          const float *mean, bf16 *weights, bf16 *by_rows, bf16 *in_pairs) {
    for (int k = 0; k < BLOCK; k += 2)
        EACH_VECTOR {
            vf slope[2];
            for (int i = 0; i < 2; i++) {
                const int at = (k + i) * BLOCK + v * LANES;
                const vf exponent = f_sub(f_mul(f_load(scores + at), f_set(scale * LOG2_E)), f_load(log_sum + v * LANES));
                const vf weight = f_exp2(exponent);
                slope[i] = f_mul(f_mul(weight, f_sub(f_load(slopes + at), f_load(mean + v * LANES))), f_set(scale));
                store_bf16(weights + at, weight);
                store_bf16(by_rows + at, slope[i]);
            }
            store_paired(in_pairs + k * BLOCK + 2 * v * LANES, slope[0], slope[1]);
        }
}

/* What the backward pass keeps of a query head, block by block. */
struct queries {
    bf16 *turned, *in_pairs;                   /* the queries */
    bf16 *gradient_turned, *gradient_in_pairs; /* the gradient of what was mixed */
    float *columns;                            /* the gradient of the queries, [F][64] */
    float *log_sum, *mean;                     /* [64]; mean: of the gradients of a query's weights */
};

static void load_queries(const struct attention *a, int row, int h, bf16 *rows, struct queries to) {
    const int dim = a->head_dim, size = BLOCK * dim, blocks = blocks_of(a);
    const struct head head = head_of(a, row, h, a->heads);
    const float *log_sum = a->log_sum + ((int64_t)row * a->heads + h) * a->positions;
    memset(to.columns, 0, (size_t)blocks * size * sizeof *to.columns);
    for (int b = 0; b < blocks; b++) {
        pack_rows(a->queries, head, b * BLOCK, a, rows);
        pack_turned(rows, dim, to.turned + b * size);
        pack_pairs(rows, dim, to.in_pairs + b * size);
        pack_rows(a->gradient, head, b * BLOCK, a, rows);
        pack_turned(rows, dim, to.gradient_turned + b * size);
        pack_pairs(rows, dim, to.gradient_in_pairs + b * size);
        for (int i = 0; i < BLOCK; i++) {
            const int position = b * BLOCK + i;
            to.mean[position] = to.log_sum[position] = 0;
            if (position >= a->positions) continue;
            const bf16 *mixed = a->mixed + head.base + position * head.stride;
            vf parts[PARTS];
            for (int p = 0; p < PARTS; p++) parts[p] = f_zero();
            for (int f = 0; f < dim; f += 16)
                for (int p = 0; p < PARTS; p++)
                    parts[p] = f_fma(f_load_bf16(mixed + f + p * LANES), f_load_bf16(rows + i * dim + f + p * LANES), parts[p]);
            to.mean[position] = sum16(parts);
            to.log_sum[position] = log_sum[position];
        }
    }
}

static void store_rows(const float *rows, struct head head, const struct attention *a, bf16 *to) {
    for (int i = 0; i < a->positions; i++)
        for (int f = 0; f < a->head_dim; f += LANES)
            store_bf16(to + head.base + i * head.stride + f, f_load(rows + (int64_t)i * a->head_dim + f));
}

static void backward_heads(struct attention *a, int row, int kv_head, bf16 *packed, float *memory) {
    const int dim = a->head_dim, blocks = blocks_of(a), size = BLOCK * dim, group = a->heads / a->kv_heads;
    const int64_t all = (int64_t)blocks * size;
    bf16 *keys = packed, *values = keys + all, *key_columns = values + all, *rows = key_columns + all;
    bf16 *more = rows + size;
    float *key_gradient = memory, *value_gradient = key_gradient + all;
    const struct queries queries = {
        .turned = more, .in_pairs = more + all, .gradient_turned = more + 2 * all, .gradient_in_pairs = more + 3 * all,
        .columns = value_gradient + all, .log_sum = value_gradient + 2 * all,
        .mean = value_gradient + 2 * all + blocks * BLOCK,
    };
    const struct head kv = head_of(a, row, kv_head, a->kv_heads);
    float ones[BLOCK];
    for (int i = 0; i < BLOCK; i++) ones[i] = 1;
    memset(key_gradient, 0, (size_t)(2 * all) * sizeof *key_gradient);
    for (int b = 0; b < blocks; b++) {
        pack_rows(a->keys, kv, b * BLOCK, a, keys + b * size);
        pack_rows(a->values, kv, b * BLOCK, a, values + b * size);
        pack_columns(keys + b * size, dim, key_columns + b * size);
    }
    for (int h = kv_head * group; h < (kv_head + 1) * group; h++) {
        load_queries(a, row, h, rows, queries);
        for (int k = 0; k < blocks; k++)
            for (int b = k; b < blocks && first_of(a, row, b * BLOCK) < (k + 1) * BLOCK; b++) {
                _Alignas(64) float scores[BLOCK * BLOCK], slopes[BLOCK * BLOCK];
                _Alignas(64) bf16 weights[BLOCK * BLOCK], by_rows[BLOCK * BLOCK], in_pairs[BLOCK * BLOCK];
                multiply(scores, BLOCK, keys + k * size, dim, queries.turned + b * size, BLOCK, BLOCK, BLOCK, dim, false);
                multiply(slopes, BLOCK, values + k * size, dim, queries.gradient_turned + b * size, BLOCK, BLOCK, BLOCK,
                         dim, false);
                hide(a, row, k * BLOCK, b * BLOCK, scores);
                differentiate(scores, slopes, a->scale, queries.log_sum + b * BLOCK, queries.mean + b * BLOCK, weights,
                              by_rows, in_pairs);
                multiply(value_gradient + k * size, dim, weights, BLOCK, queries.gradient_in_pairs + b * size, dim, BLOCK,
                         dim, BLOCK, true);
                multiply(key_gradient + k * size, dim, by_rows, BLOCK, queries.in_pairs + b * size, dim, BLOCK, dim, BLOCK,
                         true);
                multiply(queries.columns + b * size, BLOCK, key_columns + k * size, BLOCK, in_pairs, BLOCK, dim, BLOCK,
                         BLOCK, true);
            }
        for (int b = 0; b < blocks; b++)
            unpack_columns(queries.columns + b * size, ones, head_of(a, row, h, a->heads), b * BLOCK, a, a->query_gradient);
    }
    store_rows(key_gradient, kv, a, a->key_gradient);
    store_rows(value_gradient, kv, a, a->value_gradient);
}

typedef void heads_function(struct attention *, int row, int kv_head, bf16 *packed, float *values);

static void share(struct attention *a, heads_function *heads, size_t values, size_t packed) {
    float *memory = memory_for(a, values, packed);
    if (!memory) return;
    struct tile_config before;
    tiles_begin(&before);
    for (int i; (i = atomic_fetch_add(&a->next, 1)) < a->rows * a->kv_heads;)
        heads(a, i / a->kv_heads, i % a->kv_heads, (bf16 *)(memory + values), memory);
    tiles_end(&before);
    free(memory);
}

void NAME(attention_forward)(struct attention *a) {
    share(a, forward_heads, (size_t)BLOCK * (size_t)a->head_dim, 2 * (size_t)blocks_of(a) + 2);
}

void NAME(attention_backward)(struct attention *a) {
    const size_t blocks = (size_t)blocks_of(a), size = (size_t)BLOCK * (size_t)a->head_dim;
    share(a, backward_heads, 3 * blocks * size + 2 * blocks * BLOCK, 7 * blocks + 1);
}
