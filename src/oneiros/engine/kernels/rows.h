/* Work on single rows: normalisation, quantisation of activations, the gated unit, embeddings. */

static void put_block(const float *x, int row, int block, struct activations *out) {
    if (out->want_values) memcpy(out->values + (int64_t)row * out->columns + BLOCK * block, x, BLOCK * sizeof *x);
    if (!out->want_codes) return;
    const int blocks = out->columns / BLOCK, tile = row / TILE_ROWS, n = tile_rows(out, tile), t = row % TILE_ROWS;
    const int64_t at = (int64_t)tile * TILE_ROWS * blocks + (int64_t)block * n + t;
    int8_t *codes = out->codes + (int64_t)tile * TILE_ROWS * out->columns + (int64_t)(block * n + t) * BLOCK;
    vf most = f_zero();
    for (int i = 0; i < BLOCK; i += LANES) most = f_max(most, f_abs(f_load(x + i)));
    const float largest = lanes_max(most), scale = largest / 127.0f;
    const vf inverse = f_set(largest > 0.0f ? 127.0f / largest : 0.0f);
    int32_t half[2] = {0, 0};
    for (int i = 0; i < BLOCK; i += LANES) {
        vi q = i_round(f_mul(f_load(x + i), inverse));
        i_store_bytes(codes + i, q);
        half[i / 16] += lanes_sum(q);
    }
    out->scale[at] = scale;
    out->scaled_sum[at] = scale * (float)(half[0] + half[1]);
    out->offset[at] = -128 * (half[0] + half[1]);
    out->half_offset[at] = -128 * half[0];
}

static void put_row(const float *x, int row, struct activations *out) {
    for (int b = 0; b < out->columns / BLOCK; b++) put_block(x + BLOCK * b, row, b, out);
}

static void rms_norm(const float *x, const float *weight, int n, float epsilon, float *y) {
    vf squares[PARTS];
    for (int p = 0; p < PARTS; p++) squares[p] = f_zero();
    for (int i = 0; i < n; i += 16)
        for (int p = 0; p < PARTS; p++) {
            vf v = f_load(x + i + LANES * p);
            squares[p] = f_fma(v, v, squares[p]);
        }
    const vf factor = f_set(1.0f / sqrtf(sum16(squares) / (float)n + epsilon));
    for (int i = 0; i < n; i += LANES) f_store(y + i, f_mul(f_mul(f_load(x + i), factor), f_load(weight + i)));
}

#if LANES == 16
enum { LOW_ROWS = 4, LOW_TOKENS = 4 };
#else
enum { LOW_ROWS = 2, LOW_TOKENS = 2 }; /* sixteen registers hold no more */
#endif

