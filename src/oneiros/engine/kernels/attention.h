/* Causal attention over paged FP16 keys and values (Vaswani et al. 2017, section 3.2.1), one span
 * of 256 positions at a time. A row is one query of one head; a score accumulates over features in
 * order, an output over positions in order, so that a row does not depend on the rows beside it. */

enum { PAGES_AHEAD = 2 }; /* how far reading looks ahead: a page of one head is 4 kB of keys or values */

INLINE void prefetch(const void *p) { __builtin_prefetch(p, 0, 2); } /* into the second-level cache */

#if LANES == 16
enum { SCORE_ROWS = 8, VALUE_ROWS = 6, VALUE_VECTORS = 4 };
#else
enum { SCORE_ROWS = 4, VALUE_ROWS = 4, VALUE_VECTORS = 2 };
#endif

struct span_row {
    const float *query;
    float *score;  /* [SPAN_TOKENS] */
    float *output; /* [head_dim] */
};

/* Scores of `rows` rows against `blocks` blocks of 16 of the keys of a page ([head_dim][32]). Few rows
 * take both blocks at once, so that enough additions are under way. The keys at `ahead` come next. */
INLINE void score_block(const struct span_row *row, const int rows, const int blocks, const uint16_t *keys,
                        const uint16_t *ahead, int head_dim, int at) {
    vf sum[2 * SCORE_ROWS * PARTS];
#pragma GCC unroll 16
    for (int i = 0; i < rows * blocks * PARTS; i++) sum[i] = f_zero();
    for (int d = 0; d < head_dim; d++) {
        prefetch(ahead + PAGE_TOKENS * d);
#pragma GCC unroll 4
        for (int part = 0; part < blocks * PARTS; part++) {
            const vf key = f_load_half(keys + (int64_t)PAGE_TOKENS * d + LANES * part);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++)
                sum[r * blocks * PARTS + part] = f_fma(key, f_set(row[r].query[d]), sum[r * blocks * PARTS + part]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int part = 0; part < blocks * PARTS; part++)
            f_store(row[r].score + at + LANES * part, sum[r * blocks * PARTS + part]);
}

/* Scores of all rows against a page of keys. */
INLINE void score_page(const struct span_row *row, int rows, const uint16_t *keys, const uint16_t *ahead,
                       int head_dim, int at) {
    while (rows > 0) {
#define ROWS(many)                                                                                 \
    if (many <= SCORE_ROWS && rows >= many) {                                                      \
        const int now = many <= SCORE_ROWS ? many : 1;                                             \
        if (now <= SCORE_ROWS / 2) {                                                               \
            score_block(row, now, 2, keys, ahead, head_dim, at);                                   \
        } else {                                                                                   \
            score_block(row, now, 1, keys, ahead, head_dim, at);                                   \
            score_block(row, now, 1, keys + 16, ahead, head_dim, at + 16);                         \
        }                                                                                          \
        row += many, rows -= many;                                                                 \
        continue;                                                                                  \
    }
        ROWS(8) ROWS(7) ROWS(6) ROWS(4) ROWS(3) ROWS(2) ROWS(1)
#undef ROWS
    }
}

/* Adds probability-weighted values of `count` positions to a slice of VALUE_VECTORS vectors of the outputs. */
INLINE void value_block(const struct span_row *row, const int rows, const int vectors, const uint16_t *values,
                        const uint16_t *ahead, int head_dim, int count, int at, int first) {
    vf sum[VALUE_ROWS * VALUE_VECTORS];
#pragma GCC unroll 24
    for (int i = 0; i < rows * vectors; i++) sum[i] = f_load(row[i / vectors].output + first + LANES * (i % vectors));
    for (int t = 0; t < count; t++) {
        vf value[VALUE_VECTORS];
        prefetch(ahead + (int64_t)t * head_dim + first);
        if (vectors * LANES > 32) prefetch(ahead + (int64_t)t * head_dim + first + 32);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) value[v] = f_load_half(values + (int64_t)t * head_dim + first + LANES * v);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            const vf p = f_set(row[r].score[at + t]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sum[r * vectors + v] = f_fma(value[v], p, sum[r * vectors + v]);
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < rows * vectors; i++) f_store(row[i / vectors].output + first + LANES * (i % vectors), sum[i]);
}

INLINE void value_slice(const struct span_row *row, int rows, const int vectors, const uint16_t *values,
                        const uint16_t *ahead, int head_dim, int count, int at, int first) {
    while (rows > 0) {
#define ROWS(many)                                                                                 \
    if (many <= VALUE_ROWS && rows >= many) {                                                      \
        value_block(row, many <= VALUE_ROWS ? many : 1, vectors, values, ahead, head_dim, count, at, first); \
        row += many, rows -= many;                                                                 \
        continue;                                                                                  \
    }
        ROWS(6) ROWS(4) ROWS(3) ROWS(2) ROWS(1)
#undef ROWS
    }
}

/* Turns the scores of the first `valid` positions into exp(score - maximum), the rest up to `end` into 0. */
INLINE void soften(float *score, int valid, int end, float *maximum, float *sum) {
    for (int i = valid; i < (valid + 15) / 16 * 16; i++) score[i] = -INFINITY;
    vf most = f_load(score);
    for (int i = LANES; i < valid; i += LANES) most = f_max(most, f_load(score + i));
    const float m = lanes_max(most);
    vf total[PARTS];
    for (int p = 0; p < PARTS; p++) total[p] = f_zero();
    for (int i = 0; i < valid; i += 16) {
        for (int p = 0; p < PARTS; p++) {
            f_store(score + i + LANES * p, f_exp(f_sub(f_load(score + i + LANES * p), f_set(m))));
        }
        for (int j = valid - i; j < 16; j++) score[i + j] = 0.0f;
        for (int p = 0; p < PARTS; p++) total[p] = f_add(total[p], f_load(score + i + LANES * p));
    }
    for (int i = (valid + 15) / 16 * 16; i < end; i++) score[i] = 0.0f;
    *maximum = m;
    *sum = sum16(total);
}

INLINE const uint16_t *keys_at(const struct attention_span *a, int position) {
    return (const uint16_t *)(a->page_table[position / PAGE_TOKENS] + a->page_offset);
}

INLINE const uint16_t *values_at(const struct attention_span *a, int position) {
    return keys_at(a, position) + (int64_t)PAGE_TOKENS * a->head_dim;
}

/* What a span reads as its step'th: the keys of its pages, their values, the keys of the next span. */
INLINE const uint16_t *read_after(const struct attention_span *a, int begin, int end, int step) {
    const int pages = (end + PAGE_TOKENS - 1) / PAGE_TOKENS;
    if (step < pages) return keys_at(a, begin + step * PAGE_TOKENS);
    if (step < 2 * pages) return values_at(a, begin + (step - pages) * PAGE_TOKENS);
    const int position = begin + (step - pages) * PAGE_TOKENS;
    return position < a->first_position ? keys_at(a, position) : values_at(a, begin);
}

static void attend(const struct attention_span *a, struct attention_partial *out) {
    _Alignas(64) float scores[MAX_SPAN_ROWS * SPAN_TOKENS];
    struct span_row row[MAX_SPAN_ROWS];
    const int rows = a->queries * a->heads, begin = a->span * SPAN_TOKENS;
    int end = a->first_position + a->queries - begin; /* positions of the span that the last query sees */
    if (end > SPAN_TOKENS) end = SPAN_TOKENS;
    const int pages = (end + PAGE_TOKENS - 1) / PAGE_TOKENS;
    for (int r = 0; r < rows; r++) {
        row[r].query = a->query + (r / a->heads) * a->query_stride + (int64_t)(r % a->heads) * a->head_dim;
        row[r].score = scores + (int64_t)r * SPAN_TOKENS;
        row[r].output = out->output + (int64_t)r * a->head_dim;
        memset(row[r].output, 0, (size_t)a->head_dim * sizeof(float));
    }
    for (int at = 0; at < end; at += PAGE_TOKENS) {
        const uint16_t *ahead = read_after(a, begin, end, at / PAGE_TOKENS + PAGES_AHEAD);
        score_page(row, rows, keys_at(a, begin + at), ahead, a->head_dim, at);
    }
    for (int r = 0; r < rows; r++) {
        int valid = a->first_position + r / a->heads + 1 - begin;
        if (valid > SPAN_TOKENS) valid = SPAN_TOKENS;
        if (valid > 0) {
            soften(row[r].score, valid, end, &out->maximum[r], &out->sum[r]);
        } else { /* this query does not reach the span */
            memset(row[r].score, 0, (size_t)end * sizeof(float));
            out->maximum[r] = -INFINITY;
            out->sum[r] = 0.0f;
        }
    }
    for (int at = 0; at < end; at += PAGE_TOKENS) {
        const uint16_t *values = values_at(a, begin + at);
        const uint16_t *ahead = read_after(a, begin, end, pages + at / PAGE_TOKENS + PAGES_AHEAD);
        const int count = end - at < PAGE_TOKENS ? end - at : PAGE_TOKENS;
        int d = 0;
        for (; d + VALUE_VECTORS * LANES <= a->head_dim; d += VALUE_VECTORS * LANES)
            value_slice(row, rows, VALUE_VECTORS, values, ahead, a->head_dim, count, at, d);
        for (; d < a->head_dim; d += LANES) value_slice(row, rows, 1, values, ahead, a->head_dim, count, at, d);
    }
}

INLINE float exp_of(float x) {
    float v[LANES];
    f_store(v, f_exp(f_set(x)));
    return x < -87.0f ? 0.0f : v[0];
}

static void merge(struct attention_partial *into, const struct attention_partial *from, int rows, int head_dim) {
    for (int r = 0; r < rows; r++) {
        float *o = into->output + (int64_t)r * head_dim;
        const float *p = from->output + (int64_t)r * head_dim;
        if (from->sum[r] == 0.0f) continue;
        if (into->sum[r] == 0.0f) {
            into->maximum[r] = from->maximum[r];
            into->sum[r] = from->sum[r];
            memcpy(o, p, (size_t)head_dim * sizeof(float));
            continue;
        }
        const float m = into->maximum[r] > from->maximum[r] ? into->maximum[r] : from->maximum[r];
        const float a = exp_of(into->maximum[r] - m), b = exp_of(from->maximum[r] - m);
        into->maximum[r] = m;
        into->sum[r] = into->sum[r] * a + from->sum[r] * b;
        for (int d = 0; d < head_dim; d += LANES)
            f_store(o + d, f_fma(f_load(o + d), f_set(a), f_mul(f_load(p + d), f_set(b))));
    }
}

/* Clamped to what a half can hold, NaN too: queries of a tile that do not see a position yet multiply
 * its value by 0, which must stay 0. */
INLINE vf within_halves(vf x) { return f_min(f_max(x, f_set(-65504.0f)), f_set(65504.0f)); }

static void store_key_value(const float *key, const float *value, int head_dim, int slot, uint8_t *page) {
    uint16_t *keys = (uint16_t *)page + slot;
    uint16_t *values = (uint16_t *)page + (int64_t)(PAGE_TOKENS + slot) * head_dim;
    uint16_t halves[LANES];
    for (int d = 0; d < head_dim; d += LANES) {
        f_store_half(halves, within_halves(f_load(key + d)));
        for (int i = 0; i < LANES; i++) keys[PAGE_TOKENS * (d + i)] = halves[i];
        f_store_half(values + d, within_halves(f_load(value + d)));
    }
}
