/* The forward pass of a Llama-family network (Touvron et al. 2023, arXiv 2302.13971) over a batch
 * of rows. Every thread runs forward() from top to bottom; barriers stand where one thread reads
 * what another wrote. */
#define _GNU_SOURCE
#include "compute.h"
#include "threads.h"
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#if defined(HAVE_AMX)
#include "amx.h"
#endif

/* Up to this many rows every thread normalises all of them for itself, which is quicker than a barrier. */
enum { FEW_ROWS = 4 };

/* Single rows are cut into spans while runs times key/value heads give each thread fewer pieces. */
enum { SPLIT_BELOW = 16 };

struct item { /* a piece of attention that one thread does at a time */
    int run, kv_head;
    int row, queries; /* rows [row, row + queries) of the batch */
    int span;         /* -1: all spans, result in engine.attention; else one, result in partial */
};

struct engine {
    struct model model;
    const struct compute *compute;
    struct pool *pool;
    int max_rows;
    int q_dim, kv_dim, row_dim; /* features of q, of k or v, of all three together */
    float *x;                   /* [max_rows][width], the residual stream */
    float *qkv;                 /* [max_rows][row_dim] */
    float *cosine, *sine;       /* [max_rows][rope_dim / 2] */
    float *attention;           /* [max_rows][q_dim] */
    int rank;                   /* the highest of the adapters; 0: there are none */
    float *low;                 /* [3][max_rows][rank], a . input of the adapters that read one input */
    struct activations input;   /* of q/k/v, output, gate/up and head */
    struct activations hidden;  /* of down */
    struct activations *own;    /* [threads], like input, for FEW_ROWS rows */
    struct item *item;
    int items, item_capacity;
    atomic_int *next_item;      /* [layers] */
    struct attention_partial partial; /* [single-row run][span][head]; see partial_start */
    int64_t partial_capacity;   /* in heads */
    int32_t *partial_start;     /* [max_rows] first (span, head) entry of a row, -1 if it has none */
    const struct batch *batch;
};

int oneiros_kernel_version(void) { return KERNEL_VERSION; }

int oneiros_best_instruction_path(void) {
#ifdef HAVE_AMX
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512vnni") && amx_usable(AMX_INT8)) return 3;
#endif
#ifdef HAVE_AVX512
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return 2;
#endif
#ifdef HAVE_AVX2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}

static const struct compute *compute_for(int path) {
    switch (path) {
#ifdef HAVE_AMX
    case 3: return &compute_amx;
#endif
#ifdef HAVE_AVX512
    case 2: return &compute_avx512;
#endif
#ifdef HAVE_AVX2
    case 1: return &compute_avx2;
#endif
    default: return &compute_portable;
    }
}

static void *allocate(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    if (p) memset(p, 0, bytes);
    return p;
}

static int new_activations(struct activations *a, int rows, int columns, bool values) {
    const size_t count = (size_t)rows * (size_t)columns, blocks = count / BLOCK;
    a->columns = columns;
    a->codes = allocate(count);
    a->scale = allocate(blocks * sizeof(float));
    a->scaled_sum = allocate(blocks * sizeof(float));
    a->offset = allocate(blocks * sizeof(int32_t));
    a->half_offset = allocate(blocks * sizeof(int32_t));
    a->values = values ? allocate(count * sizeof(float)) : NULL;
    return a->codes && a->scale && a->scaled_sum && a->offset && a->half_offset && (a->values || !values);
}

static void free_activations(struct activations *a) {
    free(a->codes), free(a->scale), free(a->scaled_sum), free(a->offset), free(a->half_offset), free(a->values);
}

static bool is_float(const struct matrix *w) { return w->format > FORMAT_Q8; }

static bool has_float_matrix(const struct model *m) {
    bool any = is_float(&m->head);
    for (int l = 0; l < m->layers; l++) {
        const struct layer *y = &m->layer[l];
        const struct matrix *all[] = {&y->q, &y->k, &y->v, &y->output, &y->gate, &y->up, &y->down};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) any |= is_float(all[i]);
    }
    return any;
}

