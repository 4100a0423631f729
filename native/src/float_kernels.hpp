// The element-wise float operations of the forward pass, in sixteen lanes. Included by each kernels_*.cpp.
#pragma once

#include "kernels.hpp"
#include "lanes.hpp"

namespace tritwise::TRITWISE_ISA {

inline void rms_norm(const float* x, const float* weight, int n, int count, float eps, float* out) {
    Lanes squares = set1(0.0f);
    for (int i = 0; i < n; i += 16) squares = fma(load(x + i), load(x + i), squares);
    const float mean = sum(squares) / static_cast<float>(count);
    const Lanes inverse = set1(1.0f / std::sqrt(mean + eps));
    for (int i = 0; i < n; i += 16) store(out + i, load(weight + i) * (load(x + i) * inverse));
}

// max(|x|max, 1e-5): the clamp of the published activation quantiser.
inline float clamped_absmax(const float* x, int n) {
    Lanes top = set1(1e-5f);
    for (int i = 0; i < n; i += 16) top = max(abs(load(x + i)), top);
    return largest(top);
}

// Each lane adds up at most 2^17 codes of magnitude 128, which a float holds exactly.
inline std::int32_t integer_sum(Lanes total) {
    std::int32_t lanes[16];
    store_i32(lanes, total);
    std::int32_t result = 0;
    for (int i = 0; i < 16; ++i) result += lanes[i];
    return result;
}

inline void quantise(const float* x, int n, std::int8_t* codes, float* scale, std::int32_t* code_sum) {
    const float top = clamped_absmax(x, n);
    // As PyTorch computes the published 127 / max: reciprocal, then times 127 (tritwise.ternary.absmax).
    const Lanes steps = set1(1.0f / top * 127.0f);
    Lanes total = set1(0.0f);
    for (int i = 0; i < n; i += 16) {
        const Lanes code = min(max(round_even(load(x + i) * steps), set1(-128.0f)), set1(127.0f));
        total = total + code;
        store_i8(codes + i, code);
    }
    *scale = top / 127.0f;
    *code_sum = integer_sum(total);
}

inline void quantise_planes(const float* x, int n, std::int8_t* hi, std::int8_t* lo, float* scale,
                            std::int32_t* sums) {
    constexpr float range = 127.0f * 128.0f;
    const float top = clamped_absmax(x, n);
    const Lanes steps = set1(range / top);
    Lanes total_hi = set1(0.0f), total_lo = set1(0.0f);
    for (int i = 0; i < n; i += 16) {
        const Lanes value = min(max(round_even(load(x + i) * steps), set1(-range)), set1(range));
        // Rounding value / 128 to even leaves lo in -64..64; all of these are integers below 2^14, hence
        // exact.
        const Lanes high = round_even(value * set1(1.0f / 128));
        const Lanes low = fma(high, set1(-128.0f), value);
        total_hi = total_hi + high;
        total_lo = total_lo + low;
        store_i8(hi + i, high);
        store_i8(lo + i, low);
    }
    *scale = top / range;
    sums[0] = integer_sum(total_hi);
    sums[1] = integer_sum(total_lo);
}

inline void silu_gate(const float* gate, const float* up, int n, float* out) {
    for (int i = 0; i < n; i += 16) {
        const Lanes g = load(gate + i);
        store(out + i, g / (set1(1.0f) + exp(set1(0.0f) - g)) * load(up + i));
    }
}

inline void relu2_gate(const float* gate, const float* up, int n, float* out) {
    for (int i = 0; i < n; i += 16) {
        const Lanes g = max(load(gate + i), set1(0.0f));
        store(out + i, g * g * load(up + i));
    }
}

// Any `half`: a product, a product, their difference or sum, whatever the compiler makes of the loop.
inline void rotate(float* __restrict x, const float* __restrict cosines, const float* __restrict sines, int half) {
    for (int i = 0; i < half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = a * cosines[i] - b * sines[i];
        x[i + half] = b * cosines[i] + a * sines[i];
    }
}

inline void add(float* x, const float* y, int n) {
    for (int i = 0; i < n; i += 16) store(x + i, load(x + i) + load(y + i));
}

}  // namespace tritwise::TRITWISE_ISA
