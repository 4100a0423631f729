// A matrix that lies by input (kernels.hpp), with sdot: for one token and some of its inputs, and taken apart for many.
#pragma once

#include <arm_neon.h>

#include "kernels.hpp"

namespace tritwise::TRITWISE_ISA {

// Field 1 is left at four times its value.
constexpr int sum_place(int row) { return row; }
constexpr int sum_shift(int row) { return row % slab_rows / 32 == 1 ? 2 : 0; }

}  // namespace tritwise::TRITWISE_ISA

#include "by_input_groups.hpp"
#include "by_input_list.hpp"

namespace tritwise::TRITWISE_ISA {

// Four inputs of 16 bytes of a slab, interleaved: rows[q] holds the rows slab_row(4 q) .. + 3, four bytes each.
static inline void interleave(uint8x16_t a, uint8x16_t b, uint8x16_t c, uint8x16_t d, uint8x16_t (&rows)[4]) {
    const uint16x8_t ab[2] = {vreinterpretq_u16_u8(vzip1q_u8(a, b)), vreinterpretq_u16_u8(vzip2q_u8(a, b))};
    const uint16x8_t cd[2] = {vreinterpretq_u16_u8(vzip1q_u8(c, d)), vreinterpretq_u16_u8(vzip2q_u8(c, d))};
    for (int half = 0; half < 2; ++half) {
        rows[2 * half] = vreinterpretq_u8_u16(vzip1q_u16(ab[half], cd[half]));
        rows[2 * half + 1] = vreinterpretq_u8_u16(vzip2q_u16(ab[half], cd[half]));
    }
}

// The inputs are read from beginning to end, as they lie; the sums, 4 bytes a row, stay in the first-level cache.
// Per 8 inputs by 16 bytes (512 weights): 8 loads, 16 interleavings, 24 AND, 16 shifts, 32 sdot, 16 loads and stores of
// sums, 2 prefetches.
static void add_inputs(const TernaryMatrix& w, const std::int32_t* inputs, int count, const std::int8_t* codes,
                       std::int32_t* sums) {
    const uint8x16_t m0 = vdupq_n_u8(0x03), m1 = vdupq_n_u8(0x0C);
    for_inputs(w, inputs, count, codes, [&](const Inputs& eight) {
        const int8x16_t x[2] = {vreinterpretq_s8_s32(vdupq_n_s32(eight.codes[0])),
                                vreinterpretq_s8_s32(vdupq_n_s32(eight.codes[1]))};
        for (std::int64_t at = 0; at < input_bytes(w.rows); at += slab_bytes / 2) {
            if (at % 64 == 0) eight.fetch(at);
            uint8x16_t rows[2][4];
            for (int i = 0; i < 2; ++i) {
                const std::uint8_t* const* column = eight.at + 4 * i;
                interleave(vld1q_u8(column[0] + at), vld1q_u8(column[1] + at), vld1q_u8(column[2] + at),
                           vld1q_u8(column[3] + at), rows[i]);
            }
            std::int32_t* to = sums + at / slab_bytes * slab_rows;
            const int first = static_cast<int>(at % slab_bytes);
#pragma GCC unroll 4
            for (int q = 0; q < 4; ++q) {
                uint8x16_t fields[4][2];
#pragma GCC unroll 2
                for (int i = 0; i < 2; ++i) {
                    const uint8x16_t four = rows[i][q];
                    fields[0][i] = vandq_u8(four, m0);
                    fields[1][i] = vandq_u8(four, m1);
                    fields[2][i] = vandq_u8(vshrq_n_u8(four, 4), m0);
                    fields[3][i] = vshrq_n_u8(four, 6);
                }
#pragma GCC unroll 4
                for (int f = 0; f < 4; ++f) {
                    std::int32_t* row = to + 32 * f + slab_row(first + 4 * q);
                    int32x4_t sum = vld1q_s32(row);
                    sum = vdotq_s32(sum, vreinterpretq_s8_u8(fields[f][0]), x[0]);
                    sum = vdotq_s32(sum, vreinterpretq_s8_u8(fields[f][1]), x[1]);
                    vst1q_s32(row, sum);
                }
            }
        }
    });
}

// Inputs [0, k) of a group of 32 rows to bytes [k/4][32 rows][4].
static void unpack_inputs(const TernaryMatrix& w, int group, std::uint8_t* panel) {
    constexpr int groups = slab_rows / group_rows;
    const std::int64_t stride = input_bytes(w.rows);
    const std::uint8_t* p = w.packed + group / groups * slab_bytes;
    const int8x16_t shift = vdupq_n_s8(static_cast<std::int8_t>(-2 * (group % groups)));  // to the right
    const uint8x16_t mask = vdupq_n_u8(0x03);
    for (std::int64_t i = 0; i < w.k; i += 4, p += 4 * stride, panel += 128) {
        for (int first = 0; first < slab_bytes; first += 16) {
            const auto field = [&](int input) {
                return vandq_u8(vshlq_u8(vld1q_u8(p + input * stride + first), shift), mask);
            };
            uint8x16_t rows[4];
            interleave(field(0), field(1), field(2), field(3), rows);
            for (int q = 0; q < 4; ++q) vst1q_u8(panel + 4 * slab_row(first + 4 * q), rows[q]);
        }
    }
}

}  // namespace tritwise::TRITWISE_ISA