static int highest_rank(const struct model *m) {
    int highest = 0;
    for (int l = 0; l < m->layers; l++) {
        const struct adapters *y = m->layer[l].adapters;
        if (!y) continue;
        const struct adapter *all[] = {&y->q, &y->k, &y->v, &y->output, &y->gate, &y->up, &y->down};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            if (all[i]->b.columns > highest) highest = all[i]->b.columns;
    }
    return highest;
}

void oneiros_engine_free(struct engine *e) {
    if (e->pool) {
        for (int i = 0; e->own && i < pool_threads(e->pool); i++) free_activations(&e->own[i]);
        pool_free(e->pool);
    }
    free_activations(&e->input), free_activations(&e->hidden);
    free(e->own), free(e->x), free(e->qkv), free(e->cosine), free(e->sine), free(e->attention), free(e->item);
    free(e->low), free(e->next_item), free(e->partial.maximum), free(e->partial.sum), free(e->partial.output), free(e->partial_start);
    free(e);
}

struct engine *oneiros_engine_new(const struct model *model, int threads, int path, int max_rows) {
    struct engine *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    e->model = *model;
    e->compute = compute_for(path);
    e->max_rows = max_rows;
    e->q_dim = model->heads * model->head_dim;
    e->kv_dim = model->kv_heads * model->head_dim;
    e->row_dim = e->q_dim + 2 * e->kv_dim;
    const int widest = e->q_dim > model->width ? e->q_dim : model->width;
    e->rank = highest_rank(model);
    const bool values = e->rank > 0 || has_float_matrix(model);
    const size_t rows = (size_t)max_rows, angle = (size_t)model->rope_dim / 2;
    e->x = allocate(rows * (size_t)model->width * sizeof(float));
    e->qkv = allocate(rows * (size_t)e->row_dim * sizeof(float));
    e->cosine = allocate(rows * angle * sizeof(float));
    e->sine = allocate(rows * angle * sizeof(float));
    e->attention = allocate(rows * (size_t)e->q_dim * sizeof(float));
    e->low = allocate(3 * rows * (size_t)e->rank * sizeof(float));
    e->next_item = allocate((size_t)model->layers * sizeof *e->next_item);
    e->partial_start = allocate(rows * sizeof *e->partial_start);
    e->own = calloc((size_t)threads, sizeof *e->own);
    e->pool = pool_new(threads);
    bool ok = e->x && e->qkv && e->cosine && e->sine && e->attention && e->low && e->next_item && e->partial_start &&
              e->own && e->pool && new_activations(&e->input, max_rows, widest, values) &&
              new_activations(&e->hidden, max_rows, model->ffn_width, values);
    for (int i = 0; ok && i < threads; i++) ok = new_activations(&e->own[i], FEW_ROWS, widest, values);
    if (ok) return e;
    oneiros_engine_free(e);
    return NULL;
}

static int64_t head_page_bytes(const struct model *m) { return (int64_t)2 * PAGE_TOKENS * m->head_dim * 2; }

int64_t oneiros_page_bytes(const struct model *m) { return head_page_bytes(m) * m->kv_heads * m->layers; }

void oneiros_embedding(const struct model *model, int token, float *out) {
    compute_portable.embed(&model->embedding, token, out);
}

/* ---- the pieces of a layer ------------------------------------------------------------------- */

static int share(int count, int thread, int threads) { return (int)((int64_t)count * thread / threads); }

static int groups(const struct matrix *w) { return (w->rows + GROUP_ROWS - 1) / GROUP_ROWS; }

struct range { int first, last; };

static struct range my_share(const struct engine *e, int count, int thread) {
    const int threads = pool_threads(e->pool);
    return (struct range){share(count, thread, threads), share(count, thread + 1, threads)};
}

