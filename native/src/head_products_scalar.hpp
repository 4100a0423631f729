// Integer products of the head for any processor; head_matrices.hpp draws the planes.
#pragma once

#include "kernels.hpp"

namespace tritwise::TRITWISE_ISA {

// Calls use(row, input, byte offset, shift) for every nibble of the first `rows` of a group.
template <class Use>
static inline void each_nibble(int rows, std::int64_t steps, Use&& use) {
    for (std::int64_t step = 0; step < steps; ++step)
        for (int row = 0; row < rows; ++row)
            for (int j = 0; j < 8; ++j) use(row, 8 * step + j, step * 128 + row * 4 + j % 4, j / 4 * 4);
}

// The code of column t for input k in the quad layout.
static inline std::int32_t quad_code(const std::int8_t* quads, std::int64_t quad_stride, int t, std::int64_t k) {
    return quads[t / 4 * quad_stride + k / 4 * 16 + t % 4 * 4 + k % 4];
}

template <int T>
static inline void nibble_sums(const std::uint8_t* plane, std::int64_t steps, const std::int8_t* quads,
                               std::int64_t quad_stride, const std::int32_t*, std::int32_t (*sums)[group_rows]) {
    for (int t = 0; t < T; ++t) {
        for (int row = 0; row < group_rows; ++row) sums[t][row] = 0;
        each_nibble(group_rows, steps, [&](int row, std::int64_t k, std::int64_t at, int shift) {
            sums[t][row] += ((plane[at] >> shift & 15) - 8) * quad_code(quads, quad_stride, t, k);
        });
    }
}

static inline void nibble_sums_of_one(const std::uint8_t* plane, std::int64_t steps, const std::int8_t* codes,
                                      std::int32_t, std::int32_t* sums) {
    for (int row = 0; row < group_rows; ++row) sums[row] = 0;
    each_nibble(group_rows, steps, [&](int row, std::int64_t k, std::int64_t at, int shift) {
        sums[row] += ((plane[at] >> shift & 15) - 8) * codes[k];
    });
}

template <int T, int rows = group_rows>
static inline void pair_sums(const std::uint8_t* high, const std::uint8_t* low, std::int64_t steps,
                             const std::int8_t* quads, std::int64_t quad_stride, const std::int32_t*,
                             std::int32_t (*sums)[group_rows]) {
    for (int t = 0; t < T; ++t) {
        for (int row = 0; row < rows; ++row) sums[t][row] = 0;
        each_nibble(rows, steps, [&](int row, std::int64_t k, std::int64_t at, int shift) {
            const std::int32_t code = 16 * (high[at] >> shift & 15) + (low[at] >> shift & 15) - 128;
            sums[t][row] += code * quad_code(quads, quad_stride, t, k);
        });
    }
}

}  // namespace tritwise::TRITWISE_ISA
