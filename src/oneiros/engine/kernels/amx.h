/* Whether tile registers may be used: asked by the engine, and by training's kernels. */
#ifndef AMX_H
#define AMX_H
#include <sys/syscall.h>
#include <unistd.h>

enum { AMX_BF16 = 22, AMX_TILE = 24, AMX_INT8 = 25 }; /* bits of EDX of CPUID's leaf 7 */

/* Whether the processor has tiles and what `feature` stands for; the kernel allows them on request:
 * arch_prctl(2). */
static inline int amx_usable(int feature) {
    const long request_permission = 0x1023, tile_data = 18;
    unsigned a, b, c, d = 0;
    __asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(0));
    return (d >> AMX_TILE & 1) && (d >> feature & 1) && syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#endif
