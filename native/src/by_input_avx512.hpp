// One token times a matrix that lies by input, with vpdpbusd.
#pragma once

#include "by_input_runs.hpp"
#include "by_input_x86.hpp"

namespace tritwise::TRITWISE_ISA {

constexpr int inputs_at_once = 64;

// Four inputs are interleaved, so that a dword holds them for one row, and 64 bytes are two slabs: acc[f][q] has the
// rows 32 f + 8 q .. + 7 of both. Field f is left at 4^f times its value: 64 inputs are at most 64 * 128 * 128.
// Per 4 inputs by two slabs (1024 weights): 4 loads, 8 interleavings, 16 AND, 16 vpdpbusd, 1 broadcast.
static inline void add_four(const std::uint8_t* const* column, std::int64_t at, std::int32_t codes,
                            __m512i (&acc)[4][4]) {
    const __m512i x = _mm512_set1_epi32(codes);
    const __m512i a = _mm512_loadu_si512(column[0] + at), b = _mm512_loadu_si512(column[1] + at),
                  c = _mm512_loadu_si512(column[2] + at), d = _mm512_loadu_si512(column[3] + at);
    const __m512i ab[2] = {_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b)};
    const __m512i cd[2] = {_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d)};
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) {
        const __m512i rows = q % 2 ? _mm512_unpackhi_epi16(ab[q / 2], cd[q / 2])
                                   : _mm512_unpacklo_epi16(ab[q / 2], cd[q / 2]);
#pragma GCC unroll 4
        for (int f = 0; f < 4; ++f)
            acc[f][q] = _mm512_dpbusd_epi32(
                acc[f][q], _mm512_and_si512(rows, _mm512_set1_epi8(static_cast<char>(0x03 << 2 * f))), x);
    }
}

static inline void add_to(std::int32_t* sums, __m256i eight) {
    auto* to = reinterpret_cast<__m256i*>(sums);
    _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), eight));
}

static void add_inputs(const TernaryMatrix& w, const std::int32_t* inputs, int count, const std::int8_t* codes,
                       std::int32_t* sums) {
    for_input_runs<inputs_at_once, 4>(w, inputs, count, codes, [&](const auto& run, auto&& fetch) {
        for (std::int64_t at = 0; at < input_bytes(w.rows); at += 2 * slab_bytes) {
            fetch(at);
            __m512i acc[4][4];
#pragma GCC unroll 4
            for (int f = 0; f < 4; ++f)
#pragma GCC unroll 4
                for (int q = 0; q < 4; ++q) acc[f][q] = _mm512_setzero_si512();
            for (int i = 0; i < run.n; i += 4) add_four(run.at + i, at, run.codes[i / 4], acc);
#pragma GCC unroll 4
            for (int f = 0; f < 4; ++f) {
#pragma GCC unroll 4
                for (int q = 0; q < 4; ++q) {
                    const __m512i sum = _mm512_srai_epi32(acc[f][q], 2 * f);
                    std::int32_t* to = sums + at * 4 + 32 * f + 8 * q;
                    add_to(to, _mm512_castsi512_si256(sum));
                    add_to(to + slab_rows, _mm512_extracti64x4_epi64(sum, 1));
                }
            }
        }
    });
}

}  // namespace tritwise::TRITWISE_ISA