/* Chooses where this thread puts the input of matrices that read it, and which rows it fills in. */
static struct activations *input_for(struct engine *e, int thread, int rows, int columns, bool codes, bool values,
                                     struct range *fill) {
    const bool few = rows <= FEW_ROWS;
    struct activations *in = few ? &e->own[thread] : &e->input;
    if (few || thread == 0) in->rows = rows, in->columns = columns, in->want_codes = codes, in->want_values = values;
    if (!few) pool_barrier(e->pool); /* the shape is set before anyone fills in rows */
    *fill = few ? (struct range){0, rows} : my_share(e, rows, thread);
    return in;
}

/* The part of a share that falls into `count` of the things, before which `before` were counted. */
static struct range part_of(struct range mine, int before, int count) {
    const int first = mine.first - before, last = mine.last - before;
    return (struct range){first > 0 ? first : 0, last < count ? last : count};
}

static void filled(struct engine *e, int rows) {
    if (rows > FEW_ROWS) pool_barrier(e->pool);
}

static struct activations *normalised(struct engine *e, int thread, const int32_t *row, int rows, const float *weight,
                                      const struct matrix *const *readers, int count, bool values) {
    bool codes = false;
    for (int i = 0; i < count; i++) *(is_float(readers[i]) ? &values : &codes) = true;
    struct range fill;
    const int width = e->model.width;
    struct activations *in = input_for(e, thread, rows, width, codes, values, &fill);
    float y[width];
    for (int r = fill.first; r < fill.last; r++) {
        const float *x = e->x + (int64_t)(row ? row[r] : r) * width;
        e->compute->rms_norm(x, weight, width, e->model.rms_epsilon, y);
        e->compute->put_row(y, r, in);
    }
    filled(e, rows);
    return in;
}

static const struct adapters *adapters_of(const struct layer *y) {
    static const struct adapters none;
    return y->adapters ? y->adapters : &none;
}

static bool any(const struct adapter *const *adapters, int count) {
    for (int i = 0; i < count; i++)
        if (adapters[i]->a) return true;
    return false;
}

/* The thin products a . in of some adapters, shared out as one list of rows; `more` becomes what
 * is added to the outputs of their matrices. */
static void low_rank(struct engine *e, int thread, const struct adapter *const *adapters, int count,
                     const struct activations *in, struct activations *low, struct addend *more) {
    int rows = 0, before = 0;
    for (int i = 0; i < count; i++) rows += adapters[i]->b.columns;
    const struct range mine = my_share(e, rows, thread);
    for (int i = 0; i < count; i++) {
        const int rank = adapters[i]->b.columns;
        const struct range part = part_of(mine, before, rank);
        float *out = e->low + (int64_t)i * e->max_rows * e->rank;
        if (part.first < part.last) e->compute->low_rank(adapters[i]->a, part.first, part.last, in, out, rank);
        low[i] = (struct activations){.rows = in->rows, .columns = rank, .want_values = true, .values = out};
        more[i] = (struct addend){rank ? &adapters[i]->b : NULL, &low[i]};
        before += rank;
    }
    if (rows) pool_barrier(e->pool);
}

/* out = w . in + what stands beside w, for some groups of rows. */
static void linear(const struct engine *e, const struct matrix *w, const struct addend *more, struct range mine,
                   const struct activations *in, float *out, int64_t stride, bool add) {
    if (mine.first >= mine.last) return;
    e->compute->linear(w, mine.first, mine.last, in, out, stride, add);
    if (more->matrix) e->compute->linear(more->matrix, mine.first, mine.last, more->in, out, stride, true);
}

