// AVX-512 with VNNI and VBMI, and five weights a byte: 1.6 bits a weight.
//
// Byte j of a row in block b holds inputs i, i + K/5, ... i + 4K/5 with i = 4b + j, as fields weight + 1. With v the
// base-3 number of the first four (the first is its lowest digit) and t the fifth:
//
//     v < 64:   64 t + v           bits 7 6 are t, bits 5..0 are v
//     v >= 64:  3 v + t            192..242: bits 7 6 are both set, bits 5..0 are 3 (v - 64) + t
//
// so that vpermb, which looks at bits 5..0 alone, turns either form into four 2-bit fields with one table of 64
// bytes, and t stands ready in the first form. The second form, which 17 of the 81 values of v take, replaces both
// under a mask.
//
// One token: 128 bytes (640 weights) take 2 loads, 5 broadcasts, 2 vpcmpub, 6 vpermb, 10 AND, 10 vpdpbusd, 2
// prefetches.
// 4Q tokens: 2 loads, 2 vpcmpub, 6 vpermb, 8 shifts, 10 AND, 20 Q broadcasts, 40 Q vpdpbusd.
// Unpacking: 2 loads, 2 vpcmpub, 6 vpermb, 8 shifts, 10 AND, 10 stores.
#include <immintrin.h>

#include "kernels.hpp"

#define TRITWISE_ISA avx512vbmi

namespace tritwise::TRITWISE_ISA {

struct Tables {
    alignas(64) std::uint8_t low[64], high[64], high_fifth[64];
};

constexpr Tables make_tables() {
    const auto four_fields = [](int v) {
        return static_cast<std::uint8_t>(v % 3 | v / 3 % 3 << 2 | v / 9 % 3 << 4 | v / 27 << 6);
    };
    Tables tables{};
    for (int i = 0; i < 64; ++i) {
        tables.low[i] = four_fields(i);
        if (i > 50) continue;  // no byte is above 242
        tables.high[i] = four_fields(64 + i / 3);
        tables.high_fifth[i] = static_cast<std::uint8_t>(i % 3 << 6);
    }
    return tables;
}

static constexpr Tables tables = make_tables();

struct Packing {
    static constexpr TernaryPacking kind = TernaryPacking::five_a_byte;
    static constexpr int fields = 5;
    static constexpr int segments = fields;
    static constexpr int shift[fields] = {0, 2, 4, 6, 6};

    static std::int64_t input(std::int64_t k, std::int64_t block, int field) { return k / 5 * field + block * 4; }

    void masked(__m512i bytes, __m512i (&out)[fields]) const {
        const __m512i four = open(bytes, out[4]);
        for (int f = 0; f < 4; ++f) out[f] = _mm512_and_si512(four, mask[f]);
    }
    void plain(__m512i bytes, __m512i (&out)[fields]) const {
        const __m512i four = open(bytes, out[4]);
        out[0] = _mm512_and_si512(four, mask[0]);
        for (int f = 1; f < 4; ++f) out[f] = _mm512_and_si512(_mm512_srli_epi16(four, shift[f]), mask[0]);
        out[4] = _mm512_and_si512(_mm512_srli_epi16(out[4], shift[4]), mask[0]);
    }

    // Four 2-bit fields, and the fifth in bits 7 6 of a byte of its own.
    __m512i open(__m512i bytes, __m512i& fifth) const {
        const __mmask64 second_form = _mm512_cmpge_epu8_mask(bytes, mask[3]);
        const __m512i four = _mm512_permutexvar_epi8(bytes, low);
        fifth = _mm512_mask_permutexvar_epi8(_mm512_and_si512(bytes, mask[3]), second_form, bytes, high_fifth);
        return _mm512_mask_permutexvar_epi8(four, second_form, bytes, high);
    }

    const __m512i mask[4] = {_mm512_set1_epi8(0x03), _mm512_set1_epi8(0x0C), _mm512_set1_epi8(0x30),
                             _mm512_set1_epi8(static_cast<char>(0xC0))};
    const __m512i low = _mm512_load_si512(tables.low), high = _mm512_load_si512(tables.high),
                  high_fifth = _mm512_load_si512(tables.high_fifth);
};

}  // namespace tritwise::TRITWISE_ISA

#include "avx512_kernels.hpp"

namespace tritwise {

const Kernels& kernels_avx512vbmi() {
    static constexpr Kernels table = avx512vbmi::make_table("avx512vbmi");
    return table;
}

}  // namespace tritwise
