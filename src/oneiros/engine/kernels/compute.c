/* Compiled once for each instruction path, with the flags of that path and ISA_<PATH> defined. */
#include "linear.h"
#include "rows.h"
#include "attention.h"

#if defined(ISA_AMX)
#define TABLE compute_amx
#elif defined(ISA_AVX512)
#define TABLE compute_avx512
#elif defined(ISA_AVX2)
#define TABLE compute_avx2
#else
#define TABLE compute_portable
#endif

const struct compute TABLE = {
    .linear = linear,
    .low_rank = low_rank,
    .gate_up = gate_up,
    .put_row = put_row,
    .rms_norm = rms_norm,
    .store_key_value = store_key_value,
    .attend = attend,
    .merge = merge,
    .embed = embed,
};