INLINE void low_rank_tile(const float *a, const int rows, int columns, const float *x, const int tokens, float *out,
                          int64_t stride) {
    vf sum[LOW_ROWS * LOW_TOKENS * PARTS];
#pragma GCC unroll 16
    for (int i = 0; i < rows * tokens * PARTS; i++) sum[i] = f_zero();
    for (int k = 0; k < columns; k += 16) {
#pragma GCC unroll 4
        for (int p = 0; p < PARTS; p++) {
            vf v[LOW_TOKENS];
#pragma GCC unroll 4
            for (int t = 0; t < tokens; t++) v[t] = f_load(x + (int64_t)t * columns + k + LANES * p);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                const vf w = f_load(a + (int64_t)r * columns + k + LANES * p);
#pragma GCC unroll 4
                for (int t = 0; t < tokens; t++) {
                    vf *one = sum + (r * tokens + t) * PARTS + p;
                    *one = f_fma(w, v[t], *one);
                }
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < tokens; t++) out[t * stride + r] = sum16(sum + (r * tokens + t) * PARTS);
}

/* The thin product of an adapter: its rows are too few to be a lane each, so the lanes are columns.
 * Each output is one sum, in the same order whatever is computed beside it. */
static void low_rank(const float *a, int first, int last, const struct activations *in, float *out, int64_t stride) {
    const int columns = in->columns;
    for (int r = first; r < last;) {
        const bool several = last - r >= LOW_ROWS;
        const float *rows = a + (int64_t)r * columns;
        for (int t = 0; t < in->rows;) {
            const bool many = in->rows - t >= LOW_TOKENS;
            const float *x = in->values + (int64_t)t * columns;
            float *o = out + t * stride + r;
            if (several && many) low_rank_tile(rows, LOW_ROWS, columns, x, LOW_TOKENS, o, stride);
            else if (several) low_rank_tile(rows, LOW_ROWS, columns, x, 1, o, stride);
            else low_rank_tile(rows, 1, columns, x, 1, o, stride);
            t += several && many ? LOW_TOKENS : 1;
        }
        r += several ? LOW_ROWS : 1;
    }
}

/* Groups 2 * block and 2 * block + 1 of gate and up for one tile, gated and stored. */
INLINE void gated_block(const float *gate, const float *up, int tile, int n, int block, struct activations *out) {
    for (int t = 0; t < n; t++) {
        float h[BLOCK];
        for (int i = 0; i < BLOCK; i += LANES) {
            const vf g = f_load(gate + BLOCK * t + i), u = f_load(up + BLOCK * t + i);
            const vf e = f_exp(f_sub(f_zero(), f_max(g, f_set(-88.0f))));
            f_store(h + i, f_mul(f_div(g, f_add(f_set(1.0f), e)), u));
        }
        put_block(h, tile * TILE_ROWS + t, block, out);
    }
}

/* The activations of tokens [first, last), where first begins a tile. */
INLINE struct activations rows_of(const struct activations *in, int first, int last) {
    const int64_t blocks = in->columns / BLOCK;
    struct activations part = *in;
    part.rows = last - first;
    part.codes += (int64_t)first * in->columns;
    part.values += (int64_t)first * in->columns;
    part.scale += first * blocks;
    part.scaled_sum += first * blocks;
    part.offset += first * blocks;
    part.half_offset += first * blocks;
    return part;
}

/* Rows [32 * block, 32 * block + 32) of a matrix. */
INLINE struct matrix block_of(const struct matrix *w, int block) {
    struct matrix part = *w;
    part.data += 2 * block * w->group_bytes;
    part.rows = BLOCK;
    return part;
}

/* Adds the rows of a block of what stands beside a matrix, for tokens [first, last). */
INLINE void add_block(const struct addend *more, int block, int first, int last, float *out) {
    if (!more->matrix) return;
    const struct matrix rows = block_of(more->matrix, block);
    const struct activations part = rows_of(more->in, first, last);
    linear(&rows, 0, 2, &part, out, BLOCK, true);
}

enum { GATED_TILES = 8 }; /* tiles whose gate and up outputs are held at once: 32 kB */

static void gate_up(const struct matrix *gate, const struct matrix *up, const struct addend *gate_more,
                    const struct addend *up_more, int first, int last, const struct activations *in,
                    struct activations *out) {
    float gates[GATED_TILES * TILE_ROWS * BLOCK], ups[GATED_TILES * TILE_ROWS * BLOCK];
    const int tiles = (in->rows + TILE_ROWS - 1) / TILE_ROWS;
    for (int begin = 0; begin < tiles; begin += GATED_TILES) {
        const int end = begin + GATED_TILES < tiles ? begin + GATED_TILES : tiles;
        const int first_row = begin * TILE_ROWS, last_row = end < tiles ? end * TILE_ROWS : in->rows;
        const struct activations part = rows_of(in, first_row, last_row);
        for (int block = first; block < last; block++) {
            const struct matrix gate_rows = block_of(gate, block), up_rows = block_of(up, block);
            linear(&gate_rows, 0, 2, &part, gates, BLOCK, false);
            linear(&up_rows, 0, 2, &part, ups, BLOCK, false);
            add_block(gate_more, block, first_row, last_row, gates);
            add_block(up_more, block, first_row, last_row, ups);
            for (int tile = begin; tile < end; tile++) {
                const int at = (tile - begin) * TILE_ROWS * BLOCK;
                gated_block(gates + at, ups + at, tile, tile_rows(in, tile), block, out);
            }
        }
    }
}

/* One row of a packed matrix as floats: the embedding of a token. */
static void embed(const struct matrix *w, int row, float *out) {
    const uint8_t *group = w->data + (int64_t)(row / 16) * w->group_bytes;
    const int lane = row % 16, part = lane / LANES, within = lane % LANES;
    float one[LANES];
    if (w->format > FORMAT_Q8) {
        const int bytes = w->format == FORMAT_F32 ? 4 : 2;
        for (int k = 0; k < w->columns; k++) {
            const uint8_t *p = group + (int64_t)(16 * k + LANES * part) * bytes;
            f_store(one, w->format == FORMAT_F32   ? f_load((const float *)p)
                         : w->format == FORMAT_F16 ? f_load_half((const uint16_t *)p)
                                                   : f_load_bf16((const uint16_t *)p));
            out[k] = one[within];
        }
        return;
    }
    const struct layout layout = layout_of(w->format);
    const int blocks = w->columns / BLOCK, zero = layout.minimum ? 0 : 128 >> layout.zero_shift;
    const uint8_t *scales = group + (int64_t)blocks * layout.code_bytes;
    for (int b = 0; b < blocks; b++, group += layout.code_bytes, scales += layout.scale_bytes, out += BLOCK) {
        float scale[2][LANES];
        const uint16_t *s = (const uint16_t *)scales + LANES * part;
        f_store(scale[0], f_load_half(s));
        f_store(scale[1], layout.scale_bytes == 64 ? f_load_half(s + 16) : f_zero());
        vi codes[8];
        unpack(layout.bits, group, part, codes);
        for (int i = 0; i < BLOCK; i++) {
            uint8_t lanes[4 * LANES];
            memcpy(lanes, &codes[i / 4], sizeof lanes);
            const float code = (float)(lanes[4 * within + i % 4] - zero);
            const bool upper = w->format == FORMAT_Q6 && i >= 16;
            out[i] = code * scale[upper][within] + (layout.minimum ? scale[1][within] : 0.0f);
        }
    }
}
