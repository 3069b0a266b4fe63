/* Whether this processor has the instructions that are used with -DISA_AMX. */
#define _GNU_SOURCE
#include "kernels.h"
#ifdef HAVE_TILES
#include <sys/syscall.h>
#include <unistd.h>

int oneiros_has_tiles(void) {
    __builtin_cpu_init();
    unsigned a, b, c, d = 0;
    __asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(0));
    const int tiles = (d >> 24 & 1) && (d >> 22 & 1); /* AMX-TILE, AMX-BF16 */
    if (!tiles || !__builtin_cpu_supports("avx512bf16") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
        return 0;
    const long request_permission = 0x1023, tile_data = 18; /* arch_prctl(2) */
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#else
int oneiros_has_tiles(void) { return 0; }
#endif
