// AVX-512 with VNNI and four weights a byte.
//
//     byte j of a row in a block of 16 inputs:  bits 7 6   5 4   3 2   1 0        field = weight + 1
//                                               k=12+j k=8+j k=4+j k=j
//
// One token: 128 bytes (512 weights) take 2 loads, 4 broadcasts, 8 AND, 8 vpdpbusd, 2 prefetches.
// 4Q tokens: 2 loads, 6 shifts, 8 AND, 16 Q broadcasts, 32 Q vpdpbusd.
// Unpacking: 2 loads, 6 shifts, 8 AND, 8 stores.
#include <immintrin.h>

#include "kernels.hpp"

#define TRITWISE_ISA avx512vnni

namespace tritwise::TRITWISE_ISA {

struct Packing {
    static constexpr TernaryPacking kind = TernaryPacking::four_a_byte;
    static constexpr int fields = 4;
    static constexpr int segments = 1;  // fields of a block are neighbours
    static constexpr int shift[fields] = {0, 2, 4, 6};

    static std::int64_t input(std::int64_t, std::int64_t block, int field) { return block * 16 + field * 4; }

    void masked(__m512i bytes, __m512i (&out)[fields]) const {
        for (int f = 0; f < fields; ++f) out[f] = _mm512_and_si512(bytes, mask[f]);
    }
    void plain(__m512i bytes, __m512i (&out)[fields]) const {
        out[0] = _mm512_and_si512(bytes, mask[0]);
        for (int f = 1; f < fields; ++f)
            out[f] = _mm512_and_si512(_mm512_srli_epi16(bytes, shift[f]), mask[0]);
    }

    const __m512i mask[fields] = {_mm512_set1_epi8(0x03), _mm512_set1_epi8(0x0C), _mm512_set1_epi8(0x30),
                                  _mm512_set1_epi8(static_cast<char>(0xC0))};
};

}  // namespace tritwise::TRITWISE_ISA

#include "avx512_kernels.hpp"

namespace tritwise {

const Kernels& kernels_avx512vnni() {
    static constexpr Kernels table = avx512vnni::make_table("avx512vnni");
    return table;
}

}  // namespace tritwise
