/* Constraints on the next token. */
#include "oneiros.h"
#include <math.h>

void oneiros_mask_logits(float *logits, const uint32_t *mask, int count) {
    for (int first = 0; first < count; first += 32) {
        const uint32_t allowed = mask[first / 32];
        const int tokens = count - first < 32 ? count - first : 32;
        if (allowed == UINT32_MAX) continue;
        for (int i = 0; i < tokens; i++)
            if (!(allowed >> i & 1)) logits[first + i] = -INFINITY;
    }
}
