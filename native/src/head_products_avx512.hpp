// Integer products of the head with vpdpbusd; head_matrices.hpp draws the planes.
#pragma once

#include <immintrin.h>

#include "kernels.hpp"

namespace tritwise::TRITWISE_ISA {

// Eight inputs of 16 or 32 rows as bytes: v[0][i] holds inputs 0-3 of rows 16i to 16i+15, v[1][i] inputs 4-7.
// Per 64 bytes of a plane: 1 load, 1 shift, 2 AND.
struct NibbleSource {
    const std::uint8_t* plane;
    static constexpr int offset = 8;

    template <int halves>
    void load(std::int64_t step, __m512i (&v)[2][halves]) const {
        const __m512i mask = _mm512_set1_epi8(0x0F);
        for (int half = 0; half < halves; ++half) {
            const std::uint8_t* p = plane + step * 128 + half * 64;
            _mm_prefetch(reinterpret_cast<const char*>(p + 4096), _MM_HINT_T0);
            const __m512i a = _mm512_loadu_si512(p);
            v[0][half] = _mm512_and_si512(a, mask);
            v[1][half] = _mm512_and_si512(_mm512_srli_epi16(a, 4), mask);
        }
    }
};

// 16 * high + low. Per 2 x 64 bytes: 2 loads, 2 shifts, 2 bit selections.
struct PairSource {
    const std::uint8_t *high, *low;
    static constexpr int offset = 128;

    template <int halves>
    void load(std::int64_t step, __m512i (&v)[2][halves]) const {
        const __m512i mask = _mm512_set1_epi8(0x0F);
        for (int half = 0; half < halves; ++half) {
            const std::uint8_t *p = high + step * 128 + half * 64, *q = low + step * 128 + half * 64;
            _mm_prefetch(reinterpret_cast<const char*>(p + 4096), _MM_HINT_T0);
            _mm_prefetch(reinterpret_cast<const char*>(q + 4096), _MM_HINT_T0);
            const __m512i a = _mm512_loadu_si512(p), b = _mm512_loadu_si512(q);
            // 0xCA: the second operand where the mask is set, the third elsewhere.
            v[0][half] = _mm512_ternarylogic_epi32(mask, b, _mm512_slli_epi16(a, 4), 0xCA);
            v[1][half] = _mm512_ternarylogic_epi32(mask, _mm512_srli_epi16(b, 4), a, 0xCA);
        }
    }
};

static inline __m512i head_input(const std::int8_t* p) {
    std::int32_t word;
    std::memcpy(&word, p, 4);
    return _mm512_set1_epi32(word);
}

// T columns by 16 or 32 rows: for each step the loads above, 2 T broadcasts, 2 T vpdpbusd for 16 rows.
template <int T, int rows, class Source>
static inline void head_sums(const Source& source, std::int64_t steps, const std::int8_t* quads,
                             std::int64_t quad_stride, const std::int32_t* column_sums,
                             std::int32_t (*sums)[group_rows]) {
    constexpr int halves = rows / 16;
    __m512i acc[halves][T];
#pragma GCC unroll 12
    for (int t = 0; t < T; ++t)
        for (int half = 0; half < halves; ++half) acc[half][t] = _mm512_setzero_si512();
    for (std::int64_t step = 0; step < steps; ++step, quads += 32) {
        __m512i v[2][halves];
        source.load(step, v);
        for (int quarter = 0; quarter < 2; ++quarter) {
#pragma GCC unroll 12
            for (int t = 0; t < T; ++t) {
                const __m512i input = head_input(quads + t / 4 * quad_stride + quarter * 16 + t % 4 * 4);
                for (int half = 0; half < halves; ++half)
                    acc[half][t] = _mm512_dpbusd_epi32(acc[half][t], v[quarter][half], input);
            }
        }
    }
#pragma GCC unroll 12
    for (int t = 0; t < T; ++t) {
        // Columns beyond the last token hold zeros, and their sums are not read.
        const __m512i shift = _mm512_set1_epi32(Source::offset * column_sums[t]);
        for (int half = 0; half < halves; ++half)
            _mm512_storeu_si512(sums[t] + 16 * half, _mm512_sub_epi32(acc[half][t], shift));
    }
}

template <int T>
static inline void nibble_sums(const std::uint8_t* plane, std::int64_t steps, const std::int8_t* quads,
                               std::int64_t quad_stride, const std::int32_t* column_sums,
                               std::int32_t (*sums)[group_rows]) {
    head_sums<T, group_rows>(NibbleSource{plane}, steps, quads, quad_stride, column_sums, sums);
}

// The high nibbles stay where they are and count sixteenfold; their sum, at most 240 * 128 * K / 2 < 2^31 for
// K <= 65536, is shifted once at the end, exactly. Per 128 bytes (256 weights): 2 loads, 4 AND, 2 broadcasts,
// 4 vpdpbusd, 2 prefetches.
static inline void nibble_sums_of_one(const std::uint8_t* plane, std::int64_t steps, const std::int8_t* codes,
                                      std::int32_t column_sum, std::int32_t* sums) {
    const __m512i low = _mm512_set1_epi8(0x0F), high = _mm512_set1_epi8(static_cast<char>(0xF0));
    __m512i once[2], sixteenfold[2];
    for (int half = 0; half < 2; ++half) once[half] = sixteenfold[half] = _mm512_setzero_si512();
    for (std::int64_t step = 0; step < steps; ++step, plane += 128, codes += 8) {
        const __m512i first = head_input(codes), second = head_input(codes + 4);
        for (int half = 0; half < 2; ++half) {
            _mm_prefetch(reinterpret_cast<const char*>(plane + 4096 + half * 64), _MM_HINT_T0);
            const __m512i a = _mm512_loadu_si512(plane + half * 64);
            once[half] = _mm512_dpbusd_epi32(once[half], _mm512_and_si512(a, low), first);
            sixteenfold[half] = _mm512_dpbusd_epi32(sixteenfold[half], _mm512_and_si512(a, high), second);
        }
    }
    const __m512i shift = _mm512_set1_epi32(NibbleSource::offset * column_sum);
    for (int half = 0; half < 2; ++half) {
        const __m512i sum = _mm512_add_epi32(once[half], _mm512_srai_epi32(sixteenfold[half], 4));
        _mm512_storeu_si512(sums + 16 * half, _mm512_sub_epi32(sum, shift));
    }
}

template <int T, int rows = group_rows>
static inline void pair_sums(const std::uint8_t* high, const std::uint8_t* low, std::int64_t steps,
                             const std::int8_t* quads, std::int64_t quad_stride,
                             const std::int32_t* column_sums, std::int32_t (*sums)[group_rows]) {
    head_sums<T, rows>(PairSource{high, low}, steps, quads, quad_stride, column_sums, sums);
}

}  // namespace tritwise::TRITWISE_ISA
