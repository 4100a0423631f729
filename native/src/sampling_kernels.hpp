// The passes over a whole row of logits that sampling makes. Included by each kernels_*.cpp.
//
// Plain loops over sixteen lanes, which the compiler turns into the vectors of the file that includes them;
// every operation is an IEEE operation on one lane and no fused multiply-add is formed (-ffp-contract=off),
// so results are equal to the bit everywhere. A weight is about 40 operations: at 8 doubles a register 0.15
// ms for 128 K tokens.
#pragma once

#include "kernels.hpp"

namespace tritwise::TRITWISE_ISA {

inline double double_of_bits(std::uint64_t bits) { return __builtin_bit_cast(double, bits); }

// e^x for x <= 0, with a relative error below 2^-51; 0 below -708, where doubles lose precision.
// x = n ln2 + r with |r| <= ln2 / 2; e^r by Taylor to degree 13, whose remainder 0.3466^14 / 14! < 2^-57.
inline double exp_negative(double x) {
    constexpr double magic =
        6755399441055744.0;  // 1.5 * 2^52: adding it leaves the nearest integer in the low bits
    const double inside = x < -708.0 ? -708.0 : x;
    const double shifted = inside * 1.4426950408889634 + magic;
    const double n = shifted - magic;
    // ln2 in two parts; the first has 33 bits, so that n * part is exact.
    const double r = (inside - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    const double result = p * double_of_bits((__builtin_bit_cast(std::uint64_t, shifted) + 1023) << 52);
    return x < -708.0 ? 0.0 : result;
}

// The sum of one block: element i in lane i mod 16, then the tree 8, 4, 2, 1.
inline double block_sum(const double* w, std::int64_t n) {
    double sums[16] = {};
    std::int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; ++j) sums[j] += w[i + j];
    for (int j = 0; i < n; ++i, ++j) sums[j] += w[i];
    for (int half = 8; half; half /= 2)
        for (int j = 0; j < half; ++j) sums[j] += sums[j + half];
    return sums[0];
}

inline bool row_maximum(const float* row, std::int64_t n, float* maximum) {
    constexpr float limit = 3.40282347e+38f;  // the largest float
    float top[64];
    std::int32_t bad[64] = {};
    for (float& x : top) x = -__builtin_inff();
    std::int64_t i = 0;
    for (; i + 64 <= n; i += 64) {
        for (int j = 0; j < 64; ++j) {
            const float x = row[i + j];
            top[j] = x > top[j] ? x : top[j];
            bad[j] |= x <= limit ? 0 : 1;
        }
    }
    for (int j = 0; i < n; ++i, ++j) {
        top[j] = row[i] > top[j] ? row[i] : top[j];
        bad[j] |= row[i] <= limit ? 0 : 1;
    }
    for (int j = 1; j < 64; ++j) {
        top[0] = top[j] > top[0] ? top[j] : top[0];
        bad[0] |= bad[j];
    }
    *maximum = top[0];
    return !bad[0];
}

inline double row_weights(const float* row, std::int64_t n, float maximum, double inverse_temperature,
                          double* weights, double* sums) {
    double total = 0;
    for (std::int64_t begin = 0; begin < n; begin += sampling_block) {
        const std::int64_t count = n - begin < sampling_block ? n - begin : sampling_block;
        for (std::int64_t i = begin; i < begin + count; ++i)
            weights[i] = exp_negative((static_cast<double>(row[i]) - maximum) * inverse_temperature);
        total += * sums++ = block_sum(weights + begin, count);
    }
    return total;
}

inline void row_buckets(const float* row, std::int64_t n, float maximum, float scale, std::int32_t* index) {
    for (std::int64_t i = 0; i < n; ++i) {
        const float place = (maximum - row[i]) * scale;
        const auto inside = static_cast<std::int32_t>(place < sampling_buckets ? place : 0.0f);
        index[i] = place < sampling_buckets ? inside : sampling_buckets + static_cast<std::int32_t>(i & 15);
    }
}

inline double row_cut(const float* row, std::int64_t n, float logit, std::int32_t id, double least,
                      double* weights, double* sums) {
    double total = 0;
    for (std::int64_t begin = 0; begin < n; begin += sampling_block) {
        const std::int64_t count = n - begin < sampling_block ? n - begin : sampling_block;
        for (std::int64_t i = begin; i < begin + count; ++i) {
            const double above = row[i] > logit ? weights[i] : 0.0;
            const double equal = row[i] == logit ? weights[i] : 0.0;
            const double kept = above + (static_cast<std::int32_t>(i) <= id ? equal : 0.0);
            weights[i] = kept >= least ? kept : 0.0;
        }
        total += * sums++ = block_sum(weights + begin, count);
    }
    return total;
}

inline void row_mask(float* row, std::int64_t n, const std::uint32_t* mask) {
    constexpr float none = -__builtin_inff();
    std::int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        const std::uint32_t word = mask[i / 32];
        if (word == 0xFFFFFFFFu) continue;
        for (int j = 0; j < 32; ++j) row[i + j] = word & 1u << j ? row[i + j] : none;
    }
    for (; i < n; ++i)
        if (!(mask[i / 32] >> (i % 32) & 1)) row[i] = none;
}

inline constexpr SamplingKernels sampling_kernels = {
    .maximum = row_maximum,
    .weights = row_weights,
    .buckets = row_buckets,
    .cut = row_cut,
    .mask = row_mask,
};

}  // namespace tritwise::TRITWISE_ISA
