// AVX2 with AVX-VNNI: vpdpbusd on 256 bits, for processors without AVX-512 (Intel from Alder Lake on) or with it.
#include <immintrin.h>

#define TRITWISE_ISA avxvnni

namespace tritwise::TRITWISE_ISA {
constexpr bool vnni = true;
// Written out, because GCC 12 would move accumulators from register to register around the intrinsic.
static inline __m256i dot(__m256i acc, __m256i bytes, __m256i codes) {
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(bytes), "x"(codes));
    return acc;
}
}  // namespace tritwise::TRITWISE_ISA

#include "avx2_kernels.hpp"

namespace tritwise {

const Kernels& kernels_avxvnni() {
    static constexpr Kernels table = avxvnni::make_table("avxvnni");
    return table;
}

}  // namespace tritwise
