/* What Python calls for training on a CPU. Each function is run by several threads at once, which
 * share what there is to do; they end when nothing is left. A thread that gets no memory takes no
 * part: where `next` is still 0 after all, none did. Values are bfloat16 where nothing else
 * is said, and lie without gaps. */
#ifndef KERNELS_H
#define KERNELS_H
#include <stdatomic.h>
#include <stdint.h>

typedef uint16_t bf16; /* its bits */

struct attention {
    int32_t rows, positions, heads, kv_heads; /* heads % kv_heads == 0 */
    int32_t head_dim;                         /* F, a multiple of 32 */
    int32_t first_stride;                     /* 0: all rows have the same `first`; else positions */
    float scale;                              /* of the scores */
    atomic_int next;                          /* the (row, key/value head) that nobody does yet */
    const int32_t *first;                     /* [rows][positions]: position p sees [first[p], p] */
    const bf16 *queries, *keys, *values;      /* [rows][positions][heads or kv_heads][F] */
    bf16 *mixed;                              /* [rows][positions][heads][F], what attention gives */
    float *log_sum;                           /* [rows][heads][positions], of exp(score), base 2 */
    const bf16 *gradient;                     /* of `mixed`; this and what follows: backward only */
    bf16 *query_gradient, *key_gradient, *value_gradient;
};

/* out = left^T right, summed over the rows: the gradient of a matrix's weights. */
struct weight_gradient {
    int32_t rows, left_columns, right_columns; /* both multiples of 32 */
    int32_t left_piece, right_piece;           /* columns of a thread's part; both multiples of 32 */
    atomic_int next;                           /* the piece that nobody does yet */
    const bf16 *left, *right;                  /* [rows][left_columns], [rows][right_columns] */
    float *out;                                /* [left_columns][right_columns] */
};

#define API __attribute__((visibility("default")))

/* Whether the processor has the tiles that functions named so need. */
API int oneiros_has_tiles(void);

API void oneiros_attention_forward_portable(struct attention *);
API void oneiros_attention_backward_portable(struct attention *);
API void oneiros_weight_gradient_portable(struct weight_gradient *);
#ifdef HAVE_TILES
API void oneiros_attention_forward_tiles(struct attention *);
API void oneiros_attention_backward_tiles(struct attention *);
API void oneiros_weight_gradient_tiles(struct weight_gradient *);
#endif
#endif
