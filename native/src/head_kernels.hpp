// The float side of the head, in sixteen lanes. Included by each kernels_*.cpp behind its integer products:
//   template <int T> void nibble_sums(plane of a group, steps, quads, stride, column_sums, sums)
//   void nibble_sums_of_one(plane of a group, even steps, codes, column_sum, sums)
//   template <int T, int rows = 32> void pair_sums(high and low plane of a group, ...)
// which leave sum (nibble - 8) x, twice, and sum (16 high + low - 128) x, exactly: of T columns in quads, or
// of one row of codes, by 32 rows, or by the `rows` that begin where the planes do.
#pragma once

#include "kernels.hpp"
#include "lanes.hpp"

namespace tritwise::TRITWISE_ISA {

// hi * 128 + lo, rounded twice at most: hi to a float, then the fused sum.
inline Lanes joined(const std::int32_t* hi, const std::int32_t* lo) {
    return fma(load_i32(hi), set1(128.0f), load_i32(lo));
}

inline void store_rows(int rows, int row, float* y, Lanes value) {
    if (row + 16 <= rows) return store(y + row, value);
    float lanes[16];
    store(lanes, value);
    for (int i = 0; row + i < rows; ++i) y[row + i] = lanes[i];
}

// The sums of T columns from `token` on; 0 for columns beyond the last token.
template <int T>
inline void column_sums_of(const PlaneRows& x, int token, std::int32_t (&sums)[T]) {
    for (int t = 0; t < T; ++t) sums[t] = token + t / 2 < x.m ? x.sum[2 * token + t] : 0;
}

template <int T>
inline void head8_tokens(const SplitMatrix& w, int group, const PlaneRows& x, int token, float* y,
                         std::ptrdiff_t stride) {
    alignas(64) std::int32_t sums[T][group_rows];
    std::int32_t column_sums[T];
    column_sums_of(x, token, column_sums);
    const std::int64_t at = std::int64_t{group} * group_rows / 2 * w.k;
    pair_sums<T>(w.high + at, w.low + at, w.k / 8, x.quads + std::int64_t{token} * 2 * w.k,
                 std::int64_t{w.k} * 4, column_sums, sums);
    for (int t = 0; t < T / 2 && token + t < x.m; ++t) {
        for (int half = 0; half < group_rows && group * group_rows + half < w.rows; half += 16) {
            const int row = group * group_rows + half;
            const Lanes scale = set1(x.scale[token + t]) * load(w.row_scale + row);
            store_rows(w.rows, row, y + (token + t) * stride, joined(sums[2 * t] + half, sums[2 * t + 1] + half) * scale);
        }
    }
}

// |acc| <= 127 * 127 * K < 2^31 for K <= 65536, which the model checks; sums that wrap on the way come back.
inline void head8(const SplitMatrix& w, int begin, int end, const PlaneRows& x, float* y, std::ptrdiff_t stride) {
    for (int group = begin; group < end; ++group) {
        int token = 0;
        for (; token + 4 < x.m; token += 6) head8_tokens<12>(w, group, x, token, y, stride);
        if (token + 2 < x.m) head8_tokens<8>(w, group, x, token, y, stride);
        else if (token + 1 < x.m) head8_tokens<4>(w, group, x, token, y, stride);
        else if (token < x.m) head8_tokens<2>(w, group, x, token, y, stride);
    }
}

// Rounding of the estimate and of the exact logit that it is compared with. Each of the three terms of an
// estimate rounds three times by 2^-24 of its size, their sum and its scaling three times by that of all; the
// exact logit rounds 128 * acc_hi, of the size of these terms and the margin, and then three times by its own
// size. Together below 16 units of 2^-24 of the terms' size; 32 are taken, and the widths are stretched by as
// much of the margin.
constexpr float rounding_slack = 0x1p-19f;

// sum code x = 128 sum (slope h + offset + r) hi + sum (mean + (code - mean)) lo, of which the pass leaves out
// r hi and (code - mean) lo.
template <int T>
inline void coarse_tokens_of(const SplitMatrix& w, int group, const PlaneRows& x, int token, CoarseSearch* searches) {
    alignas(64) std::int32_t sums[T][group_rows];
    std::int32_t column_sums[T];
    for (int t = 0; t < T; ++t) column_sums[t] = token + t < x.m ? x.sum[2 * (token + t)] : 0;
    const std::uint8_t* plane = w.high + std::int64_t{group} * group_rows / 2 * w.k;
    if constexpr (T == 1) nibble_sums_of_one(plane, w.k / 8, x.high, column_sums[0], sums[0]);
    else
        nibble_sums<T>(plane, w.k / 8, x.high + std::int64_t{token} * w.k, std::int64_t{w.k} * quad,
                       column_sums, sums);
    for (int t = 0; t < T && token + t < x.m; ++t) {
        CoarseSearch& search = searches[token + t];
        const auto high_sum = static_cast<float>(128 * x.sum[2 * (token + t)]),
                   low_sum = static_cast<float>(x.sum[2 * (token + t) + 1]);
        for (int half = 0; half < group_rows && group * group_rows + half < w.rows; half += 16) {
            const int row = group * group_rows + half;
            const Lanes scale = load(w.row_scale + row);
            const Lanes from_high = load(w.slope + row) * (load_i32(sums[t] + half) * set1(128.0f));
            const Lanes from_sum = load(w.offset + row) * set1(high_sum);
            const Lanes from_low = load(w.mean + row) * set1(low_sum);
            const Lanes estimate = (from_high + from_sum + from_low) * scale;
            const Lanes width = fma(load(w.spread + row), set1(search.high_width),
                                    load(w.code_spread + row) * set1(search.low_width));
            const Lanes margin =
                fma(abs(from_high) + abs(from_sum) + abs(from_low), set1(rounding_slack), width) * scale;
            const Lanes upper = estimate + margin;
            const bool whole = row + 16 <= w.rows;
            // Not "<": what is not a number has to be seen.
            if (whole && largest(upper) < search.bound) continue;
            float estimates[16], uppers[16], margins[16];
            store(estimates, estimate);
            store(uppers, upper);
            store(margins, margin);
            for (int i = 0; i < 16 && row + i < w.rows; ++i) {
                if (uppers[i] < search.bound) continue;
                search.found[search.count++] = {row + i, estimates[i], uppers[i]};
                if (estimates[i] - margins[i] > search.bound) search.bound = estimates[i] - margins[i];
            }
        }
    }
}

inline void coarse(const SplitMatrix& w, int begin, int end, const PlaneRows& x, CoarseSearch* searches) {
    for (int group = begin; group < end; ++group) {
        if (x.m == 1) {
            coarse_tokens_of<1>(w, group, x, 0, searches);
            continue;
        }
        int token = 0;
        for (; token + 8 < x.m; token += 12) coarse_tokens_of<12>(w, group, x, token, searches);
        if (token + 4 < x.m) coarse_tokens_of<8>(w, group, x, token, searches);
        else if (token + 2 < x.m) coarse_tokens_of<4>(w, group, x, token, searches);
        else if (token < x.m) coarse_tokens_of<2>(w, group, x, token, searches);
    }
}

inline void exact_sums(const SplitMatrix& w, int block, const PlaneRows& x, int token,
                       std::int32_t (*sums)[group_rows]) {
    const std::int64_t in_group = block % (group_rows / exact_rows) * exact_rows * 4,
                       at = std::int64_t{block} * exact_rows / group_rows * group_rows / 2 * w.k + in_group;
    pair_sums<2, exact_rows>(w.high + at, w.low + at, w.k / 8,
                             x.quads + std::int64_t{token / 2} * quad * w.k + token % 2 * 8,
                             std::int64_t{w.k} * quad, x.sum + 2 * token, sums);
}

// A chain of fused multiply-adds over the chunks of 32 inputs, from 0; each factor hi * 128 + lo is an integer
// below 8 * 16256 * 32 < 2^24, so exact.
template <int T>
inline void head4_tokens(const ChunkMatrix& w, int group, const PlaneRows& x, int token, float* y,
                         std::ptrdiff_t stride) {
    const int chunks = (w.k + chunk_k - 1) / chunk_k;
    const std::uint8_t* p = w.groups + group * w.group_bytes();
    Lanes acc[T / 2][2];
    for (int t = 0; t < T / 2; ++t) acc[t][0] = acc[t][1] = set1(0.0f);
    for (int chunk = 0; chunk < chunks; ++chunk, p += chunk_bytes) {
        alignas(64) std::int32_t sums[T][group_rows];
        std::int32_t column_sums[T];
        for (int t = 0; t < T; ++t)
            column_sums[t] = token + t / 2 < x.m ? x.chunk_sum[std::int64_t{2 * token + t} * chunks + chunk] : 0;
        const int inputs = w.k - chunk * chunk_k < chunk_k ? w.k - chunk * chunk_k : chunk_k;
        nibble_sums<T>(p + 64, inputs / 8, x.quads + std::int64_t{token} * 2 * w.k + chunk * chunk_k * quad,
                       std::int64_t{w.k} * 4, column_sums, sums);
        for (int half = 0; half < 2; ++half) {
            const Lanes scale = load_f16(reinterpret_cast<const std::uint16_t*>(p) + half * 16);
            for (int t = 0; t < T / 2; ++t)
                acc[t][half] = fma(joined(sums[2 * t] + half * 16, sums[2 * t + 1] + half * 16), scale, acc[t][half]);
        }
    }
    for (int t = 0; t < T / 2 && token + t < x.m; ++t)
        for (int half = 0; half < group_rows && group * group_rows + half < w.rows; half += 16)
            store_rows(w.rows, group * group_rows + half, y + (token + t) * stride,
                       acc[t][half / 16] * set1(x.scale[token + t]));
}

inline void head4(const ChunkMatrix& w, int begin, int end, const PlaneRows& x, float* y, std::ptrdiff_t stride) {
    for (int group = begin; group < end; ++group) {
        int token = 0;
        for (; token + 4 < x.m; token += 6) head4_tokens<12>(w, group, x, token, y, stride);
        if (token + 2 < x.m) head4_tokens<8>(w, group, x, token, y, stride);
        else if (token + 1 < x.m) head4_tokens<4>(w, group, x, token, y, stride);
        else if (token < x.m) head4_tokens<2>(w, group, x, token, y, stride);
    }
}

// The first of the largest, -1 when it is NaN or infinite; a NaN anywhere is the largest.
inline std::int32_t best_of(const float* logits, int n) {
    float top = logits[0];
    for (int i = 0; i < n; ++i) {
        if (!(logits[i] <= top)) {
            if (!(logits[i] - logits[i] == 0.0f)) return -1;
            top = logits[i];
        }
    }
    if (!(top - top == 0.0f)) return -1;
    int best = 0;
    while (logits[best] != top) ++best;
    return best;
}

// --- packing ---

// A row of codes into both planes of a SplitMatrix, and the statistics of its high plane over `count` inputs.
// Sums of integers below 2^14 * 65536 in size; their combination in float64.
inline void split_row(const std::int8_t* codes, int k, int count, std::uint8_t* high, std::uint8_t* low,
                      float* slope, float* offset, float* spread, float* mean, float* code_spread) {
    for (int i = 0; i < k; i += 8, high += 4 * group_rows, low += 4 * group_rows) {
        std::uint32_t a, b;
        std::memcpy(&a, codes + i, 4);
        std::memcpy(&b, codes + i + 4, 4);
        a ^= 0x80808080u;  // code + 128
        b ^= 0x80808080u;
        const std::uint32_t upper = (a >> 4 & 0x0F0F0F0Fu) | (b & 0xF0F0F0F0u);
        const std::uint32_t lower = (a & 0x0F0F0F0Fu) | (b << 4 & 0xF0F0F0F0u);
        std::memcpy(high, &upper, 4);
        std::memcpy(low, &lower, 4);
    }
    std::int32_t h1 = 0, c1 = 0, hh = 0, hc = 0, cc = 0;
    for (int i = 0; i < count; ++i) {
        const std::int32_t c = codes[i], h = c >> 4;
        h1 += h;
        c1 += c;
        hh += h * h;
        hc += h * c;
        cc += c * c;
    }
    const double n = count, mean_h = h1 / n, mean_c = c1 / n;
    const double var_h = hh - n * mean_h * mean_h, cov = hc - n * mean_h * mean_c, var_c = cc - n * mean_c * mean_c;
    const double a = var_h > 0 ? cov / var_h : 0.0;
    const double rest = var_c - a * cov;
    *slope = static_cast<float>(a);
    *offset = static_cast<float>(mean_c - a * mean_h);
    *mean = static_cast<float>(mean_c);
    // Rounded up: the differences above are exact to some 2^-50 of cc.
    const auto rounded_up = [&](double squares) {
        return static_cast<float>(std::sqrt((squares > 0 ? squares : 0.0) / n + 1e-9 * cc / n) * (1 + 1e-6));
    };
    *spread = rounded_up(rest);
    *code_spread = rounded_up(var_c);
}

// A row of floats into a ChunkMatrix. For each chunk the scale among 17 that leaves the smallest squared error:
// the value of largest size falls on -8 for the first, and is shrunk or stretched in the others; then least squares.
inline void chunk_row(const float* values, int k, std::uint8_t* group, int row_in_group) {
    for (int begin = 0; begin < k; begin += chunk_k, group += chunk_bytes) {
        float padded[chunk_k] = {};
        for (int i = 0; i < chunk_k && begin + i < k; ++i) padded[i] = values[begin + i];
        const Lanes x0 = load(padded), x1 = load(padded + 16);
        float peak = 0.0f;
        for (float value : padded)
            if (std::fabs(value) > std::fabs(peak)) peak = value;
        float best_error = sum(x0 * x0 + x1 * x1), best_scale = 0.0f, best_codes[chunk_k] = {};
        for (int step = -8; step <= 8 && peak != 0.0f; ++step) {
            // A scale below the smallest number would make an infinite inverse; the chunk is then zero.
            const float inverse = (-8.0f + 0.25f * static_cast<float>(step)) / peak;
            if (!(std::fabs(inverse) < 1e30f)) break;
            const auto coded = [&](Lanes x) {
                return min(max(round_even(min(max(x * set1(inverse), set1(-16.0f)), set1(16.0f))), set1(-8.0f)),
                           set1(7.0f));
            };
            const Lanes c0 = coded(x0), c1 = coded(x1);
            const float norm = sum(c0 * c0 + c1 * c1), product = sum(c0 * x0 + c1 * x1);
            if (norm == 0.0f) continue;
            const float scale = product / norm;
            const Lanes e0 = fma(c0, set1(-scale), x0), e1 = fma(c1, set1(-scale), x1);
            const float error = sum(e0 * e0 + e1 * e1);
            if (error < best_error) {
                best_error = error;
                best_scale = scale;
                store(best_codes, c0);
                store(best_codes + 16, c1);
            }
        }
        std::uint16_t halves[16];
        store_f16(halves, set1(best_scale));
        std::memcpy(group + 2 * row_in_group, halves, 2);
        for (int i = 0; i < chunk_k && begin + i < k; i += 8) {
            std::uint8_t* to = group + 64 + i / 8 * 128 + row_in_group * 4;
            for (int j = 0; j < 4; ++j)
                to[j] = static_cast<std::uint8_t>(static_cast<int>(best_codes[i + j]) + 8) |
                        static_cast<std::uint8_t>((static_cast<int>(best_codes[i + 4 + j]) + 8) << 4);
        }
    }
}

// n floats, a multiple of 16, rounded to half precision.
inline void half_row(const float* values, int n, std::uint16_t* out) {
    for (int i = 0; i < n; i += 16) store_f16(out + i, load(values + i));
}

template <class Word>
inline bool finite_words(const void* data, std::int64_t n, Word exponent) {
    const auto* p = static_cast<const char*>(data);
    int bad = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        Word word;
        std::memcpy(&word, p + i * sizeof(Word), sizeof(Word));
        bad |= (word & exponent) == exponent;
    }
    return !bad;
}

// The exponent's bits are all set in exactly the values that are not finite.
inline bool all_finite(const void* data, DType type, std::int64_t n) {
    switch (type) {
        case DType::f32: return finite_words<std::uint32_t>(data, n, 0x7F800000u);
        case DType::f16: return finite_words<std::uint16_t>(data, n, 0x7C00);
        default: return finite_words<std::uint16_t>(data, n, 0x7F80);
    }
}

}  // namespace tritwise::TRITWISE_ISA
