// One token times a matrix that lies by input, with vpdpbusd.
#pragma once

#include <immintrin.h>

#include "kernels.hpp"

namespace tritwise::TRITWISE_ISA {

// Four inputs are interleaved, so that a dword holds them for one row, and 64 bytes are two slabs: a vector of sums has
// the rows 32 f + 8 q .. + 7 of both. Field f is left at 4^f times its value.
constexpr int sum_place(int row) {
    const int slab = row / slab_rows, f = row % slab_rows / 32, q = row % 32 / 8;
    return (4 * f + q) * 16 + 8 * slab + row % 8;
}
constexpr int sum_shift(int row) { return row % slab_rows / 32 * 2; }

}  // namespace tritwise::TRITWISE_ISA

#include "by_input_groups.hpp"
#include "by_input_x86.hpp"

namespace tritwise::TRITWISE_ISA {

static inline void interleave(const std::uint8_t* const* column, std::int64_t at, __m512i (&rows)[4]) {
    const __m512i a = _mm512_loadu_si512(column[0] + at), b = _mm512_loadu_si512(column[1] + at),
                  c = _mm512_loadu_si512(column[2] + at), d = _mm512_loadu_si512(column[3] + at);
    const __m512i ab[2] = {_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b)};
    const __m512i cd[2] = {_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d)};
    for (int half = 0; half < 2; ++half) {
        rows[2 * half] = _mm512_unpacklo_epi16(ab[half], cd[half]);
        rows[2 * half + 1] = _mm512_unpackhi_epi16(ab[half], cd[half]);
    }
}

// Per 16 codes: 1 comparison, 1 compression, 1 store.
static int list_inputs(const std::int8_t* codes, std::int64_t k, std::int32_t* inputs) {
    const __m512i sixteen = _mm512_set1_epi32(16);
    __m512i place = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    int count = 0;
    for (std::int64_t i = 0; i < k; i += 16, place = _mm512_add_epi32(place, sixteen)) {
        const auto there = static_cast<__mmask16>(k - i < 16 ? (1u << (k - i)) - 1 : 0xFFFF);
        const __m128i some = _mm_maskz_loadu_epi8(there, codes + i);
        const __mmask16 used = _mm_test_epi8_mask(some, some);
        _mm512_storeu_si512(inputs + count, _mm512_maskz_compress_epi32(used, place));
        count += __builtin_popcount(used);
    }
    return count;
}

// The inputs are read from beginning to end, as they lie; the sums, 4 bytes a row, stay in the first-level cache.
// Per 8 inputs by 64 bytes (2048 weights): 8 loads, 16 interleavings, 32 AND, 32 vpdpbusd, 16 loads and stores of sums,
// 8 prefetches. |sum| <= 128 * 128 * K < 2^31 for K <= 65536.
static void add_inputs(const TernaryMatrix& w, const std::int32_t* inputs, int count, const std::int8_t* codes,
                       std::int32_t* sums) {
    for_inputs(w, inputs, count, codes, [&](const Inputs& eight) {
        const __m512i x[2] = {_mm512_set1_epi32(eight.codes[0]), _mm512_set1_epi32(eight.codes[1])};
        std::int32_t* to = sums;
        for (std::int64_t at = 0; at < input_bytes(w.rows); at += 2 * slab_bytes) {
            eight.fetch(at);
            __m512i rows[2][4];
            interleave(eight.at, at, rows[0]);
            interleave(eight.at + 4, at, rows[1]);
#pragma GCC unroll 4
            for (int f = 0; f < 4; ++f) {
                const __m512i mask = _mm512_set1_epi8(static_cast<char>(0x03 << 2 * f));
#pragma GCC unroll 4
                for (int q = 0; q < 4; ++q, to += 16) {
                    __m512i sum = _mm512_loadu_si512(to);
                    sum = _mm512_dpbusd_epi32(sum, _mm512_and_si512(rows[0][q], mask), x[0]);
                    sum = _mm512_dpbusd_epi32(sum, _mm512_and_si512(rows[1][q], mask), x[1]);
                    _mm512_storeu_si512(to, sum);
                }
            }
        }
    });
}

}  // namespace tritwise::TRITWISE_ISA
