// One token times a matrix that lies by input, with vpmaddubsw or vpdpbusd.
#pragma once

#include <immintrin.h>

#include "kernels.hpp"

namespace tritwise::TRITWISE_ISA {

// Fields 1 and 3 are left at four times their value.
constexpr int sum_place(int row) { return row; }
constexpr int sum_shift(int row) { return row % slab_rows / 32 % 2 * 2; }

}  // namespace tritwise::TRITWISE_ISA

#include "by_input_groups.hpp"
#include "by_input_x86.hpp"

namespace tritwise::TRITWISE_ISA {

// Four inputs of a slab, interleaved: a dword of rows[q] holds them for one of the rows 8 q .. + 7.
static inline void interleave(const std::uint8_t* const* column, std::int64_t at, __m256i (&rows)[4]) {
    const auto load = [&](int i) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(column[i] + at)); };
    const __m256i a = load(0), b = load(1), c = load(2), d = load(3);
    const __m256i ab[2] = {_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b)};
    const __m256i cd[2] = {_mm256_unpacklo_epi8(c, d), _mm256_unpackhi_epi8(c, d)};
    for (int half = 0; half < 2; ++half) {
        rows[2 * half] = _mm256_unpacklo_epi16(ab[half], cd[half]);
        rows[2 * half + 1] = _mm256_unpackhi_epi16(ab[half], cd[half]);
    }
}

// The places of the bits that are set in a byte, from the lowest on.
struct BitPlaces {
    std::uint8_t of[256][8];
};
constexpr BitPlaces make_bit_places() {
    BitPlaces places{};
    for (int byte = 0; byte < 256; ++byte)
        for (int bit = 0, count = 0; bit < 8; ++bit)
            if (byte >> bit & 1) places.of[byte][count++] = static_cast<std::uint8_t>(bit);
    return places;
}
static constexpr BitPlaces bit_places = make_bit_places();

// Per 8 codes: 1 comparison, 1 look-up, 1 addition, 1 store.
static int list_inputs(const std::int8_t* codes, std::int64_t k, std::int32_t* inputs) {
    int count = 0;
    for (std::int64_t i = 0; i < k; i += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, codes + i, static_cast<std::size_t>(k - i < 8 ? k - i : 8));
        const __m128i zero = _mm_cmpeq_epi8(_mm_cvtsi64_si128(static_cast<long long>(word)), _mm_setzero_si128());
        const int used = ~_mm_movemask_epi8(zero) & 0xFF;
        const __m128i places = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bit_places.of[used]));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(inputs + count),
                            _mm256_add_epi32(_mm256_cvtepu8_epi32(places), _mm256_set1_epi32(static_cast<int>(i))));
        count += __builtin_popcount(static_cast<unsigned>(used));
    }
    return count;
}

// The inputs are read from beginning to end, as they lie; the sums, 4 bytes a row, stay in the first-level cache.
// Per 8 inputs by 32 bytes (1024 weights): 8 loads, 16 interleavings, 8 shifts, 32 AND, 32 vpmaddubsw, 16 vpmaddwd, 32
// adds, 16 loads and stores of sums, 4 prefetches; or 32 vpdpbusd in place of what multiplies and adds. Two products of
// two inputs stay inside int16: 4 * 8 * 128 = 4096.
static void add_inputs(const TernaryMatrix& w, const std::int32_t* inputs, int count, const std::int8_t* codes,
                       std::int32_t* sums) {
    const __m256i low = _mm256_set1_epi8(0x03), high = _mm256_set1_epi8(0x0C), ones = _mm256_set1_epi16(1);
    for_inputs(w, inputs, count, codes, [&](const Inputs& eight) {
        const __m256i x[2] = {_mm256_set1_epi32(eight.codes[0]), _mm256_set1_epi32(eight.codes[1])};
        for (std::int64_t at = 0; at < input_bytes(w.rows); at += slab_bytes) {
            if (at % 64 == 0) eight.fetch(at);
            __m256i rows[2][4];
            interleave(eight.at, at, rows[0]);
            interleave(eight.at + 4, at, rows[1]);
#pragma GCC unroll 4
            for (int q = 0; q < 4; ++q) {
                __m256i sum[4];  // of pairs in int16, or with vpdpbusd in int32 with those before
                __m256i* to[4];
#pragma GCC unroll 4
                for (int f = 0; f < 4; ++f) {
                    to[f] = reinterpret_cast<__m256i*>(sums + at * 4 + 32 * f + 8 * q);
                    if constexpr (vnni) sum[f] = _mm256_loadu_si256(to[f]);
                }
#pragma GCC unroll 2
                for (int i = 0; i < 2; ++i) {
                    const __m256i upper = _mm256_srli_epi16(rows[i][q], 4);
                    const __m256i fields[4] = {_mm256_and_si256(rows[i][q], low), _mm256_and_si256(rows[i][q], high),
                                               _mm256_and_si256(upper, low), _mm256_and_si256(upper, high)};
#pragma GCC unroll 4
                    for (int f = 0; f < 4; ++f) {
                        if constexpr (vnni) {
                            sum[f] = dot(sum[f], fields[f], x[i]);
                            continue;
                        }
                        const __m256i products = _mm256_maddubs_epi16(fields[f], x[i]);
                        sum[f] = i ? _mm256_add_epi16(sum[f], products) : products;
                    }
                }
#pragma GCC unroll 4
                for (int f = 0; f < 4; ++f) {
                    if constexpr (!vnni)
                        sum[f] = _mm256_add_epi32(_mm256_loadu_si256(to[f]), _mm256_madd_epi16(sum[f], ones));
                    _mm256_storeu_si256(to[f], sum[f]);
                }
            }
        }
    });
}

}  // namespace tritwise::TRITWISE_ISA
