// One token times listed inputs of a matrix that lies by input (kernels.hpp), eight at a time. Included by every kernel
// file; before it, that says where a row's sum lies:
//
//     constexpr int sum_place(int row)     of a row of 256: four neighbours lie side by side, from a multiple of four on
//     constexpr int sum_shift(int row)     the sum is left at 2^shift times its value
#pragma once

#include <cstring>

#include "kernels.hpp"

namespace tritwise::TRITWISE_ISA {

constexpr int inputs_at_once = 8;
// An input is some hundred bytes behind one that is not read, so the hardware does not fetch it in time: it is asked for
// this many inputs ahead.
constexpr int inputs_ahead = 16;
constexpr int block_rows = 2 * slab_rows;  // input_bytes holds whole ones, 64 bytes each

// Eight listed inputs; what lacks of the last ones is there once more, times 0.
struct Inputs {
    const std::uint8_t* at[inputs_at_once];
    const std::uint8_t* ahead[inputs_at_once];
    std::int32_t codes[inputs_at_once / 4];  // a byte each, the first one lowest

    void fetch(std::int64_t byte) const {
        for (const std::uint8_t* p : ahead) __builtin_prefetch(p + byte);
    }
};

// Calls work(inputs) for the list, in its order.
template <class Work>
inline void for_inputs(const TernaryMatrix& w, const std::int32_t* inputs, int count, const std::int8_t* codes,
                       Work&& work) {
    const std::int64_t stride = input_bytes(w.rows);
    const auto of = [&](int i) { return inputs[i < count ? i : count - 1]; };
    if (count < 1) return;
    for (std::int64_t byte = 0; byte < stride; byte += 64)
        for (int i = 0; i < inputs_at_once; ++i) __builtin_prefetch(w.packed + of(i) * stride + byte);
    for (int begin = 0; begin < count; begin += inputs_at_once) {
        Inputs eight;
        std::int8_t bytes[inputs_at_once] = {};
        for (int i = 0; i < inputs_at_once; ++i) {
            const int input = of(begin + i);
            eight.at[i] = w.packed + input * stride;
            eight.ahead[i] = w.packed + of(begin + i + inputs_ahead) * stride;
            if (begin + i < count) bytes[i] = codes[input];
        }
        std::memcpy(eight.codes, bytes, sizeof bytes);
        work(eight);
    }
}

// y and acc of the token from the sums of `parts`, `stride` apart, which are zero again then.
static void collect_inputs(const TernaryMatrix& w, std::int32_t* sums, int parts, std::int64_t stride, float x_scale,
                           std::int32_t x_sum, float* y, std::int32_t* acc) {
    for (int first = 0; first < w.rows; first += block_rows, sums += block_rows) {
        std::int32_t rows[block_rows];
        for (int part = 1; part < parts; ++part) {
            std::int32_t* other = sums + part * stride;
            for (int i = 0; i < block_rows; ++i) sums[i] += other[i];
            std::memset(other, 0, sizeof rows);
        }
        for (int row = 0; row < block_rows; row += 4)
            for (int i = 0; i < 4; ++i) rows[row + i] = sums[sum_place(row) + i] >> sum_shift(row);
        std::memset(sums, 0, sizeof rows);
        const int count = w.rows - first < block_rows ? w.rows - first : block_rows;
        // Stored fields are value + 1: sum x (w + 1) - sum x = sum x w.
        for (int i = 0; i < count; ++i) rows[i] -= x_sum;
        for (int i = 0; i < count; ++i) y[first + i] = static_cast<float>(rows[i]) * (x_scale * w.row_scale[first + i]);
        if (acc) std::memcpy(acc + first, rows, count * sizeof rows[0]);
    }
}

}  // namespace tritwise::TRITWISE_ISA
