/* The gradient of a matrix's weights: the product of two tall matrices over their rows. Compiled
 * twice: with AMX's tiles (-DISA_AMX), and portable.
 *
 * Both factors lie the wrong way round for tiles. A block of each is rearranged in the cache, and
 * multiplied there: panels of 32 columns are transposed on the left and paired on the right. */
#include "primitives.h"
#include <stdlib.h>

enum { PANEL = 32, CHUNK = 256 /* rows at a time */ };

static int smaller(int a, int b) { return a < b ? a : b; }

/* Columns of `count` rows (at most CHUNK), transposed: [columns][CHUNK]. What is missing to a
 * multiple of 32 rows is 0. */
INLINE void pack_left(const bf16 *from, int stride, int count, int columns, bf16 *to) {
    _Alignas(64) bf16 rows[16 * PANEL], turned[16 * PANEL];
    for (int i = 0; i < (count + 31) / 32 * 32; i += 16)
        for (int f = 0; f < columns; f += PANEL) {
            const bf16 *block = from + (int64_t)i * stride + f;
            int block_stride = stride;
            if (i + 16 > count) {
                memset(rows, 0, sizeof rows);
                for (int j = 0; i + j < count; j++)
                    memcpy(rows + j * PANEL, block + (int64_t)j * stride, PANEL * sizeof *rows);
                block = rows, block_stride = PANEL;
            }
            transpose(block, block_stride / 2, turned, 16);
            for (int j = 0; j < 16; j++)
                halves(turned + 32 * j, to + (f + 2 * j) * CHUNK + i, to + (f + 2 * j + 1) * CHUNK + i);
        }
}

/* Columns of `count` rows in pairs, panel by panel: [columns / 32][CHUNK / 2][32][2]. */
INLINE void pack_right(const bf16 *from, int stride, int count, int columns, bf16 *to) {
    static const bf16 nothing[PANEL];
    for (int i = 0; i < (count + 31) / 32 * 32; i += 2)
        for (int f = 0; f < columns; f += PANEL) {
            const bf16 *even = from + (int64_t)i * stride + f;
            pair(i < count ? even : nothing, i + 1 < count ? even + stride : nothing, to + f * CHUNK + i * PANEL);
        }
}

/* Columns [i, i + m) of the left times columns [j, j + n) of the right. */
static void multiply_piece(const struct weight_gradient *w, int i, int m, int j, int n, bf16 *left, bf16 *right) {
    for (int row = 0; row < w->rows || row == 0; row += CHUNK) {
        const int count = smaller(CHUNK, w->rows - row);
        pack_left(w->left + (int64_t)row * w->left_columns + i, w->left_columns, count, m, left);
        pack_right(w->right + (int64_t)row * w->right_columns + j, w->right_columns, count, n, right);
        for (int p = 0; p < m; p += PANEL)
            for (int q = 0; q < n; q += PANEL)
                multiply(w->out + (int64_t)(i + p) * w->right_columns + j + q, w->right_columns, left + p * CHUNK, CHUNK,
                         right + q * CHUNK, PANEL, PANEL, PANEL, (count + 31) / 32 * 32, row > 0);
    }
}

#ifdef ISA_AMX
void oneiros_weight_gradient_tiles(struct weight_gradient *w)
#else
void oneiros_weight_gradient_portable(struct weight_gradient *w)
#endif
{
    const size_t columns = (size_t)w->left_piece + (size_t)w->right_piece;
    bf16 *left = aligned_alloc(64, sizeof *left * columns * CHUNK);
    if (!left) return;
    struct tile_config before;
    tiles_begin(&before);
    const int down = (w->left_columns + w->left_piece - 1) / w->left_piece;
    const int across = (w->right_columns + w->right_piece - 1) / w->right_piece;
    for (int piece; (piece = atomic_fetch_add(&w->next, 1)) < down * across;) {
        const int i = piece / across * w->left_piece, j = piece % across * w->right_piece;
        multiply_piece(w, i, smaller(w->left_piece, w->left_columns - i), j,
                       smaller(w->right_piece, w->right_columns - j), left, left + w->left_piece * CHUNK);
    }
    tiles_end(&before);
    free(left);
}
