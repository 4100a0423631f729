// One token times a matrix that lies by input, with vpmaddubsw.
#pragma once

#include "by_input_runs.hpp"
#include "by_input_x86.hpp"

namespace tritwise::TRITWISE_ISA {

// Two inputs are interleaved, so that vpmaddubsw adds their products for 16 rows. At most 16 pairs go into an int16:
// fields 0 and 2 count once, 16 * 2 * 2 * 128 = 8192; fields 1 and 3 stay at four times their value, at most
// 16 * 2 * 8 * 127 = 32512 and at least -32768, and are shifted down in the end, exactly.
constexpr int inputs_at_once = 32;

// Two inputs by a slab (256 weights): 2 loads, 2 interleavings, 2 shifts, 8 AND, 8 vpmaddubsw, 8 adds, 1 broadcast.
static inline void add_pair(const std::uint8_t* a, const std::uint8_t* b, std::int32_t pair, __m256i (&acc)[8]) {
    const __m256i low = _mm256_set1_epi8(0x03), high = _mm256_set1_epi8(0x0C);
    const __m256i x = _mm256_set1_epi16(static_cast<short>(pair));
    const __m256i va = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a)),
                  vb = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b));
    const __m256i rows[2] = {_mm256_unpacklo_epi8(va, vb), _mm256_unpackhi_epi8(va, vb)};
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
        const __m256i upper = _mm256_srli_epi16(rows[half], 4);
        const __m256i fields[4] = {_mm256_and_si256(rows[half], low), _mm256_and_si256(rows[half], high),
                                   _mm256_and_si256(upper, low), _mm256_and_si256(upper, high)};
#pragma GCC unroll 4
        for (int f = 0; f < 4; ++f)
            acc[2 * f + half] = _mm256_add_epi16(acc[2 * f + half], _mm256_maddubs_epi16(fields[f], x));
    }
}

static inline void add_to(std::int32_t* sums, __m128i sixteen) {
    auto* to = reinterpret_cast<__m256i*>(sums);
    _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), _mm256_cvtepi16_epi32(sixteen)));
}

static void add_inputs(const TernaryMatrix& w, const std::int32_t* inputs, int count, const std::int8_t* codes,
                       std::int32_t* sums) {
    for_input_runs<inputs_at_once, 2>(w, inputs, count, codes, [&](const auto& run, auto&& fetch) {
        for (std::int64_t at = 0; at < input_bytes(w.rows); at += slab_bytes) {
            if (at % 64 == 0) fetch(at);
            __m256i acc[8];
#pragma GCC unroll 8
            for (int i = 0; i < 8; ++i) acc[i] = _mm256_setzero_si256();
            for (int i = 0; i < run.n; i += 2) add_pair(run.at[i] + at, run.at[i + 1] + at, run.codes[i / 2], acc);
            std::int32_t* to = sums + at * 4;
#pragma GCC unroll 8
            for (int i = 0; i < 8; ++i) {
                // slab_row: the 16-bit lanes are rows 0-3, 8-11, 4-7, 12-15.
                __m256i sum = _mm256_permute4x64_epi64(acc[i], 0xD8);
                if (i / 2 % 2) sum = _mm256_srai_epi16(sum, 2);
                add_to(to + 16 * i, _mm256_castsi256_si128(sum));
                add_to(to + 16 * i + 8, _mm256_extracti128_si256(sum, 1));
            }
        }
    });
}

}  // namespace tritwise::TRITWISE_ISA
