// Integer products of the head with vpmaddubsw or vpdpbusd; head_matrices.hpp draws the planes. A ymm holds 8 rows.
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
static inline __m256i nibble_pairs(__m256i sums) { return vnni ? sums : head_pairs(sums); }

// A pair is at most 2 * 15 * 128 = 3840, so the int16 sums of 4 steps, 8 pairs, are at most 30720: no saturation, and
// one vpmaddwd widens them. vpdpbusd adds in int32, so there it is one piece of all steps.
constexpr std::int64_t nibble_steps = vnni ? std::int64_t{1} << 40 : 4;

static inline __m256i low_nibbles(__m256i a) { return _mm256_and_si256(a, _mm256_set1_epi8(0x0F)); }
static inline __m256i high_nibbles(__m256i a) { return low_nibbles(_mm256_srli_epi16(a, 4)); }

// The empty statement keeps each sum in its register: GCC 12 would add products to one another and run out.
static inline __m256i plus_products(__m256i pairs, __m256i weights, __m256i input) {
    if constexpr (vnni) return dot(pairs, weights, input);
    pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(weights, input));
    asm("" : "+x"(pairs));
    return pairs;
}

// C columns of a quad by the 16 rows at `plane`. Per 64 bytes (128 weights): 2 loads, 2 shifts, 4 AND, and a
// column 2 broadcasts, 4 vpmaddubsw, 4 adds; every fourth time 2 vpmaddwd and 2 adds a column. Or 4 vpdpbusd.
template <int C>
static inline void nibble_tile(const std::uint8_t* plane, std::int64_t steps, const std::int8_t* x,
                               const std::int32_t* column_sums, std::int32_t (*sums)[group_rows], int row) {
    __m256i acc[C][2] = {};
    for (std::int64_t begin = 0; begin < steps; begin += nibble_steps) {
        __m256i pairs[C][2] = {};
        const std::int64_t end = begin + nibble_steps < steps ? begin + nibble_steps : steps;
        for (std::int64_t step = begin; step < end; ++step, x += 32) {
            const std::uint8_t* p = plane + step * 128;
            _mm_prefetch(reinterpret_cast<const char*>(p + 4096), _MM_HINT_T0);
            const __m256i a = head_plane(p), b = head_plane(p + 32);
            const __m256i a0 = low_nibbles(a), b0 = low_nibbles(b), a1 = high_nibbles(a),
                          b1 = high_nibbles(b);
#pragma GCC unroll 4
            for (int t = 0; t < C; ++t) {
                const __m256i first = head_input(x + 4 * t);
                pairs[t][0] = plus_products(pairs[t][0], a0, first);
                pairs[t][1] = plus_products(pairs[t][1], b0, first);
                const __m256i second = head_input(x + 4 * t + 16);
                pairs[t][0] = plus_products(pairs[t][0], a1, second);
                pairs[t][1] = plus_products(pairs[t][1], b1, second);
            }
        }
#pragma GCC unroll 4
        for (int t = 0; t < C; ++t)
            for (int i = 0; i < 2; ++i) acc[t][i] = _mm256_add_epi32(acc[t][i], nibble_pairs(pairs[t][i]));
    }
#pragma GCC unroll 4
    for (int t = 0; t < C; ++t)
        for (int i = 0; i < 2; ++i)
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums[t] + row + 8 * i),
                                _mm256_sub_epi32(acc[t][i], _mm256_set1_epi32(8 * column_sums[t])));
}

template <int T>
static inline void nibble_sums(const std::uint8_t* plane, std::int64_t steps, const std::int8_t* quads,
                               std::int64_t quad_stride, const std::int32_t* column_sums,
                               std::int32_t (*sums)[group_rows]) {
    constexpr int C = T < quad ? T : quad;
    for (int t = 0; t < T; t += C)
        for (int row = 0; row < group_rows; row += 16)
            nibble_tile<C>(plane + 4 * row, steps, quads + t / quad * quad_stride, column_sums + t, sums + t,
                           row);
}