/* q, k and v side by side: the groups of the three matrices are shared out as one list. */
static void project_qkv(struct engine *e, int thread, const struct layer *y) {
    const struct matrix *parts[] = {&y->q, &y->k, &y->v};
    const struct adapters *beside = adapters_of(y);
    const struct adapter *adapters[] = {&beside->q, &beside->k, &beside->v};
    const struct activations *in =
        normalised(e, thread, NULL, e->batch->rows, y->attention_norm, parts, 3, any(adapters, 3));
    struct activations low[3];
    struct addend more[3];
    low_rank(e, thread, adapters, 3, in, low, more);
    const struct range mine = my_share(e, e->row_dim / GROUP_ROWS, thread);
    int before = 0;
    for (int i = 0; i < 3; i++) {
        const int count = groups(parts[i]);
        linear(e, parts[i], &more[i], part_of(mine, before, count), in, e->qkv + GROUP_ROWS * before, e->row_dim,
               false);
        before += count;
    }
}

static void add_bias(float *x, const float *bias, int n) {
    for (int i = 0; bias && i < n; i++) x[i] += bias[i];
}

/* Rotary position embedding (Su et al. 2021, arXiv 2104.09864). */
static void rotate(const struct engine *e, float *x, int row) {
    const int half = e->model.rope_dim / 2;
    const float *c = e->cosine + (int64_t)row * half, *s = e->sine + (int64_t)row * half;
    const int stride = e->model.rope_interleaved ? 2 : 1, partner = e->model.rope_interleaved ? 1 : half;
    for (int i = 0; i < half; i++) {
        float *p = x + stride * i, a = p[0], b = p[partner];
        p[0] = a * c[i] - b * s[i];
        p[partner] = a * s[i] + b * c[i];
    }
}

static int64_t page_offset(const struct engine *e, int layer, int kv_head) {
    return ((int64_t)layer * e->model.kv_heads + kv_head) * head_page_bytes(&e->model);
}

static void finish_query(const struct engine *e, const struct layer *y, int row, int head) {
    const struct model *m = &e->model;
    float *q = e->qkv + (int64_t)row * e->row_dim + head * m->head_dim;
    add_bias(q, y->q_bias ? y->q_bias + head * m->head_dim : NULL, m->head_dim);
    if (y->q_norm) e->compute->rms_norm(q, y->q_norm, m->head_dim, m->rms_epsilon, q);
    rotate(e, q, row);
    const float factor = 1.0f / sqrtf((float)m->head_dim);
    for (int i = 0; i < m->head_dim; i++) q[i] *= factor;
}

static void finish_key_value(const struct engine *e, const struct layer *y, int row, int run, int layer, int head) {
    const struct model *m = &e->model;
    float *k = e->qkv + (int64_t)row * e->row_dim + e->q_dim + head * m->head_dim, *v = k + e->kv_dim;
    add_bias(k, y->k_bias ? y->k_bias + head * m->head_dim : NULL, m->head_dim);
    add_bias(v, y->v_bias ? y->v_bias + head * m->head_dim : NULL, m->head_dim);
    if (y->k_norm) e->compute->rms_norm(k, y->k_norm, m->head_dim, m->rms_epsilon, k);
    rotate(e, k, row);
    const int position = e->batch->positions[row];
    uint8_t *page = e->batch->page_tables[run][position / PAGE_TOKENS] + page_offset(e, layer, head);
    e->compute->store_key_value(k, v, m->head_dim, position % PAGE_TOKENS, page);
}

static void finish_qkv(struct engine *e, int thread, const struct layer *y, int layer) {
    const int heads = e->model.heads + e->model.kv_heads;
    const struct range mine = my_share(e, e->batch->rows * heads, thread);
    int run = 0;
    for (int i = mine.first; i < mine.last; i++) {
        const int row = i / heads, head = i % heads;
        while (e->batch->run_start[run + 1] <= row) run++;
        if (head < e->model.heads) finish_query(e, y, row, head);
        else finish_key_value(e, y, row, run, layer, head - e->model.heads);
    }
}

/* ---- attention ------------------------------------------------------------------------------- */

static int spans(int positions) { return (positions + SPAN_TOKENS - 1) / SPAN_TOKENS; }

static struct attention_partial partial_at(const struct engine *e, int64_t entry) {
    return (struct attention_partial){e->partial.maximum + entry, e->partial.sum + entry,
                                      e->partial.output + entry * e->model.head_dim};
}

