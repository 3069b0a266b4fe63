/* Choosing the next token from its logits. */
#include "oneiros.h"
#include <math.h>
#include <stdlib.h>

struct candidate { float logit; int32_t token; };

static int by_logit(const void *a, const void *b) { /* descending, then by token */
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return x->token < y->token ? -1 : 1;
}

static int greatest(const float *logits, int count) {
    int best = 0;
    for (int i = 1; i < count; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

static int at_least(const float *logits, int count, float floor, struct candidate *out) {
    int n = 0;
    for (int i = 0; i < count; i++)
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
        for (int i = 0; i < count; i++) total += exp((logits[i] - (double)top) / t);
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

/* Nothing is cut off, so nothing needs to be sorted. */
static int sample_all(const float *logits, int count, double top, double temperature, double uniform) {
    double total = 0.0;
    for (int i = 0; i < count; i++) total += exp((logits[i] - top) / temperature);
    double left = uniform * total;
    int i = 0;
    for (; i < count - 1; i++) {
        left -= exp((logits[i] - top) / temperature);
        if (left < 0.0) break;
    }
    return i;
}

/* Returns a token; `uniform` in [0, 1) decides among the candidates. Returns -1 if memory runs out. */
int oneiros_sample(const float *logits, int count, const struct sampling *s, double uniform) {
    const int best = greatest(logits, count);
    const float top = logits[best];
    if (s->temperature <= 0.0f || s->top_k == 1 || !isfinite(top)) return best;
    if (s->top_k <= 0 && s->top_p >= 1.0f && s->min_p <= 0.0f)
        return sample_all(logits, count, (double)top, (double)s->temperature, uniform);
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
