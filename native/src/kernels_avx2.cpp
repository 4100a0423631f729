// AVX2 with FMA and F16C.
#include <immintrin.h>

#define TRITWISE_ISA avx2

namespace tritwise::TRITWISE_ISA {
constexpr bool vnni = false;
static inline __m256i dot(__m256i acc, __m256i, __m256i) { return acc; }
}  // namespace tritwise::TRITWISE_ISA

#include "avx2_kernels.hpp"

namespace tritwise {

const Kernels& kernels_avx2() {
    static constexpr Kernels table = avx2::make_table("avx2");
    return table;
}

}  // namespace tritwise
