/* run.c: a language model is two files, its parameters and the code that runs them. This is the code.
 *
 *     gcc -O3 -march=native run.c -o run -lm        (add -fopenmp to use every core)
 *     ./run model.bin "Why is the sky blue?"        answers as the assistant
 *     ./run model.bin -c "Once upon a time"         continues the text
 *
 * model.bin is written by `oneiros export MODEL DIR`; oneiros/model/export.py documents its layout.
 * The network is a Llama (Touvron et al. 2023) or a Qwen2/Qwen3: a decoder-only transformer with RMS
 * normalisation, rotary positions, grouped-query attention and a gated feed-forward layer.
 *
 * Numbers: like Oneiros' own engine, this rounds the input of a product with a quantised matrix to 8 bits
 * per block of 32, and cached keys and values to FP16. Such rounding makes one bit of difference grow until
 * another word is chosen, so every sum is taken in the engine's order: both write the same text, bit for
 * bit the same logits. With -f nothing is rounded, and sums take the order that is quickest here.
 *
 * Limits: one prompt, greedy decoding, little-endian machines; text is taken as it is, where some chat
 * templates trim it or print today's date; the time for a SentencePiece prompt grows with its square. */
#define _POSIX_C_SOURCE 200809L
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF            /* a * b + c rounds twice, as written, and fmaf(a, b, c) once */
#else
#pragma GCC optimize("fp-contract=off")
#endif
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifdef _OPENMP
#define PARALLEL _Pragma("omp parallel for schedule(static)")
#else
#define PARALLEL
#endif

/* ---- the parameters -------------------------------------------------------------------------- */

typedef struct {                /* the first bytes of model.bin */
    char magic[8];              /* "ONEIROS" and a zero */
    int32_t version;
    int32_t layers;
    int32_t width;              /* features of the residual stream */
    int32_t heads;              /* query heads */
    int32_t kv_heads;           /* key/value heads; each serves heads / kv_heads query heads */
    int32_t head_dim;           /* features of one head */
    int32_t ffn_width;          /* features inside the feed-forward layer */
    int32_t vocabulary;
    int32_t context;            /* positions the model was trained for */
    int32_t rope_interleaved;   /* rotated pairs are (2i, 2i + 1), else (i, i + head_dim / 2) */
    float rms_epsilon;
    int32_t splitter;           /* how text is cut before merging: see piece_end */
    int32_t characters;         /* merging starts from characters (SentencePiece), else from bytes */
    int32_t space_prefix;       /* a space is put before: 0 no text, 1 one that opens the input, 2 all */
    int32_t whole_words;        /* a piece that is in the vocabulary needs no merging (Llama 3) */
    int32_t bos;                /* token that starts every text, -1: none */
    int32_t prefix, suffix;     /* tokens of a chat before and after the text that holds what the user says */
    int32_t before, after;      /* bytes of that text before and after what the user says */
    int32_t stops;              /* tokens that end a reply */
    int32_t ranges, merges;     /* entries of the two tables below */
    int32_t pieces;             /* vocabulary that text may become (the rest is added vocabulary) */
} Header;

enum { F32 = 0, F16 = 1, BF16 = 30, Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q4_K = 12, Q5_K = 13, Q6_K = 14 };

typedef struct {
    int type, rows, columns;    /* rows = 0: the model has no such matrix */
    const uint8_t *data;        /* (rows, columns), each row a sequence of blocks of this type */
} Matrix;

typedef struct {
    Matrix attention_norm;              /* (1, width) */
    Matrix query, key, value;           /* (heads * head_dim, width), 2 x (kv_heads * head_dim, width) */
    Matrix query_bias, key_bias, value_bias;    /* one row each; Qwen2 only */
    Matrix query_norm, key_norm;        /* (1, head_dim); Qwen3 only */
    Matrix attention_output;            /* (width, heads * head_dim) */
    Matrix ffn_norm;                    /* (1, width) */
    Matrix gate, up;                    /* 2 x (ffn_width, width) */
    Matrix down;                        /* (width, ffn_width) */
} Layer;

typedef struct {
    uint32_t first, last;       /* code points */
    uint32_t class;             /* LETTER, NUMBER or SPACE */
} Range;

typedef struct {
    int32_t left, right;        /* two neighbouring tokens ... */
    int32_t rank;               /* ... merge before all pairs of a higher rank ... */
    int32_t result;             /* ... into this one */
} Merge;

typedef struct {
    const int32_t *bytes;       /* (256) the token of each byte, -1: none */
    const Range *ranges;        /* sorted by code point */
    const Merge *merges;        /* sorted by (left, right) */
    const int32_t *sorted;      /* (pieces) tokens in the order of their bytes */
    const uint32_t *offsets;    /* (vocabulary + 1) token i is text[offsets[i] .. offsets[i + 1]) */
    const char *text;
} Vocabulary;

typedef struct {
    Header h;
    const float *frequencies;   /* (head_dim / 2) radians per position: base^(-2i / head_dim), scaled */
    const int32_t *prefix, *suffix, *stops;
    const char *before, *after;
    Vocabulary words;
    Matrix embedding;           /* (vocabulary, width) */
    Matrix output_norm;         /* (1, width) */
    Matrix output;              /* (vocabulary, width); the embedding again where the model ties them */
    Layer *layer;               /* (layers) */
} Model;