static void normalise(float *out, const float *in, float sum, int n) {
    for (int i = 0; i < n; i++) out[i] = in[i] / sum;
}

static struct attention_span span_of(const struct engine *e, const struct item *item, int layer, int span) {
    const struct model *m = &e->model;
    const int heads = m->heads / m->kv_heads;
    return (struct attention_span){
        .query = e->qkv + (int64_t)item->row * e->row_dim + (int64_t)item->kv_head * heads * m->head_dim,
        .query_stride = e->row_dim,
        .queries = item->queries,
        .heads = heads,
        .head_dim = m->head_dim,
        .first_position = e->batch->positions[item->row],
        .span = span,
        .page_table = e->batch->page_tables[item->run],
        .page_offset = page_offset(e, layer, item->kv_head),
    };
}

static void attend_one_span(struct engine *e, const struct item *item, int layer) {
    const struct model *m = &e->model;
    const int heads = m->heads / m->kv_heads;
    struct attention_span problem = span_of(e, item, layer, item->span);
    struct attention_partial out = partial_at(
        e, e->partial_start[item->row] + (int64_t)item->span * m->heads + item->kv_head * heads);
    e->compute->attend(&problem, &out);
}

static void attend_all_spans(struct engine *e, const struct item *item, int layer) {
    const struct model *m = &e->model;
    const int heads = m->heads / m->kv_heads, rows = item->queries * heads;
    float maximum[2][MAX_SPAN_ROWS], sum[2][MAX_SPAN_ROWS];
    _Alignas(64) float output[2][MAX_SPAN_ROWS * MAX_HEAD_DIM];
    struct attention_partial total = {maximum[0], sum[0], output[0]}, one = {maximum[1], sum[1], output[1]};
    const int count = spans(e->batch->positions[item->row] + item->queries);
    memset(sum[0], 0, sizeof sum[0]);
    for (int span = 0; span < count; span++) {
        struct attention_span problem = span_of(e, item, layer, span);
        e->compute->attend(&problem, &one);
        e->compute->merge(&total, &one, rows, m->head_dim);
    }
    for (int r = 0; r < rows; r++)
        normalise(e->attention + (int64_t)(item->row + r / heads) * e->q_dim +
                      (int64_t)(item->kv_head * heads + r % heads) * m->head_dim,
                  total.output + (int64_t)r * m->head_dim, total.sum[r], m->head_dim);
}

static void attend(struct engine *e, int layer) {
    for (;;) {
        const int i = atomic_fetch_add_explicit(&e->next_item[layer], 1, memory_order_relaxed);
        if (i >= e->items) return;
        if (e->item[i].span < 0) attend_all_spans(e, &e->item[i], layer);
        else attend_one_span(e, &e->item[i], layer);
    }
}

/* The attention output of a row; merges the partial results of single-row runs into `scratch`. */
static const float *attended(struct engine *e, int row, float *scratch) {
    const struct model *m = &e->model;
    if (e->partial_start[row] < 0) return e->attention + (int64_t)row * e->q_dim;
    float maximum[m->heads], sum[m->heads];
    memset(sum, 0, sizeof sum);
    struct attention_partial total = {maximum, sum, scratch};
    const int count = spans(e->batch->positions[row] + 1);
    for (int span = 0; span < count; span++) {
        struct attention_partial one = partial_at(e, e->partial_start[row] + (int64_t)span * m->heads);
        e->compute->merge(&total, &one, m->heads, m->head_dim);
    }
    for (int h = 0; h < m->heads; h++)
        normalise(scratch + h * m->head_dim, scratch + h * m->head_dim, sum[h], m->head_dim);
    return scratch;
}

/* ---- the forward pass ------------------------------------------------------------------------ */

static struct activations *attention_output(struct engine *e, int thread, const struct matrix *reader, bool values) {
    struct range fill;
    const int rows = e->batch->rows;
    struct activations *in = input_for(e, thread, rows, e->q_dim, !is_float(reader), values || is_float(reader), &fill);
    float scratch[e->q_dim];
    for (int r = fill.first; r < fill.last; r++) e->compute->put_row(attended(e, r, scratch), r, in);
    filled(e, rows);
    return in;
}