// Per 128 bytes (256 weights): 4 loads, 4 shifts, 8 AND, 2 broadcasts, 8 vpmaddubsw, 8 adds, 2 prefetches;
// every fourth time 4 vpmaddwd and 4 adds. Or 8 vpdpbusd.
static inline void nibble_sums_of_one(const std::uint8_t* plane, std::int64_t steps, const std::int8_t* codes,
                                      std::int32_t column_sum, std::int32_t* sums) {
    __m256i acc[4] = {};
    for (std::int64_t begin = 0; begin < steps; begin += nibble_steps) {
        __m256i pairs[4] = {};
        const std::int64_t end = begin + nibble_steps < steps ? begin + nibble_steps : steps;
        for (std::int64_t step = begin; step < end; ++step, codes += 8) {
            const std::uint8_t* p = plane + step * 128;
            _mm_prefetch(reinterpret_cast<const char*>(p + 4096), _MM_HINT_T0);
            _mm_prefetch(reinterpret_cast<const char*>(p + 4096 + 64), _MM_HINT_T0);
            const __m256i first = head_input(codes), second = head_input(codes + 4);
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                const __m256i a = head_plane(p + 32 * i);
                pairs[i] =
                    plus_products(plus_products(pairs[i], low_nibbles(a), first), high_nibbles(a), second);
            }
        }
        for (int i = 0; i < 4; ++i) acc[i] = _mm256_add_epi32(acc[i], nibble_pairs(pairs[i]));
    }
    for (int i = 0; i < 4; ++i)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + 8 * i),
                            _mm256_sub_epi32(acc[i], _mm256_set1_epi32(8 * column_sum)));
}

// With |code| <= 127 unsigned and x carrying the sign of the code, a pair is at most 2 * 127 * 127 = 32258:
// no saturation. Per 2 x 32 bytes (64 weights): 2 loads, 2 shifts, 4 logic, 2 XOR, 2 abs, and a column 2
// signs, 2 vpmaddubsw, 2 vpmaddwd, 2 adds. Or, with code + 128 as it is, 2 vpdpbusd.
template <int T, int rows = group_rows>
static inline void pair_sums(const std::uint8_t* high, const std::uint8_t* low, std::int64_t steps,
                             const std::int8_t* quads, std::int64_t quad_stride,
                             const std::int32_t* column_sums, std::int32_t (*sums)[group_rows]) {
    const __m256i mask = _mm256_set1_epi8(0x0F), flip = _mm256_set1_epi8(static_cast<char>(0x80));
    for (int t = 0; t < T; t += 2) {
        const std::int8_t* x = quads + t / 4 * quad_stride + t % 4 * 4;
        __m256i acc[2][rows / 8] = {};
        for (std::int64_t step = 0; step < steps; ++step, x += 32) {
            for (int i = 0; i < rows / 8; ++i) {
                const __m256i a = head_plane(high + step * 128 + 32 * i),
                              b = head_plane(low + step * 128 + 32 * i);
                for (int quarter = 0; quarter < 2; ++quarter) {
                    const __m256i upper = quarter ? a : _mm256_slli_epi16(a, 4),
                                  lower = quarter ? _mm256_srli_epi16(b, 4) : b;
                    const __m256i bytes = _mm256_or_si256(_mm256_andnot_si256(mask, upper),
                                                          _mm256_and_si256(mask, lower));
                    const __m256i code = _mm256_xor_si256(bytes, flip), size = _mm256_abs_epi8(code);
                    for (int column = 0; column < 2; ++column) {
                        const __m256i input = head_input(x + 16 * quarter + 4 * column);
                        if constexpr (vnni) {
                            acc[column][i] = dot(acc[column][i], bytes, input);
                            continue;
                        }
                        acc[column][i] = _mm256_add_epi32(
                            acc[column][i],
                            head_pairs(_mm256_maddubs_epi16(size, _mm256_sign_epi8(input, code))));
                    }
                }
            }
        }
        for (int column = 0; column < 2; ++column)
            for (int i = 0; i < rows / 8; ++i)
                _mm256_storeu_si256(
                    reinterpret_cast<__m256i*>(sums[t + column] + 8 * i),
                    _mm256_sub_epi32(acc[column][i], _mm256_set1_epi32(vnni ? 128 * column_sums[t + column] : 0)));
    }
}

}  // namespace tritwise::TRITWISE_ISA
