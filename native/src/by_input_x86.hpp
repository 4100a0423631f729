// A matrix that lies by input (kernels.hpp), taken apart for many tokens. Included by every x86 kernel file: 32 bytes
// are a slab, so wider registers have nothing to add here.
#pragma once

#include <immintrin.h>

#include "kernels.hpp"

namespace tritwise::TRITWISE_ISA {

// Inputs [first, first + count) of a group of 32 rows to bytes [count/4][32 rows][4]; both are multiples of 4. The rows
// lie in order, or, `by_halves`, as [4 vectors] of the rows 4i .. 4i + 3 and 16 + 4i .. 16 + 4i + 3. Per 4 inputs: 4
// loads, 4 shifts, 4 AND, 8 interleavings, 4 stores, 4 prefetches; by halves 4 permutations.
template <bool by_halves>
static inline void unpack_inputs(const TernaryMatrix& w, int group, std::int64_t first, std::int64_t count,
                                 std::uint8_t* panel) {
    constexpr int groups = slab_rows / group_rows, ahead = 32;  // inputs; each is another line of the cache
    const std::int64_t stride = input_bytes(w.rows);
    const std::uint8_t* p = w.packed + first * stride + group / groups * slab_bytes;
    const __m128i shift = _mm_cvtsi32_si128(2 * (group % groups));
    const __m256i mask = _mm256_set1_epi8(0x03);
    const auto field = [&](int input) {
        _mm_prefetch(reinterpret_cast<const char*>(p + (input + ahead) * stride), _MM_HINT_T0);
        const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + input * stride));
        return _mm256_and_si256(_mm256_srl_epi16(bytes, shift), mask);
    };
    for (std::int64_t i = 0; i < count; i += 4, p += 4 * stride, panel += 128) {
        const __m256i a = field(0), b = field(1), c = field(2), d = field(3);
        const __m256i ab[2] = {_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b)};
        const __m256i cd[2] = {_mm256_unpacklo_epi8(c, d), _mm256_unpackhi_epi8(c, d)};
        const __m256i rows[4] = {_mm256_unpacklo_epi16(ab[0], cd[0]), _mm256_unpackhi_epi16(ab[0], cd[0]),
                                 _mm256_unpacklo_epi16(ab[1], cd[1]), _mm256_unpackhi_epi16(ab[1], cd[1])};
        auto* to = reinterpret_cast<__m256i*>(panel);
        for (int i = 0; i < 4; ++i) {
            if constexpr (!by_halves) {
                _mm256_storeu_si256(to + i, rows[i]);
            } else if (i % 2) {
                _mm256_storeu_si256(to + i, _mm256_permute2x128_si256(rows[i / 2], rows[i / 2 + 2], 0x31));
            } else {
                _mm256_storeu_si256(to + i, _mm256_permute2x128_si256(rows[i / 2], rows[i / 2 + 2], 0x20));
            }
        }
    }
}

}  // namespace tritwise::TRITWISE_ISA