/* Back into the residual stream. */
static void add_linear(struct engine *e, int thread, const struct matrix *w, const struct adapter *adapter,
                       const struct activations *in) {
    struct activations low;
    struct addend more;
    low_rank(e, thread, &adapter, 1, in, &low, &more);
    linear(e, w, &more, my_share(e, groups(w), thread), in, e->x, e->model.width, true);
}

static void feed_forward(struct engine *e, int thread, const struct layer *y) {
    const int rows = e->batch->rows;
    const struct matrix *gated[] = {&y->gate, &y->up};
    const struct adapters *beside = adapters_of(y);
    const struct adapter *adapters[] = {&beside->gate, &beside->up};
    const struct activations *in = normalised(e, thread, NULL, rows, y->ffn_norm, gated, 2, any(adapters, 2));
    struct activations low[2];
    struct addend more[2];
    low_rank(e, thread, adapters, 2, in, low, more);
    const struct range mine = my_share(e, e->model.ffn_width / BLOCK, thread);
    struct activations hidden = e->hidden;
    hidden.rows = rows;
    hidden.want_codes = !is_float(&y->down);
    hidden.want_values = is_float(&y->down) || beside->down.a;
    e->compute->gate_up(&y->gate, &y->up, &more[0], &more[1], mine.first, mine.last, in, &hidden);
    pool_barrier(e->pool);
    add_linear(e, thread, &y->down, &beside->down, &hidden);
}

static void forward_layer(struct engine *e, int thread, int layer) {
    const struct layer *y = &e->model.layer[layer];
    const struct adapter *beside = &adapters_of(y)->output;
    project_qkv(e, thread, y);
    pool_barrier(e->pool);
    finish_qkv(e, thread, y, layer);
    pool_barrier(e->pool);
    attend(e, layer);
    pool_barrier(e->pool);
    add_linear(e, thread, &y->output, beside, attention_output(e, thread, &y->output, beside->a));
    pool_barrier(e->pool);
    feed_forward(e, thread, y);
    pool_barrier(e->pool);
}

/* Sine and cosine by Cody-Waite reduction and Taylor series in double precision: the C library's
 * may differ from one machine to the next, and logits must not. */
static void sine_cosine(double angle, double *sine, double *cosine) {
    const double quarter = floor(angle * 0.63661977236758134308 + 0.5);
    double r = angle - quarter * 1.57079632673412561417;
    r -= quarter * 6.07710050630396597660e-11;
    r -= quarter * 2.02226624879595063154e-21;
    const double r2 = r * r;
    double s = -1.0 / 1307674368000.0, c = 1.0 / 20922789888000.0;
    for (int k = 13; k >= 1; k -= 2) {
        static const double factorial[] = {1, 1, 2, 6, 24, 120, 720, 5040, 40320, 362880, 3628800, 39916800,
                                           479001600, 6227020800.0, 87178291200.0};
        const double sign = k % 4 == 1 ? 1.0 : -1.0;
        s = s * r2 + sign / factorial[k];
        c = c * r2 - sign / factorial[k + 1];
    }
    s *= r;
    c = c * r2 + 1.0;
    switch ((long long)quarter & 3) {
    case 0: *sine = s, *cosine = c; return;
    case 1: *sine = c, *cosine = -s; return;
    case 2: *sine = -s, *cosine = -c; return;
    default: *sine = -c, *cosine = s; return;
    }
}

static void start_row(struct engine *e, int row) {
    const struct model *m = &e->model;
    const int half = m->rope_dim / 2;
    e->compute->embed(&m->embedding, e->batch->tokens[row], e->x + (int64_t)row * m->width);
    for (int i = 0; i < half; i++) {
        double s, c;
        sine_cosine(e->batch->positions[row] * m->rope_frequencies[i], &s, &c);
        e->cosine[(int64_t)row * half + i] = (float)c;
        e->sine[(int64_t)row * half + i] = (float)s;
    }
}

