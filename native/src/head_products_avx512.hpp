// Integer products of the head with vpdpbusd; head_matrices.hpp draws the planes.
#pragma once

#include <immintrin.h>

#include "kernels.hpp"

namespace tritwise::TRITWISE_ISA {

// Eight inputs of 32 rows as bytes: v[0], v[1] hold inputs 0-3 of rows 0-15 and 16-31, v[2], v[3] inputs 4-7.
// Per 128 bytes of a plane: 2 loads, 2 shifts, 4 AND.
struct NibbleSource {
    const std::uint8_t* plane;
    static constexpr int offset = 8;

    void load(std::int64_t step, __m512i (&v)[4]) const {
        const __m512i mask = _mm512_set1_epi8(0x0F);
        for (int half = 0; half < 2; ++half) {
            const std::uint8_t* p = plane + step * 128 + half * 64;
            _mm_prefetch(reinterpret_cast<const char*>(p + 4096), _MM_HINT_T0);
            const __m512i a = _mm512_loadu_si512(p);
            v[half] = _mm512_and_si512(a, mask);
            v[2 + half] = _mm512_and_si512(_mm512_srli_epi16(a, 4), mask);
        }
    }
};

// 16 * high + low. Per 2 x 128 bytes: 4 loads, 4 shifts, 4 bit selections.
struct PairSource {
    const std::uint8_t *high, *low;
    static constexpr int offset = 128;

    void load(std::int64_t step, __m512i (&v)[4]) const {
        const __m512i mask = _mm512_set1_epi8(0x0F);
        for (int half = 0; half < 2; ++half) {
            const std::uint8_t *p = high + step * 128 + half * 64, *q = low + step * 128 + half * 64;
            _mm_prefetch(reinterpret_cast<const char*>(p + 4096), _MM_HINT_T0);
            _mm_prefetch(reinterpret_cast<const char*>(q + 4096), _MM_HINT_T0);
            const __m512i a = _mm512_loadu_si512(p), b = _mm512_loadu_si512(q);
            // 0xCA: the second operand where the mask is set, the third elsewhere.
            v[half] = _mm512_ternarylogic_epi32(mask, b, _mm512_slli_epi16(a, 4), 0xCA);
            v[2 + half] = _mm512_ternarylogic_epi32(mask, _mm512_srli_epi16(b, 4), a, 0xCA);
        }
    }
};

static inline __m512i head_input(const std::int8_t* p) {
    std::int32_t word;
    std::memcpy(&word, p, 4);
    return _mm512_set1_epi32(word);
}

// T columns by 32 rows: for each step the loads above, 2 T broadcasts, 4 T vpdpbusd. For one token (T = 2) with one
// plane: 20 instructions for 256 weights.
template <int T, class Source>
static inline void head_sums(const Source& source, std::int64_t steps, const std::int8_t* quads,
                             std::int64_t quad_stride, const std::int32_t* column_sums,
                             std::int32_t (*sums)[group_rows]) {
    __m512i acc[2][T];
#pragma GCC unroll 12
    for (int t = 0; t < T; ++t) acc[0][t] = acc[1][t] = _mm512_setzero_si512();
    for (std::int64_t step = 0; step < steps; ++step, quads += 32) {
        __m512i v[4];
        source.load(step, v);
        for (int quarter = 0; quarter < 2; ++quarter) {
#pragma GCC unroll 12
            for (int t = 0; t < T; ++t) {
                const __m512i input = head_input(quads + t / 4 * quad_stride + quarter * 16 + t % 4 * 4);
                acc[0][t] = _mm512_dpbusd_epi32(acc[0][t], v[2 * quarter], input);
                acc[1][t] = _mm512_dpbusd_epi32(acc[1][t], v[2 * quarter + 1], input);
            }
        }
    }
#pragma GCC unroll 12
    for (int t = 0; t < T; ++t) {
        // Columns in pairs: those beyond the last token hold zeros, and their sums are not read.
        const __m512i shift = _mm512_set1_epi32(Source::offset * column_sums[t]);
        _mm512_storeu_si512(sums[t], _mm512_sub_epi32(acc[0][t], shift));
        _mm512_storeu_si512(sums[t] + 16, _mm512_sub_epi32(acc[1][t], shift));
    }
}

template <int T>
static inline void nibble_sums(const std::uint8_t* plane, std::int64_t steps, const std::int8_t* quads,
                               std::int64_t quad_stride, const std::int32_t* column_sums,
                               std::int32_t (*sums)[group_rows]) {
    head_sums<T>(NibbleSource{plane}, steps, quads, quad_stride, column_sums, sums);
}

template <int T>
static inline void pair_sums(const std::uint8_t* high, const std::uint8_t* low, std::int64_t steps,
                             const std::int8_t* quads, std::int64_t quad_stride, const std::int32_t* column_sums,
                             std::int32_t (*sums)[group_rows]) {
    head_sums<T>(PairSource{high, low}, steps, quads, quad_stride, column_sums, sums);
}

}  // namespace tritwise::TRITWISE_ISA
