// What the processor is and can do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tritwise {

struct CpuInfo {
    std::string brand;                  // empty when the processor does not tell
    std::vector<std::string> features;  // of those the kernels care about
    int logical_cores = 1;
    std::int64_t l1d_bytes = 0, l2_bytes = 0, l3_bytes = 0;  // 0 = unknown
};

CpuInfo cpu_info();

bool cpu_has_avx2();        // AVX2, FMA and F16C
bool cpu_has_avxvnni();     // the above and AVX-VNNI
bool cpu_has_avx512vnni();  // AVX2, FMA, F16C and AVX-512 F, BW, VL, DQ, VNNI
bool cpu_has_avx512vbmi();  // the above and AVX-512 VBMI
bool cpu_has_neon_dotprod();  // aarch64 with sdot

}  // namespace tritwise