static void forward(void *argument, int thread) {
    struct engine *e = argument;
    const struct batch *b = e->batch;
    const struct range rows = my_share(e, b->rows, thread);
    for (int r = rows.first; r < rows.last; r++) start_row(e, r);
    pool_barrier(e->pool);
    for (int layer = 0; layer < e->model.layers; layer++) forward_layer(e, thread, layer);
    if (b->outputs == 0) return;
    const struct matrix *head = &e->model.head;
    const struct activations *in = normalised(e, thread, b->output_rows, b->outputs, e->model.final_norm, &head, 1, false);
    const struct range mine = my_share(e, groups(head), thread);
    e->compute->linear(head, mine.first, mine.last, in, b->logits, (int64_t)groups(head) * GROUP_ROWS, false);
}

/* ---- a step ---------------------------------------------------------------------------------- */

static bool add_item(struct engine *e, struct item item) {
    if (e->items == e->item_capacity) {
        const int capacity = e->item_capacity ? 2 * e->item_capacity : 256;
        struct item *grown = realloc(e->item, (size_t)capacity * sizeof *grown);
        if (!grown) return false;
        e->item = grown, e->item_capacity = capacity;
    }
    e->item[e->items++] = item;
    return true;
}

static bool reserve_partial(struct engine *e, int64_t entries) {
    if (entries <= e->partial_capacity) return true;
    free(e->partial.maximum), free(e->partial.sum), free(e->partial.output);
    const size_t n = (size_t)(entries + entries / 2);
    e->partial.maximum = allocate(n * sizeof(float));
    e->partial.sum = allocate(n * sizeof(float));
    e->partial.output = allocate(n * (size_t)e->model.head_dim * sizeof(float));
    const bool ok = e->partial.maximum && e->partial.sum && e->partial.output;
    e->partial_capacity = ok ? (int64_t)n : 0;
    return ok;
}

/* A few single-row runs (decoding) are cut into spans so that all threads help with a long context;
 * longer runs into tiles of queries, the last and longest first. False if memory runs out. */
static bool plan_attention(struct engine *e) {
    const struct batch *b = e->batch;
    const struct model *m = &e->model;
    const int heads = m->heads / m->kv_heads;
    const int fit = MAX_SPAN_ROWS / heads, tile = fit < MAX_SPAN_QUERIES ? fit : MAX_SPAN_QUERIES;
    const bool split = b->runs * m->kv_heads < SPLIT_BELOW * pool_threads(e->pool);
    int64_t entries = 0;
    bool ok = true;
    e->items = 0;
    for (int run = 0; run < b->runs; run++) {
        const int first = b->run_start[run], rows = b->run_start[run + 1] - first;
        for (int r = 0; r < rows; r++) e->partial_start[first + r] = -1;
        if (rows == 1 && split) {
            const int count = spans(b->positions[first] + 1);
            e->partial_start[first] = (int32_t)entries;
            entries += (int64_t)count * m->heads;
            for (int span = 0; span < count; span++)
                for (int h = 0; h < m->kv_heads; h++) ok &= add_item(e, (struct item){run, h, first, 1, span});
            continue;
        }
        for (int r = (rows - 1) / tile * tile; r >= 0; r -= tile)
            for (int h = 0; h < m->kv_heads; h++)
                ok &= add_item(e, (struct item){run, h, first + r, rows - r < tile ? rows - r : tile, -1});
    }
    for (int layer = 0; layer < m->layers; layer++)
        atomic_store_explicit(&e->next_item[layer], 0, memory_order_relaxed);
    return ok && reserve_partial(e, entries);
}

int oneiros_step(struct engine *engine, const struct batch *batch) {
    engine->batch = batch;
    if (!plan_attention(engine)) return -1;
    pool_run(engine->pool, forward, engine);
    return 0;
}