enum { BATCH = 64 };            /* tokens that pass through the network together */

typedef struct {
    bool exact;                 /* -f: round neither activations nor the cache */
    int capacity;               /* positions in the cache */
    float *keys, *values;       /* (layers, capacity, kv_heads, head_dim) */
    float *x, *norm, *delta;    /* (BATCH, width) the residual stream, normalised, what is added to it */
    float *q, *k, *v;           /* (BATCH, heads, head_dim) and 2 x (BATCH, kv_heads, head_dim) */
    float *mixed;               /* (BATCH, heads, head_dim) values, averaged by attention */
    float *gate, *up;           /* (BATCH, ffn_width) */
    int8_t *codes;              /* (BATCH, most columns of a matrix) the input of a product, in 8 bits */
    float *scale, *sum;         /* (BATCH, blocks of 32) what a code stands for, and the sum of each block */
    float *logits;              /* (BATCH, vocabulary) */
} State;

static _Noreturn void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("run: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory) die("not enough memory for %zu x %zu bytes", count, size);
    return memory;
}

/* ---- opening the parameter file -------------------------------------------------------------- */

typedef struct { const uint8_t *start; size_t size, at; } File;

static const void *take(File *f, size_t count, size_t size) {
    if (count > (f->size - f->at) / size) die("the parameter file is truncated: export it again");
    const void *taken = f->start + f->at;
    f->at += count * size;
    return taken;
}

static const struct { int weights, bytes; } block_of[] = {
    [F32] = {1, 4}, [F16] = {1, 2}, [BF16] = {1, 2}, [Q8_0] = {32, 34}, [Q4_0] = {32, 18}, [Q4_1] = {32, 20},
    [Q5_0] = {32, 22}, [Q5_1] = {32, 24}, [Q4_K] = {256, 144}, [Q5_K] = {256, 176}, [Q6_K] = {256, 210},
};

static size_t row_bytes(const Matrix *m) {
    return (size_t)m->columns / block_of[m->type].weights * block_of[m->type].bytes;
}

static Matrix take_matrix(File *f) {
    const int32_t *shape = take(f, 4, sizeof *shape);       /* type, rows, columns, zero */
    const uint64_t *offset = take(f, 1, sizeof *offset);    /* from the start of the file */
    Matrix m = {shape[0], shape[1], shape[2], f->start + *offset};
    if (m.type < 0 || m.type > BF16 || !block_of[m.type].weights) die("unknown matrix type %d", m.type);
    if (*offset > f->size || m.rows * row_bytes(&m) > f->size - *offset)
        die("the parameter file is truncated: export it again");
    return m;
}

