// Integer products of the head with sdot; head_matrices.hpp draws the planes. A q register holds 4 rows, 8 a
// group.
#pragma once

#include <arm_neon.h>

#include "kernels.hpp"

namespace tritwise::TRITWISE_ISA {

// The instruction holds the lane, so it is chosen where loops are unrolled.
static inline int32x4_t dot(int32x4_t acc, int8x16_t w, int8x16_t x, int lane) {
    switch (lane) {
        case 0: return vdotq_laneq_s32(acc, w, x, 0);
        case 1: return vdotq_laneq_s32(acc, w, x, 1);
        case 2: return vdotq_laneq_s32(acc, w, x, 2);
        default: return vdotq_laneq_s32(acc, w, x, 3);
    }
}

// What is read of the planes at a place: the codes of inputs k..k+3 and k+4..k+7 of four rows, as signed
// bytes. Nibbles without their 8, which is taken off at the end.
struct NibblePlane {
    const std::uint8_t* plane;
    void open(std::int64_t at, int8x16_t& first, int8x16_t& second) const {
        const uint8x16_t a = vld1q_u8(plane + at);
        first = vreinterpretq_s8_u8(vandq_u8(a, vdupq_n_u8(0x0F)));
        second = vreinterpretq_s8_u8(vshrq_n_u8(a, 4));
    }
};

// Whole codes. Flipping the upper bit of both nibbles of the high plane turns code + 128 into the code.
struct BothPlanes {
    const std::uint8_t *high, *low;
    void open(std::int64_t at, int8x16_t& first, int8x16_t& second) const {
        const uint8x16_t a = veorq_u8(vld1q_u8(high + at), vdupq_n_u8(0x88)), b = vld1q_u8(low + at);
        first = vreinterpretq_s8_u8(vsliq_n_u8(b, a, 4));
        second = vreinterpretq_s8_u8(vsriq_n_u8(a, b, 4));
    }
};

// T columns by 16 or 32 rows, 4R at a time: at most 24 accumulators. |sum| <= 128 * 127 * K < 2^31 for K <=
// 65536. Per 16 R bytes of a plane (128 R weights) a plane's load; 2 operations to open a nibble plane and 3
// for both; with one token 2 loads of 8 codes, else T/2 loads of 16; 2 R T sdot.
template <int T, int rows, class Planes>
static inline void head_sums(const Planes& planes, std::int64_t steps, const std::int8_t* quads,
                             std::int64_t quad_stride, std::int32_t (*sums)[group_rows]) {
    constexpr int R = T == 2 ? rows / 4 : T == 4 ? 4 : 2;
    for (int row = 0; row < rows; row += 4 * R) {
        int32x4_t acc[R][T];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 12
            for (int t = 0; t < T; ++t) acc[r][t] = vdupq_n_s32(0);
        const std::int8_t* x = quads;
        for (std::int64_t step = 0; step < steps; ++step, x += 32) {
            int8x16_t first[R], second[R];
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) planes.open(step * 128 + row * 4 + 16 * r, first[r], second[r]);
            if constexpr (T == 2) {  // half a quad: the other half may lie beyond the end
                const int8x8_t a = vld1_s8(x), b = vld1_s8(x + 16);
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) {
                    acc[r][0] = vdotq_lane_s32(vdotq_lane_s32(acc[r][0], first[r], a, 0), second[r], b, 0);
                    acc[r][1] = vdotq_lane_s32(vdotq_lane_s32(acc[r][1], first[r], a, 1), second[r], b, 1);
                }
            } else {
#pragma GCC unroll 3
                for (int q = 0; q < T / 4; ++q) {
                    const int8x16_t a = vld1q_s8(x + q * quad_stride), b = vld1q_s8(x + q * quad_stride + 16);
#pragma GCC unroll 8
                    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
                        for (int t = 0; t < 4; ++t)
                            acc[r][4 * q + t] = dot(dot(acc[r][4 * q + t], first[r], a, t), second[r], b, t);
                }
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 12
            for (int t = 0; t < T; ++t) vst1q_s32(sums[t] + row + 4 * r, acc[r][t]);
    }
}

template <int T>
static inline void nibble_sums(const std::uint8_t* plane, std::int64_t steps, const std::int8_t* quads,
                               std::int64_t quad_stride, const std::int32_t* column_sums,
                               std::int32_t (*sums)[group_rows]) {
    head_sums<T, group_rows>(NibblePlane{plane}, steps, quads, quad_stride, sums);
    for (int t = 0; t < T; ++t)
        for (int row = 0; row < group_rows; ++row) sums[t][row] -= 8 * column_sums[t];
}

// Two steps at a time: `steps` is even. Per 128 bytes (256 weights): 8 loads of them and half a load of
// codes, 8 AND, 8 shifts, 16 sdot, 2 prefetches.
static inline void nibble_sums_of_one(const std::uint8_t* plane, std::int64_t steps, const std::int8_t* codes,
                                      std::int32_t column_sum, std::int32_t* sums) {
    int32x4_t acc[8];
#pragma GCC unroll 8
    for (int r = 0; r < 8; ++r) acc[r] = vdupq_n_s32(0);
    for (std::int64_t step = 0; step < steps; step += 2, codes += 16) {
        const int8x16_t input = vld1q_s8(codes);
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
            const NibblePlane at{plane + (step + i) * 128};
            __builtin_prefetch(at.plane + 4096);
            __builtin_prefetch(at.plane + 4096 + 64);
#pragma GCC unroll 8
            for (int r = 0; r < 8; ++r) {
                int8x16_t first, second;
                at.open(16 * r, first, second);
                acc[r] = dot(dot(acc[r], first, input, 2 * i), second, input, 2 * i + 1);
            }
        }
    }
    const int32x4_t shift = vdupq_n_s32(8 * column_sum);
#pragma GCC unroll 8
    for (int r = 0; r < 8; ++r) vst1q_s32(sums + 4 * r, vsubq_s32(acc[r], shift));
}

template <int T, int rows = group_rows>
static inline void pair_sums(const std::uint8_t* high, const std::uint8_t* low, std::int64_t steps,
                             const std::int8_t* quads, std::int64_t quad_stride, const std::int32_t*,
                             std::int32_t (*sums)[group_rows]) {
    head_sums<T, rows>(BothPlanes{high, low}, steps, quads, quad_stride, sums);
}

}  // namespace tritwise::TRITWISE_ISA
