// Integer products of the head with vpmaddubsw; head_matrices.hpp draws the planes. A ymm holds 8 rows.
#pragma once

#include <immintrin.h>

#include "kernels.hpp"

namespace tritwise::TRITWISE_ISA {

static inline __m256i head_plane(const std::uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

static inline __m256i head_input(const std::int8_t* p) {
    std::int32_t word;
    std::memcpy(&word, p, 4);
    return _mm256_set1_epi32(word);
}

static inline __m256i head_pairs(__m256i sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }

// A pair is at most 2 * 15 * 127 = 3810 and two of them 7620: no saturation.
// Per 32 bytes (64 weights): 1 load, 1 shift, 2 AND, and a column 2 vpmaddubsw, 2 adds, 1 vpmaddwd.
template <int T>
static inline void nibble_sums(const std::uint8_t* plane, std::int64_t steps, const std::int8_t* quads,
                               std::int64_t quad_stride, const std::int32_t* column_sums,
                               std::int32_t (*sums)[group_rows]) {
    const __m256i mask = _mm256_set1_epi8(0x0F);
    for (int t = 0; t < T; t += 2) {
        const std::int8_t* x = quads + t / 4 * quad_stride + t % 4 * 4;
        __m256i acc[2][4] = {};
        for (std::int64_t step = 0; step < steps; ++step, x += 32) {
            const __m256i x0 = head_input(x), x1 = head_input(x + 4), x2 = head_input(x + 16), x3 = head_input(x + 20);
            const std::uint8_t* p = plane + step * 128;
            _mm_prefetch(reinterpret_cast<const char*>(p + 4096), _MM_HINT_T0);
            _mm_prefetch(reinterpret_cast<const char*>(p + 4096 + 64), _MM_HINT_T0);
            for (int i = 0; i < 4; ++i) {
                const __m256i a = head_plane(p + 32 * i), first = _mm256_and_si256(a, mask),
                              second = _mm256_and_si256(_mm256_srli_epi16(a, 4), mask);
                acc[0][i] = _mm256_add_epi32(
                    acc[0][i], head_pairs(_mm256_add_epi16(_mm256_maddubs_epi16(first, x0),
                                                           _mm256_maddubs_epi16(second, x2))));
                acc[1][i] = _mm256_add_epi32(
                    acc[1][i], head_pairs(_mm256_add_epi16(_mm256_maddubs_epi16(first, x1),
                                                           _mm256_maddubs_epi16(second, x3))));
            }
        }
        for (int column = 0; column < 2; ++column) {
            const __m256i shift = _mm256_set1_epi32(8 * column_sums[t + column]);
            for (int i = 0; i < 4; ++i)
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums[t + column] + 8 * i),
                                    _mm256_sub_epi32(acc[column][i], shift));
        }
    }
}

// With |code| <= 127 unsigned and x carrying the sign of the code, a pair is at most 2 * 127 * 127 = 32258: no
// saturation. Per 2 x 32 bytes (64 weights): 2 loads, 2 shifts, 4 logic, 2 XOR, 2 abs, and a column 2 signs,
// 2 vpmaddubsw, 2 vpmaddwd, 2 adds.
template <int T>
static inline void pair_sums(const std::uint8_t* high, const std::uint8_t* low, std::int64_t steps,
                             const std::int8_t* quads, std::int64_t quad_stride, const std::int32_t*,
                             std::int32_t (*sums)[group_rows]) {
    const __m256i mask = _mm256_set1_epi8(0x0F), flip = _mm256_set1_epi8(static_cast<char>(0x80));
    for (int t = 0; t < T; t += 2) {
        const std::int8_t* x = quads + t / 4 * quad_stride + t % 4 * 4;
        __m256i acc[2][4] = {};
        for (std::int64_t step = 0; step < steps; ++step, x += 32) {
            for (int i = 0; i < 4; ++i) {
                const __m256i a = head_plane(high + step * 128 + 32 * i), b = head_plane(low + step * 128 + 32 * i);
                for (int quarter = 0; quarter < 2; ++quarter) {
                    const __m256i upper = quarter ? a : _mm256_slli_epi16(a, 4),
                                  lower = quarter ? _mm256_srli_epi16(b, 4) : b;
                    const __m256i bytes = _mm256_or_si256(_mm256_andnot_si256(mask, upper),
                                                          _mm256_and_si256(mask, lower));
                    const __m256i code = _mm256_xor_si256(bytes, flip), size = _mm256_abs_epi8(code);
                    for (int column = 0; column < 2; ++column) {
                        const __m256i input = head_input(x + 16 * quarter + 4 * column);
                        acc[column][i] = _mm256_add_epi32(
                            acc[column][i],
                            head_pairs(_mm256_maddubs_epi16(size, _mm256_sign_epi8(input, code))));
                    }
                }
            }
        }
        for (int column = 0; column < 2; ++column)
            for (int i = 0; i < 4; ++i)
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums[t + column] + 8 * i), acc[column][i]);
    }
}

}  // namespace tritwise::TRITWISE_ISA
