/* The interface between Python (engine/library.py mirrors every struct here) and the C kernels.
 *
 * A packed matrix holds `rows` x `columns` weights in groups of 16 rows, because one vector lane
 * computes one output row. Within a group, columns come in blocks of 32. Every group is
 *
 *     codes:  for each block, the integer codes of 16 rows x 32 columns
 *     scales: for each block, 16 halves (one scale a row), then 16 more where the format has a
 *             minimum (Q4M, Q5M) or a second scale for columns 16..31 (Q6)
 *     padding to 64 bytes
 *
 * The codes of a block are vectors of 64 bytes, in which lane r (four bytes) belongs to row r:
 *
 *     4 bits: vector j (0..3), byte b of a lane: low nibble column 4j+b, high nibble 16+4j+b
 *     5 bits: the same, then one vector whose byte b holds bit 4 of columns 4j+b in its bit j (0..7)
 *     6 bits: the same, then two vectors; vector v holds bits 4-5 of columns 16v+4j+b at bit 2j
 *     8 bits: vector j (0..7), byte b: column 4j+b, as signed value + 128
 *
 * Floating-point formats hold, for each column, 16 values (one a row).
 */
#ifndef ONEIROS_H
#define ONEIROS_H
#include <stddef.h>
#include <stdint.h>

#define API __attribute__((visibility("default")))

/* Part of every stored page, packed cache and compressed file: change it whenever a change of the
 * kernels may change one bit of any logit, or the packed layout. */
#define KERNEL_VERSION 1

enum {
    GROUP_ROWS = 16,    /* rows that are computed together */
    BLOCK = 32,         /* columns that share a scale */
    TILE_ROWS = 16,     /* tokens whose activations are stored together */
    PAGE_TOKENS = 32,   /* positions in a KV page */
    SPAN_TOKENS = 256,  /* positions whose softmax is accumulated before it is merged */
    MAX_HEAD_DIM = 256,
};

enum format { /* weight = scale * (code - zero point), or scale * code + minimum */
    FORMAT_Q4 = 0,  /* zero point 8 */
    FORMAT_Q4M = 1, /* minimum */
    FORMAT_Q5 = 2,  /* zero point 16 */
    FORMAT_Q5M = 3, /* minimum */
    FORMAT_Q6 = 4,  /* zero point 32, a scale for every 16 columns */
    FORMAT_Q8 = 5,  /* zero point 128 */
    FORMAT_F16 = 6,
    FORMAT_BF16 = 7,
    FORMAT_F32 = 8,
};

struct matrix {
    const uint8_t *data; /* [ceil(rows / 16)][group_bytes], aligned to 64 */
    int64_t group_bytes;
    int32_t rows, columns;
    int32_t format;
    int32_t reserved;
};

struct adapter { /* LoRA (Hu et al. 2021, arXiv 2106.09685): adds b . (a . input) to a matrix's output */
    const float *a;  /* [rank][columns of the matrix]; null where the matrix has none */
    struct matrix b; /* rows of the matrix x rank, in FORMAT_F32, scale included */
};

struct adapters { struct adapter q, k, v, output, gate, up, down; };

struct layer {
    const float *attention_norm;                  /* [width] */
    const float *ffn_norm;                        /* [width] */
    const float *q_norm, *k_norm;                 /* [head_dim], or null */
    const float *q_bias, *k_bias, *v_bias;        /* [heads or kv_heads * head_dim], or null */
    struct matrix q, k, v, output, gate, up, down;
    const struct adapters *adapters;              /* or null */
};

struct model {
    int32_t layers, width, heads, kv_heads, head_dim, ffn_width, vocabulary;
    int32_t rope_dim;          /* features of a head that rotate */
    int32_t rope_interleaved;  /* 1: pairs (2i, 2i+1); 0: pairs (i, i + rope_dim/2) */
    float rms_epsilon;
    const double *rope_frequencies; /* [rope_dim / 2], radians a position */
    const float *final_norm;        /* [width] */
    const struct layer *layer;      /* [layers] */
    struct matrix embedding, head;
};

struct batch { /* one forward pass over rows (tokens) of one or more sequences */
    int32_t rows;
    int32_t runs;                        /* sequences */
    int32_t outputs;                     /* rows whose logits are wanted */
    int32_t reserved;
    const int32_t *tokens;               /* [rows] */
    const int32_t *positions;            /* [rows], consecutive within a run */
    const int32_t *run_start;            /* [runs + 1], first row of each run */
    uint8_t *const *const *page_tables;  /* [runs] -> pages, enough for the run's last position */
    const int32_t *output_rows;          /* [outputs], ascending */
    float *logits;                       /* [outputs][head groups * 16] */
};

struct engine;

API int oneiros_kernel_version(void);
API int oneiros_best_instruction_path(void); /* 0 portable, 1 AVX2, 2 AVX-512 VNNI, 3 with AMX tiles */
API struct engine *oneiros_engine_new(const struct model *model, int threads, int path, int max_rows);
API void oneiros_engine_free(struct engine *engine);
API int oneiros_step(struct engine *engine, const struct batch *batch); /* 0, or -1: no memory, nothing done */
API void oneiros_embedding(const struct model *model, int token, float *out); /* [width] */
/* A KV page: for each layer and key/value head, keys [head_dim][32] and values [32][head_dim] as halves. */
API int64_t oneiros_page_bytes(const struct model *model);

API int oneiros_packed_format(int type); /* of a GGUF type; -1 for one that it does not know */
API int64_t oneiros_group_bytes(int format, int columns);
/* Repacks rows x columns weights stored as GGUF type `type`; returns 0, or -1 for a type it does not
 * know. `destination` holds ceil(rows / 16) groups and is zero. */
API int oneiros_pack(int type, const uint8_t *source, int64_t rows, int64_t columns, uint8_t *destination);

struct sampling {
    float temperature; /* 0: greedy */
    float top_p, min_p; /* 1 and 0: off */
    int32_t top_k;      /* 0: off */
};
API int oneiros_sample(const float *logits, int count, const struct sampling *options, double uniform);
/* Sets logits to minus infinity whose bit is not set: bit i % 32 of mask[i / 32], for i < count. */
API void oneiros_mask_logits(float *logits, const uint32_t *mask, int count);
/* out[i] = log softmax(logits[i])[targets[i]], in double precision; logits [rows][stride]. */
API void oneiros_log_probabilities(const float *logits, int64_t stride, int rows, int count,
                                   const int32_t *targets, double *out);
#endif