static Model open_model(const char *path) {
    int descriptor = open(path, O_RDONLY);
    struct stat status;
    if (descriptor < 0 || fstat(descriptor, &status) < 0) die("%s: %s", path, strerror(errno));
    File f = {.size = (size_t)status.st_size};
    f.start = mmap(NULL, f.size ? f.size : 1, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (f.start == MAP_FAILED) die("%s: %s", path, strerror(errno));
    close(descriptor);

    Model m;
    memcpy(&m.h, take(&f, 1, sizeof m.h), sizeof m.h);
    if (memcmp(m.h.magic, "ONEIROS", 8) || m.h.version != 1)
        die("%s: not written by this version of oneiros export", path);
    m.frequencies = take(&f, m.h.head_dim / 2, sizeof(float));
    m.prefix = take(&f, m.h.prefix, sizeof(int32_t));
    m.suffix = take(&f, m.h.suffix, sizeof(int32_t));
    m.stops = take(&f, m.h.stops, sizeof(int32_t));
    m.words.bytes = take(&f, 256, sizeof(int32_t));
    m.words.ranges = take(&f, m.h.ranges, sizeof(Range));
    m.words.merges = take(&f, m.h.merges, sizeof(Merge));
    m.words.sorted = take(&f, m.h.pieces, sizeof(int32_t));
    m.words.offsets = take(&f, m.h.vocabulary + 1, sizeof(uint32_t));
    m.words.text = take(&f, m.words.offsets[m.h.vocabulary], 1);
    m.before = take(&f, m.h.before, 1);
    m.after = take(&f, m.h.after, 1);
    take(&f, -f.at % 8, 1);
    m.embedding = take_matrix(&f);
    m.output_norm = take_matrix(&f);
    m.output = take_matrix(&f);
    if (!m.output.rows) m.output = m.embedding;
    m.layer = allocate(m.h.layers, sizeof(Layer));
    Matrix *end = (Matrix *)(m.layer + m.h.layers);     /* a Layer is its matrices, in the file's order */
    for (Matrix *next = (Matrix *)m.layer; next < end; next++) *next = take_matrix(&f);
    return m;
}

static float *floats(size_t rows, size_t columns) { return allocate(rows * columns, sizeof(float)); }

static State new_state(const Model *m, int capacity, bool exact) {
    const Header *h = &m->h;
    size_t heads = (size_t)h->heads * h->head_dim, kv_heads = (size_t)h->kv_heads * h->head_dim;
    size_t widest = heads > (size_t)h->ffn_width ? heads : (size_t)h->ffn_width;
    if (widest < (size_t)h->width) widest = h->width;
    return (State){
        .exact = exact, .capacity = capacity,
        .keys = floats((size_t)h->layers * capacity, kv_heads),
        .values = floats((size_t)h->layers * capacity, kv_heads),
        .x = floats(BATCH, h->width), .norm = floats(BATCH, h->width), .delta = floats(BATCH, h->width),
        .q = floats(BATCH, heads), .k = floats(BATCH, kv_heads), .v = floats(BATCH, kv_heads),
        .mixed = floats(BATCH, heads), .gate = floats(BATCH, h->ffn_width), .up = floats(BATCH, h->ffn_width),
        .codes = allocate(BATCH, widest), .scale = floats(BATCH, widest / 32), .sum = floats(BATCH, widest / 32),
        .logits = floats(BATCH, h->vocabulary),
    };
}

/* ---- numbers: how weights are stored, how activations are rounded ----------------------------- */

static float float_of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static float half(const uint8_t *p) {   /* FP16: 1 sign, 5 exponent and 10 fraction bits */
    uint32_t bits = p[0] | p[1] << 8, sign = (bits & 0x8000u) << 16, rest = bits & 0x7fffu;
    if (rest >= 0x7c00) return float_of_bits(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
    if (rest < 0x0400) return (sign ? -1.0f : 1.0f) * (float)rest * 0x1p-24f;
    return float_of_bits(sign | ((rest << 13) + 0x38000000u));
}

static float round_to_half(float x) {   /* to nearest, ties to even */
    if (fabsf(x) < 0x1p-14f) return copysignf((fabsf(x) + 0.5f) - 0.5f, x);     /* steps of 2^-24 */
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits += 0xfff + (bits >> 13 & 1);
    return float_of_bits(bits & ~0x1fffu);
}

typedef struct {                /* 32 weights: scale * code + minimum */
    int8_t codes[32];
    float scale[2], minimum;    /* a scale for each half */
} Block;

/* The 6-bit scale (which = 0) or minimum (which = 1) of sub-block j of a Q4_K or Q5_K block. */
static int scale6(const uint8_t *packed, int j, int which) {
    if (j < 4) return packed[j + 4 * which] & 63;
    return (packed[j + 4] >> 4 * which & 15) | packed[j - 4 + 4 * which] >> 6 << 4;
}

/* Q8_0: scale, 32 signed bytes. Q4 and Q5: scale, minimum (_1), 32 fifth bits (Q5), 32 nibbles, low ones first. */
static void read_block(Block *restrict block, int type, const uint8_t *restrict p) {
    int8_t *restrict codes = block->codes;
    bool five = type == Q5_0 || type == Q5_1, has_minimum = type == Q4_1 || type == Q5_1;
    int zero = has_minimum ? 0 : five ? 16 : 8;
    uint32_t fifth = 0;
    block->scale[0] = block->scale[1] = half(p), p += 2;
    block->minimum = has_minimum ? half(p) : 0, p += has_minimum ? 2 : 0;
    if (type == Q8_0) {
        memcpy(codes, p, 32);
        return;
    }
    if (five) memcpy(&fifth, p, 4), p += 4;
    for (int i = 0; i < 16; i += 8) {   /* sixteen nibbles at a time */
        uint64_t both, low, high;
        memcpy(&both, p + i, 8);
        low = both & 0x0f0f0f0f0f0f0f0f, high = both >> 4 & 0x0f0f0f0f0f0f0f0f;
        memcpy(codes + i, &low, 8);
        memcpy(codes + 16 + i, &high, 8);
    }
    for (int i = 0; zero && i < 32; i++) codes[i] -= zero;
    for (int i = 0; five && i < 32; i++) codes[i] += fifth >> i << 4 & 16;
}

/* Part j of the 8 in a block of 256 weights. Q6_K: nibbles, bit pairs above them, 16 scales, their scale.
 * Q4_K, Q5_K: the scales of the 8 scales and minima, these, fifth bits (Q5_K), nibbles. */
static void read_part(Block *restrict block, int type, const uint8_t *restrict p, int j, bool exact) {
    int8_t *restrict codes = block->codes;
    if (type == Q6_K) {
        const uint8_t *low = p + j / 4 * 64 + j % 2 * 32, *high = p + 128 + j / 4 * 32;
        int shift = j / 2 % 2 * 4, high_shift = j % 4 * 2;
        for (int i = 0; i < 32; i++) codes[i] = ((low[i] >> shift & 15) | (high[i] >> high_shift & 3) << 4) - 32;
        for (int i = 0; i < 2; i++) block->scale[i] = half(p + 208) * (int8_t)p[192 + 2 * j + i];
        block->minimum = 0;
    } else {
        const uint8_t *low = p + (type == Q4_K ? 16 : 48) + j / 2 * 32;
        for (int i = 0; i < 32; i++) codes[i] = low[i] >> j % 2 * 4 & 15;
        for (int i = 0; type == Q5_K && i < 32; i++) codes[i] |= (p[16 + i] >> j & 1) << 4;
        block->scale[0] = block->scale[1] = half(p) * scale6(p + 4, j, 0);
        block->minimum = -half(p + 2) * scale6(p + 4, j, 1);
    }
    if (exact) return;                  /* the engine keeps these products as FP16 */
    for (int i = 0; i < 2; i++) block->scale[i] = round_to_half(block->scale[i]);
    block->minimum = round_to_half(block->minimum);
}

static void read_blocks(Block *blocks, const Matrix *m, int row, bool exact) {
    int bytes = block_of[m->type].bytes, parts = block_of[m->type].weights / 32;
    const uint8_t *p = m->data + row * row_bytes(m);
    for (int b = 0; b < m->columns / 32; b++) {
        if (parts == 1) read_block(blocks + b, m->type, p + (size_t)b * bytes);
        else read_part(blocks + b, m->type, p + (size_t)(b / 8) * bytes, b % 8, exact);
    }
}

static bool is_quantised(const Matrix *m) { return block_of[m->type].weights > 1; }

static void read_row(float *w, const Matrix *m, int row, bool exact) {
    const uint8_t *p = m->data + row * row_bytes(m);
    if (is_quantised(m)) {
        Block blocks[m->columns / 32];
        read_blocks(blocks, m, row, exact);
        for (Block *b = blocks; b < blocks + m->columns / 32; b++, w += 32)
            for (int i = 0; i < 32; i++) w[i] = b->codes[i] * b->scale[i / 16] + b->minimum;
    } else if (m->type == F32) {
        memcpy(w, p, m->columns * sizeof *w);
    } else {
        for (int i = 0; i < m->columns; i++)
            w[i] = m->type == F16 ? half(p + 2 * i) : float_of_bits((uint32_t)(p[2 * i] | p[2 * i + 1] << 8) << 16);
    }
}

/* Rounds each block of 32 activations to integers up to 127 times a scale. */
static void quantise(State *s, const float *x, size_t blocks) {
    for (size_t b = 0; b < blocks; b++, x += 32) {
        float largest = 0;
        int sum = 0;
        for (int i = 0; i < 32; i++) largest = fmaxf(largest, fabsf(x[i]));
        float inverse = largest > 0 ? 127 / largest : 0;
        for (int i = 0; i < 32; i++) sum += s->codes[b * 32 + i] = (int8_t)nearbyintf(x[i] * inverse);
        s->scale[b] = largest / 127;
        s->sum[b] = s->scale[b] * (float)sum;
    }
}

/* ---- the network ------------------------------------------------------------------------------ */

enum { LANES = 16 };                    /* sums that are kept side by side, which compilers turn into vectors */

static float sum_of(float lanes[LANES]) {
    for (int step = LANES / 2; step; step /= 2)
        for (int i = 0; i < step; i++) lanes[i] += lanes[i + step];
    return lanes[0];
}

static float dot(const float *a, const float *b, int n) {
    float lanes[LANES] = {0};
    for (int i = 0; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lanes[j] += a[i + j] * b[i + j];
    for (int i = n / LANES * LANES; i < n; i++) lanes[0] += a[i] * b[i];
    return sum_of(lanes);
}

static float dot_in_order(const float *a, const float *b, int n) {
    float sum = 0;
    for (int i = 0; i < n; i++) sum = fmaf(a[i], b[i], sum);
    return sum;
}

static inline int dot_codes(const int8_t *a, const int8_t *b, int n) {
    int sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* A row of weights times a token's codes; `scale` and `sums` are those of the token's blocks. */
static float dot_blocks(const Block *w, const int8_t *x, const float *scale, const float *sums, int blocks, int type) {
    float sum = 0;
    for (int b = 0; b < blocks; b++, w++, x += 32) {
        if (type == Q6_K) {
            sum = fmaf((float)dot_codes(w->codes, x, 16), w->scale[0] * scale[b], sum);
            sum = fmaf((float)dot_codes(w->codes + 16, x + 16, 16), w->scale[1] * scale[b], sum);
        } else {
            sum = fmaf((float)dot_codes(w->codes, x, 32), w->scale[0] * scale[b], sum);
            sum = fmaf(w->minimum, sums[b], sum);
        }
    }
    return sum;
}

/* y = x w^T: x is (count, columns of w), y is (count, rows of w). Each row is unpacked once. */
static void multiply(State *s, float *y, const float *x, const Matrix *w, int count) {
    int columns = w->columns, blocks = columns / 32;
    bool integers = is_quantised(w) && !s->exact;
    if (integers) quantise(s, x, (size_t)count * blocks);
    PARALLEL
    for (int row = 0; row < w->rows; row++) {
        if (integers) {
            Block unpacked[blocks];
            read_blocks(unpacked, w, row, false);
            for (size_t t = 0; t < (size_t)count; t++)
                y[t * w->rows + row] = dot_blocks(unpacked, s->codes + t * columns, s->scale + t * blocks,
                                                  s->sum + t * blocks, blocks, w->type);
        } else {
            float weights[columns];
            read_row(weights, w, row, true);
            for (size_t t = 0; t < (size_t)count; t++)
                y[t * w->rows + row] = (s->exact ? dot : dot_in_order)(weights, x + t * columns, columns);
        }
    }
}

/* y = x / sqrt(mean(x^2) + epsilon) * gain, for each of `count` rows (Zhang & Sennrich 2019). */
static void rms_norm(float *y, const float *x, const Matrix *gain, int count, float epsilon) {
    int n = gain->columns;
    float gains[n];
    read_row(gains, gain, 0, true);
    for (int t = 0; t < count; t++, x += n, y += n) {
        float squares[LANES] = {0};
        for (int i = 0; i < n; i++) squares[i % LANES] = fmaf(x[i], x[i], squares[i % LANES]);
        float scale = 1.0f / sqrtf(sum_of(squares) / (float)n + epsilon);
        for (int i = 0; i < n; i++) y[i] = x[i] * scale * gains[i];
    }
}

static void add_bias(float *y, const Matrix *bias, int count) {
    if (!bias->rows) return;
    float values[bias->columns];
    read_row(values, bias, 0, true);
    for (int t = 0; t < count; t++)
        for (int i = 0; i < bias->columns; i++) *y++ += values[i];
}

/* Rotates each pair of a head's features by position * frequency (Su et al. 2021). x is (count, heads, head_dim). */
static void rotate(const Model *m, float *x, int heads, int position, int count) {
    int pairs = m->h.head_dim / 2;
    int stride = m->h.rope_interleaved ? 2 : 1, partner = m->h.rope_interleaved ? 1 : pairs;
    for (int t = 0; t < count; t++) {
        float cosine[pairs], sine[pairs];
        for (int i = 0; i < pairs; i++) {
            cosine[i] = (float)cos((double)(position + t) * m->frequencies[i]);
            sine[i] = (float)sin((double)(position + t) * m->frequencies[i]);
        }
        for (int head = 0; head < heads; head++, x += m->h.head_dim)
            for (int i = 0; i < pairs; i++) {
                float *a = x + stride * i, *b = a + partner, a0 = *a, b0 = *b;
                *a = a0 * cosine[i] - b0 * sine[i];
                *b = a0 * sine[i] + b0 * cosine[i];
            }
    }
}

/* e^x as the engine computes it: 2^n times the Taylor series of the rest; e^-87 below that. */
static float exponential(float x) {
    x = fmaxf(x, -87);
    float n = nearbyintf(x * 1.44269504f), sum = 1.0f / 5040;
    float rest = fmaf(n, -1.42860677e-6f, fmaf(n, -0.693145752f, x));   /* x - n ln 2, in two steps */
    static const float terms[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1, 1};
    for (int i = 0; i < 7; i++) sum = fmaf(sum, rest, terms[i]);
    return sum * float_of_bits((uint32_t)(127 + (int)n) << 23);
}

/* mixed = softmax(q k^T / sqrt(head_dim)) v over all positions up to each token's own, in spans of positions:
 * the results of two spans are put together by their largest scores and sums (Milakov & Gimelshein 2018). */
static void attend(const Model *m, State *s, const float *keys, const float *values, int position, int count) {
    enum { SPAN = 256 };
    const Header *h = &m->h;
    int dim = h->head_dim, stride = h->kv_heads * dim, group = h->heads / h->kv_heads;
    PARALLEL
    for (int job = 0; job < count * h->heads; job++) {
        int visible = position + job / h->heads + 1, offset = job % h->heads / group * dim;
        float query[dim], *mixed = s->mixed + (size_t)job * dim, largest = -INFINITY, total = 0;
        for (int j = 0; j < dim; j++) query[j] = s->q[(size_t)job * dim + j] * (1.0f / sqrtf((float)dim)), mixed[j] = 0;
        for (int first = 0; first < visible; first += SPAN) {
            const float *key = keys + (size_t)first * stride + offset, *value = values + (size_t)first * stride + offset;
            int n = visible - first < SPAN ? visible - first : SPAN;
            float score[SPAN], sums[LANES] = {0}, most = -INFINITY, part[dim];
            for (int i = 0; i < n; i++) {
                score[i] = dot_in_order(key + (size_t)i * stride, query, dim);
                most = fmaxf(most, score[i]);
            }
            for (int i = 0; i < n; i++) sums[i % LANES] += score[i] = exponential(score[i] - most);
            memset(part, 0, sizeof part);
            for (int i = 0; i < n; i++)
                for (int j = 0; j < dim; j++) part[j] = fmaf(value[(size_t)i * stride + j], score[i], part[j]);
            float both = fmaxf(largest, most), before = exponential(largest - both), now = exponential(most - both);
            largest = both;
            total = total * before + sum_of(sums) * now;
            for (int j = 0; j < dim; j++) mixed[j] = fmaf(mixed[j], before, part[j] * now);
        }
        for (int j = 0; j < dim; j++) mixed[j] /= total;
    }
}

static void remember(const State *s, float *cache, const float *x, size_t count) {
    for (size_t i = 0; i < count; i++) cache[i] = s->exact ? x[i] : round_to_half(fminf(fmaxf(x[i], -65504.0f), 65504.0f));
}

static void add(float *x, const float *delta, size_t count) {
    for (size_t i = 0; i < count; i++) x[i] += delta[i];
}

/* The forward pass of `count` tokens (at most BATCH) that stand at `position` and after it.
 * Returns the logits of all of them, (count, vocabulary), or with `last` of the last one alone. */
static const float *forward(const Model *m, State *s, const int *tokens, int count, int position, bool last) {
    const Header *h = &m->h;
    int width = h->width, kv_width = h->kv_heads * h->head_dim;
    for (int t = 0; t < count; t++) read_row(s->x + (size_t)t * width, &m->embedding, tokens[t], s->exact);

    for (int layer = 0; layer < h->layers; layer++) {
        const Layer *l = m->layer + layer;
        float *keys = s->keys + (size_t)layer * s->capacity * kv_width;
        float *values = s->values + (size_t)layer * s->capacity * kv_width;

        rms_norm(s->norm, s->x, &l->attention_norm, count, h->rms_epsilon);
        multiply(s, s->q, s->norm, &l->query, count);
        multiply(s, s->k, s->norm, &l->key, count);
        multiply(s, s->v, s->norm, &l->value, count);
        add_bias(s->q, &l->query_bias, count);
        add_bias(s->k, &l->key_bias, count);
        add_bias(s->v, &l->value_bias, count);
        if (l->query_norm.rows) rms_norm(s->q, s->q, &l->query_norm, count * h->heads, h->rms_epsilon);
        if (l->key_norm.rows) rms_norm(s->k, s->k, &l->key_norm, count * h->kv_heads, h->rms_epsilon);
        rotate(m, s->q, h->heads, position, count);
        rotate(m, s->k, h->kv_heads, position, count);
        remember(s, keys + (size_t)position * kv_width, s->k, (size_t)count * kv_width);
        remember(s, values + (size_t)position * kv_width, s->v, (size_t)count * kv_width);
        attend(m, s, keys, values, position, count);
        multiply(s, s->delta, s->mixed, &l->attention_output, count);
        add(s->x, s->delta, (size_t)count * width);

        rms_norm(s->norm, s->x, &l->ffn_norm, count, h->rms_epsilon);
        multiply(s, s->gate, s->norm, &l->gate, count);
        multiply(s, s->up, s->norm, &l->up, count);
        for (size_t i = 0; i < (size_t)count * h->ffn_width; i++)       /* SwiGLU (Shazeer 2020) */
            s->gate[i] = s->gate[i] / (1 + exponential(-fmaxf(s->gate[i], -88))) * s->up[i];
        multiply(s, s->delta, s->gate, &l->down, count);
        add(s->x, s->delta, (size_t)count * width);
    }

    int first = last ? count - 1 : 0;
    rms_norm(s->norm, s->x + (size_t)first * width, &m->output_norm, count - first, h->rms_epsilon);
    multiply(s, s->logits, s->norm, &m->output, count - first);
    return s->logits;
}

/* ---- text to tokens --------------------------------------------------------------------------- */

enum { OTHER = 0, LETTER = 1, NUMBER = 2, SPACE = 3 };
enum { WHOLE = 0, GPT2 = 1, SMOLLM = 2, LLAMA3 = 3, QWEN2 = 4 };    /* Header.splitter */

typedef struct {
    int count;                  /* characters; a byte that is not UTF-8 counts as one */
    int *start;                 /* (count + 1) where each begins in the text */
    uint32_t *code;             /* (count + 1) code points, then 0 */
    uint8_t *class;             /* (count + 1) OTHER, LETTER, NUMBER or SPACE; the last is OTHER */
} Characters;

static int compare_range(const void *code, const void *range) {
    uint32_t c = *(const uint32_t *)code;
    const Range *r = range;
    return c < r->first ? -1 : c > r->last;
}

static int decode_character(const uint8_t *s, int left, uint32_t *code) {
    int length = s[0] < 0x80 ? 1 : s[0] >> 5 == 6 ? 2 : s[0] >> 4 == 14 ? 3 : s[0] >> 3 == 30 ? 4 : 0;
    *code = length < 2 ? s[0] : s[0] & (0x7fu >> length);
    for (int i = 1; i < length; i++) {
        if (i >= left || s[i] >> 6 != 2) length = 0;
        else *code = *code << 6 | (s[i] & 63);
    }
    if (!length) *code = 0xfffd;
    return length ? length : 1;
}

static Characters read_characters(const Model *m, const char *text, int length) {
    size_t n = (size_t)length + 1;
    Characters c = {0, allocate(n, sizeof(int)), allocate(n, sizeof(uint32_t)), allocate(n, 1)};
    for (int at = 0; at < length; c.count++) {
        uint32_t *code = c.code + c.count;
        c.start[c.count] = at;
        at += decode_character((const uint8_t *)text + at, length - at, code);
        const Range *r = bsearch(code, m->words.ranges, m->h.ranges, sizeof *r, compare_range);
        c.class[c.count] = r ? r->class : OTHER;
    }
    c.start[c.count] = length;
    return c;
}

static int run_end(const Characters *c, int i, int class) {
    while (i < c->count && c->class[i] == class) i++;
    return i;
}

static bool line_end(uint32_t code) { return code == '\r' || code == '\n'; }

/* Where an apostrophe's 's 't 'm 'd 're 've or 'll ends that begins at i, or i. */
static int contraction_end(const Characters *c, int i, bool any_case) {
    if (c->code[i] != '\'' || i + 1 >= c->count) return i;
    uint32_t fold = any_case ? 0x20 : 0, a = c->code[i + 1] | fold, b = i + 2 < c->count ? c->code[i + 2] | fold : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return i + 2;
    return ((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l') ? i + 3 : i;
}

/* Where the piece ends that begins at character i. Pieces are tokenised on their own. The rules are those of
 * GPT-2 (Radford et al. 2019), SmolLM (GPT-2's, after setting each digit apart), Llama 3 and Qwen2. */
static int piece_end(const Characters *c, int i, int splitter) {
    if (splitter == WHOLE) return c->count;
    bool classic = splitter == GPT2 || splitter == SMOLLM, space = c->code[i] == ' ';
    int j = contraction_end(c, i, !classic);
    if (j > i) return j;

    bool joins = classic ? space : (c->class[i] == OTHER || c->class[i] == SPACE) && !line_end(c->code[i]);
    if (c->class[i + joins] == LETTER) return run_end(c, i + joins, LETTER);

    if (splitter == GPT2 && c->class[i + space] == NUMBER) return run_end(c, i + space, NUMBER);
    if (c->class[i] == NUMBER) {
        int most = splitter == LLAMA3 ? 3 : 1, end = run_end(c, i, NUMBER);
        return end < i + most ? end : i + most;
    }

    if (i + space < c->count && c->class[i + space] == OTHER) {
        j = run_end(c, i + space, OTHER);
        while (!classic && j < c->count && line_end(c->code[j])) j++;
        return j;
    }

    int end = run_end(c, i, SPACE);
    for (j = end; !classic && j > i; j--)
        if (line_end(c->code[j - 1])) return j;
    bool last = end == c->count || (splitter == SMOLLM && c->class[end] == NUMBER);
    return last || end == i + 1 ? end : end - 1;        /* the next piece keeps its own space */
}

/* The token whose bytes are exactly these, or -1. */
static int find_token(const Model *m, const char *bytes, int length) {
    const Vocabulary *w = &m->words;
    for (int low = 0, high = m->h.pieces; low < high;) {
        int middle = (low + high) / 2, token = w->sorted[middle], size = w->offsets[token + 1] - w->offsets[token];
        int order = memcmp(bytes, w->text + w->offsets[token], length < size ? length : size);
        if (!order) order = length - size;
        if (!order) return token;
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return -1;
}

static int compare_merges(const void *a, const void *b) {
    const Merge *x = a, *y = b;
    int left = (x->left > y->left) - (x->left < y->left), right = (x->right > y->right) - (x->right < y->right);
    return left ? left : right;
}

static const Merge *find_merge(const Model *m, const int *pair) {
    Merge key = {.left = pair[0], .right = pair[1]};
    return bsearch(&key, m->words.merges, m->h.merges, sizeof key, compare_merges);
}

/* Byte-pair encoding (Sennrich et al. 2016): merge the neighbours of lowest rank, leftmost first, until none can. */
static int merge_tokens(const Model *m, int *tokens, int count) {
    const Merge **found = allocate(count, sizeof *found);       /* found[i]: the merge of tokens i and i + 1 */
    for (int i = 0; i + 1 < count; i++) found[i] = find_merge(m, tokens + i);
    for (;;) {
        int best = -1;
        for (int i = 0; i + 1 < count; i++)
            if (found[i] && (best < 0 || found[i]->rank < found[best]->rank)) best = i;
        if (best < 0) break;
        tokens[best] = found[best]->result;
        count--;
        memmove(tokens + best + 1, tokens + best + 2, (count - best - 1) * sizeof *tokens);
        memmove(found + best + 1, found + best + 2, (count - best - 1) * sizeof *found);
        if (best) found[best - 1] = find_merge(m, tokens + best - 1);
        if (best + 1 < count) found[best] = find_merge(m, tokens + best);
    }
    free(found);
    return count;
}

static int byte_token(const Model *m, uint8_t byte) {
    if (m->words.bytes[byte] < 0) die("the vocabulary has no token for byte 0x%02x", byte);
    return m->words.bytes[byte];
}

/* Writes the text's tokens, at most one per byte (and one for a space before it), and returns how many. */
static int encode(const Model *m, const char *text, bool opens, int *tokens) {
    bool prefixed = *text && (m->h.space_prefix == 2 || (m->h.space_prefix == 1 && opens));
    int length = (int)strlen(text) + prefixed, total = 0;
    char *copy = allocate(length + 1, 1);
    copy[0] = ' ';
    memcpy(copy + prefixed, text, length - prefixed);
    Characters c = read_characters(m, copy, length);
    for (int i = 0, end; i < c.count; i = end) {
        int *piece = tokens + total, count = 0;
        end = piece_end(&c, i, m->h.splitter);
        if (m->h.whole_words && (piece[0] = find_token(m, copy + c.start[i], c.start[end] - c.start[i])) >= 0) {
            total++;
            continue;
        }
        for (int j = i; j < end; j++) {
            int token = m->h.characters ? find_token(m, copy + c.start[j], c.start[j + 1] - c.start[j]) : -1;
            if (token >= 0) piece[count++] = token;
            else for (const char *byte = copy + c.start[j]; byte < copy + c.start[j + 1]; byte++)
                piece[count++] = byte_token(m, (uint8_t)*byte);
        }
        total += merge_tokens(m, piece, count);
    }
    free(c.start), free(c.code), free(c.class), free(copy);
    return total;
}

/* ---- generation ------------------------------------------------------------------------------- */

static int most_probable(const float *logits, int count) {
    int best = 0;
    for (int i = 1; i < count; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

static bool is_stop(const Model *m, int token) {
    for (int i = 0; i < m->h.stops; i++)
        if (m->stops[i] == token) return true;
    return false;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void generate(const Model *m, State *s, const int *prompt, int count, int most) {
    double start = seconds(), prompt_end;
    const float *logits = NULL;
    for (int at = 0; at < count; at += BATCH)
        logits = forward(m, s, prompt + at, count - at < BATCH ? count - at : BATCH, at, true);
    int made = 0, token = most_probable(logits, m->h.vocabulary);
    prompt_end = seconds();
    while (made < most && !is_stop(m, token)) {
        const uint32_t *at = m->words.offsets + token;
        fwrite(m->words.text + at[0], 1, at[1] - at[0], stdout);
        fflush(stdout);
        if (++made == most) break;
        token = most_probable(forward(m, s, &token, 1, count + made - 1, true), m->h.vocabulary);
    }
    putchar('\n');
    fprintf(stderr, "prompt: %d tokens, %.1f/s; reply: %d tokens, %.1f/s\n", count, count / (prompt_end - start),
            made, made / (seconds() - prompt_end));
}

/* Writes the logits of every position, float32 (count, vocabulary), for tests. */
static void write_logits(const Model *m, State *s, const int *tokens, int count, const char *path) {
    FILE *file = fopen(path, "wb");
    if (!file) die("%s: %s", path, strerror(errno));
    for (int at = 0; at < count; at += BATCH) {
        int n = count - at < BATCH ? count - at : BATCH;
        const float *logits = forward(m, s, tokens + at, n, at, false);
        size_t size = sizeof *logits * m->h.vocabulary;
        if (fwrite(logits, size, n, file) != (size_t)n) die("%s: %s", path, strerror(errno));
    }
    if (fclose(file)) die("%s: %s", path, strerror(errno));
}

static char *read_input(void) {
    size_t size = 0, room = 1 << 16;
    char *text = allocate(room, 1);
    while ((size += fread(text + size, 1, room - size - 1, stdin)) == room - 1)
        if (!(text = realloc(text, room *= 2))) die("not enough memory for the input");
    text[size] = 0;
    if (strlen(text) < size) die("the input holds a zero byte");
    return text;
}

static int read_ids(const Model *m, const char *text, int *tokens) {
    int count = 0;
    for (char *end; *(text += strspn(text, " \t\r\n")); text = end) {
        long token = strtol(text, &end, 10);
        if (end == text || token < 0 || token >= m->h.vocabulary) die("not a token id: %.20s", text);
        tokens[count++] = (int)token;
    }
    return count;
}

static const char usage[] =
    "usage: run model.bin [options] [text]      (text is read from standard input if it is not given)\n"
    "  -c        continue the text (otherwise: answer it as the assistant)\n"
    "  -n COUNT  write at most so many tokens (256)\n"
    "  -f        exact float32: round neither activations nor the cache\n"
    "  -t        print the token ids of the prompt and stop\n"
    "  -l FILE   text is token ids; write the logits of every position to FILE and stop\n";

/* The tokens of a chat whose one message is the text, up to where the assistant's answer begins. */
static int chat_tokens(const Model *m, const char *text, int *tokens) {
    if (!m->h.prefix && !m->h.suffix) die("this model has no chat format: use -c to continue a text");
    size_t length = strlen(text);
    char *said = allocate(m->h.before + length + m->h.after + 1, 1);
    memcpy(said, m->before, m->h.before);
    memcpy(said + m->h.before, text, length);
    memcpy(said + m->h.before + length, m->after, m->h.after);
    memcpy(tokens, m->prefix, m->h.prefix * sizeof *tokens);
    int count = m->h.prefix + encode(m, said, !m->h.prefix, tokens + m->h.prefix);
    memcpy(tokens + count, m->suffix, m->h.suffix * sizeof *tokens);
    free(said);
    return count + m->h.suffix;
}

int main(int argc, char **argv) {
    bool complete = false, exact = false, print_ids = false;
    const char *logits_path = NULL;
    int most = 256, count = 0;
    if (argc < 2 || argv[1][0] == '-') die("no parameter file\n%s", usage);
    optind = 2;
    for (int option; (option = getopt(argc, argv, "cn:ftl:")) != -1;) {
        switch (option) {
        case 'c': complete = true; break;
        case 'n': most = abs(atoi(optarg)); break;
        case 'f': exact = true; break;
        case 't': print_ids = true; break;
        case 'l': logits_path = optarg; break;
        default: die("bad option\n%s", usage);
        }
    }
    if (optind + 1 < argc) die("options come before the text, and a text of many words needs quotes");
    Model m = open_model(argv[1]);
    const char *text = optind < argc ? argv[optind] : read_input();
    int *tokens = allocate(strlen(text) + m.h.prefix + m.h.before + m.h.after + m.h.suffix + 2, sizeof *tokens);

    if (logits_path) {
        count = read_ids(&m, text, tokens);
        most = 0;
    } else if (complete) {
        if (m.h.bos >= 0) tokens[count++] = m.h.bos;
        count += encode(&m, text, true, tokens + count);
    } else {
        count = chat_tokens(&m, text, tokens);
    }
    for (int i = 0; print_ids && i < count; i++) printf("%d%c", tokens[i], i + 1 < count ? ' ' : '\n');
    if (print_ids) return 0;

    int room = m.h.context - count;
    if (!count) die("the prompt is empty");
    if (room < 0) die("the prompt is %d tokens long, %d more than the model's context", count, -room);
    State s = new_state(&m, count + (most < room ? most : room), exact);
    if (logits_path) write_logits(&m, &s, tokens, count, logits_path);
    else generate(&m, &s, tokens, count, s.capacity - count);
    return 0;
}
