/* Whether this processor has the instructions that are used with -DISA_AMX. */
#define _GNU_SOURCE
#include "kernels.h"
#ifdef HAVE_TILES
#include "amx.h"

int oneiros_has_tiles(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni") && amx_usable(AMX_BF16);
}
#else
int oneiros_has_tiles(void) { return 0; }
#endif
