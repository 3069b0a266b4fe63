/* Choosing the next token from its logits. */
#include "oneiros.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct candidate { float logit; int32_t token; };

static int by_logit(const void *a, const void *b) { /* descending, then by token */
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return x->token < y->token ? -1 : 1;
}

enum { LANES = 4, PIECE = 64 }; /* what every processor of a kind has */
typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));

static lanes load(const float *from) {
    lanes v;
    memcpy(&v, from, sizeof v);
    return v;
}

/* The next piece, from `first` on, that may hold a logit of at least `floor`; `count` if none does. */
static int next_piece(const float *logits, int count, int first, float floor) {
    for (; first + PIECE <= count; first += PIECE) {
        ints any = {0};
        for (int i = first; i < first + PIECE; i += LANES) any |= load(logits + i) >= floor;
        if (any[0] | any[1] | any[2] | any[3]) return first;
    }
    return first < count ? first : count;
}

static int end_of(int first, int count) { return first + PIECE < count ? first + PIECE : count; }

/* The index of the greatest logit, the first of them. A NaN is never greater. */
static int greatest(const float *logits, int count) {
    float top = -INFINITY;
    int at = 0;
    for (int first = 0; (first = next_piece(logits, count, first, top)) < count; first += PIECE)
        for (int i = first; i < end_of(first, count); i++)
            if (logits[i] > top) top = logits[at = i];
    return at;
}

/* exp(x) for x <= 0 to 3 units in the last place: 2^n by the exponent's bits, times a polynomial
 * for the rest (the coefficients of Cephes' expf). One code for every processor: what is drawn must
 * not depend on it. */
static lanes exponential(lanes x) {
    const ints normal = x >= -87.0f; /* all ones where the result is not denormal or NaN */
    x = (lanes)((ints)x & normal);
    const ints n = __builtin_convertvector(x * 1.44269504f - 0.5f, ints);
    const lanes whole = __builtin_convertvector(n, lanes);
    const lanes r = (x - whole * 0.693359375f) - whole * -2.12194440e-4f;
    lanes p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const lanes power = (lanes)((n + 127) << 23);
    return (lanes)((ints)(p * power) & normal);
}

/* Sum of exp((logits[i] - top) / temperature), in an order that depends on count only. */
static double mass_of(const float *logits, int count, float top, float scale) {
    double sums[LANES] = {0};
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
        const lanes e = exponential((load(logits + i) - top) * scale);
        for (int lane = 0; lane < LANES; lane++) sums[lane] += (double)e[lane];
    }
    double total = 0.0;
    for (int lane = 0; lane < LANES; lane++) total += sums[lane];
    for (; i < count; i++) total += (double)exponential((lanes){0} + (logits[i] - top) * scale)[0];
    return total;
}

static int at_least(const float *logits, int count, float floor, struct candidate *out) {
    int n = 0;
    for (int first = 0; (first = next_piece(logits, count, first, floor)) < count; first += PIECE)
        for (int i = first; i < end_of(first, count); i++)
            if (logits[i] >= floor) out[n++] = (struct candidate){logits[i], i};
    qsort(out, (size_t)n, sizeof *out, by_logit);
    return n;
}

/* The tokens that temperature, then top-k, then top-p (Holtzman et al. 2019), then min-p (Nguyen et
 * al. 2024) leave, in descending order. Sorting a whole vocabulary takes longer than a forward pass,
 * so ever more of its head is sorted until the answer is certainly inside. */
static int shortlist(const float *logits, int count, const struct sampling *s, float top, struct candidate *out) {
    const double t = s->temperature;
    double total = 0.0;
    if (s->top_p < 1.0f && s->top_k <= 0)
        total = mass_of(logits, count, top, 1.0f / s->temperature);
    for (double depth = 8.0;; depth *= 2.0) {
        int n = at_least(logits, count, (float)(top - depth * t), out);
        const int all = n == count || depth > 512.0;
        if (s->top_k > 0) {
            if (n < s->top_k && !all) continue;
            if (n > s->top_k) n = s->top_k;
        }
        double mass = 0.0, whole = total;
        if (s->top_k > 0)
            for (int i = 0; i < n; i++) whole += exp((out[i].logit - (double)top) / t);
        int kept = 0;
        if (s->top_p < 1.0f) {
            while (kept < n && mass < (double)s->top_p * whole) mass += exp((out[kept++].logit - (double)top) / t);
            if (kept == n && mass < (double)s->top_p * whole && !all) continue;
        } else {
            kept = n;
            if (s->top_k <= 0 && depth < -log((double)s->min_p) && !all) continue;
        }
        if (kept == 0) kept = 1;
        if (s->min_p > 0.0f)
            while (kept > 1 && exp((out[kept - 1].logit - (double)top) / t) < (double)s->min_p) kept--;
        return kept;
    }
}

/* Nothing is cut off, so nothing needs to be sorted: find the block, then the token in it. */
static int sample_all(const float *logits, int count, float top, float scale, double uniform) {
    const int blocks = (count + PIECE - 1) / PIECE;
    double *mass = malloc((size_t)blocks * sizeof *mass), total = 0.0;
    if (!mass) return -1;
    for (int b = 0; b < blocks; b++) {
        const int size = b < blocks - 1 ? PIECE : count - b * PIECE;
        total += mass[b] = mass_of(logits + b * PIECE, size, top, scale);
    }
    double left = uniform * total;
    int b = 0;
    while (b < blocks - 1 && left >= mass[b]) left -= mass[b++];
    free(mass);
    const int end = b < blocks - 1 ? (b + 1) * PIECE : count;
    int chosen = -1;
    for (int i = b * PIECE; i < end; i++) {
        const double e = mass_of(logits + i, 1, top, scale);
        if (e > 0.0) chosen = i; /* rounding may leave something over: the last that is possible */
        if ((left -= e) < 0.0) break;
    }
    return chosen < 0 ? greatest(logits, count) : chosen;
}

/* Returns a token; `uniform` in [0, 1) decides among the candidates. Returns -1 if memory runs out. */
int oneiros_sample(const float *logits, int count, const struct sampling *s, double uniform) {
    const int best = greatest(logits, count);
    const float top = logits[best];
    if (s->temperature <= 0.0f || s->top_k == 1 || !isfinite(top)) return best;
    if (s->top_k <= 0 && s->top_p >= 1.0f && s->min_p <= 0.0f)
        return sample_all(logits, count, top, 1.0f / s->temperature, uniform);
    struct candidate *list = malloc((size_t)count * sizeof *list);
    if (!list) return -1;
    const int n = shortlist(logits, count, s, top, list);
    double total = 0.0;
    for (int i = 0; i < n; i++) total += exp((list[i].logit - (double)top) / (double)s->temperature);
    double left = uniform * total;
    int chosen = best;
    for (int i = 0; i < n; i++) {
        chosen = list[i].token;
        left -= exp((list[i].logit - (double)top) / (double)s->temperature);
        if (left < 0.0) break;
    }
    free(list);
    return chosen;
}

void oneiros_log_probabilities(const float *logits, int64_t stride, int rows, int count, const int32_t *targets,
                               double *out) {
    for (int r = 0; r < rows; r++, logits += stride) {
        const float top = logits[greatest(logits, count)];
        double total = 0.0;
        for (int i = 0; i < count; i++) total += exp((double)(logits[i] - top));
        out[r] = (double)(logits[targets[r]] - top) - log(total);
    }
}
