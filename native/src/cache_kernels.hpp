// A position's key and value, rounded to the cache's type. Included by each kernels_*.cpp.
#pragma once

#include "kernels.hpp"
#include "lanes.hpp"

namespace tritwise::TRITWISE_ISA {

// Up to 16 floats, zero behind them.
inline Lanes load_part(const float* p, int count) {
    if (count >= 16) return load(p);
    float padded[16] = {};
    for (int i = 0; i < count; ++i) padded[i] = p[i];
    return load(padded);
}

// NaN stays NaN: a comparison with it gives the second operand.
inline Lanes within_half(Lanes x) { return min(set1(65504.0f), max(set1(-65504.0f), x)); }

inline float rounded_to_half(float x, std::uint16_t* half) {
    std::uint16_t bits[16];
    store_f16(bits, within_half(set1(x)));
    *half = bits[0];
    float values[16];
    store(values, load_f16(bits));
    return values[0];
}

// Codes -127..127 of n floats, padded with zeros to 16; code = round_even(x * (127 / |x|max)). Gives the scale.
inline float codes_of_8_bits(const float* x, int n, std::int8_t* codes) {
    Lanes top = set1(1e-30f);  // 127 / top stays finite
    for (int i = 0; i < n; i += 16) top = max(abs(load_part(x + i, n - i)), top);
    const float absmax = largest(top);
    const Lanes steps = set1(127.0f / absmax);
    for (int i = 0; i < n; i += 16) {
        const Lanes code = round_even(load_part(x + i, n - i) * steps);
        store_i8(codes + i, min(max(code, set1(-127.0f)), set1(127.0f)));
    }
    return absmax / 127.0f;
}

// Codes + 8, 0..15, of a group of up to 32 floats. The scale is the one of largest magnitude, with its sign,
// over -8: that one is met exactly. Codes are taken with the scale as float16 holds it.
inline std::uint16_t codes_of_4_bits(const float* x, int n, std::uint8_t* codes) {
    const Lanes a = load_part(x, n), b = load_part(x + (n > 16 ? 16 : 0), n > 16 ? n - 16 : n);
    const float highest = largest(max(a, b)), lowest = -largest(max(set1(0.0f) - a, set1(0.0f) - b));
    std::uint16_t half;
    const float scale = rounded_to_half((highest > -lowest ? highest : lowest) / -8.0f, &half);
    // A float16 is at least 2^-24, so the inverse is finite.
    const Lanes steps = set1(scale == 0.0f ? 0.0f : 1.0f / scale);
    for (int i = 0; i < int4_group; i += 16) {
        const Lanes code = round_even(load_part(x + (i < n ? i : 0), i < n ? n - i : 0) * steps);
        std::int8_t signed_codes[16];
        store_i8(signed_codes, min(max(code, set1(-8.0f)), set1(7.0f)));
        for (int j = 0; j < 16; ++j) codes[i + j] = static_cast<std::uint8_t>(signed_codes[j] + 8);
    }
    return half;
}

inline void cache_position(const CacheLayout& layout, char* region, int position, const float* key,
                           const float* value) {
    const int dims = layout.head_dim, width = layout.value_width, lane = position % 16;
    const std::ptrdiff_t block = position / 16, key_at = block * dims * 16 + lane,
                         value_at = std::ptrdiff_t{position} * width;
    if (layout.type == CacheType::f32) {
        auto* keys = reinterpret_cast<float*>(region) + key_at;
        auto* values = reinterpret_cast<float*>(region + layout.values) + value_at;
        for (int d = 0; d < dims; ++d) keys[d * 16] = key[d];
        for (int d = 0; d < width; d += 16) store(values + d, load_part(value + d, dims - d));
    } else if (layout.type == CacheType::f16) {
        auto* keys = reinterpret_cast<std::uint16_t*>(region) + key_at;
        auto* values = reinterpret_cast<std::uint16_t*>(region + layout.values) + value_at;
        for (int d = 0; d < dims; d += 16) {
            std::uint16_t halves[16];
            store_f16(halves, within_half(load_part(key + d, dims - d)));
            for (int i = 0; i < 16 && d + i < dims; ++i) keys[(d + i) * 16] = halves[i];
            store_f16(values + d, within_half(load_part(value + d, dims - d)));
        }
    } else if (layout.type == CacheType::int8) {
        auto* keys = reinterpret_cast<std::int8_t*>(region) + key_at;
        auto* values = reinterpret_cast<std::int8_t*>(region + layout.values) + value_at;
        auto* key_scales = reinterpret_cast<float*>(region + layout.key_scales);
        auto* value_scales = reinterpret_cast<float*>(region + layout.value_scales);
        // The codes of the key go through the value's place, which is overwritten next.
        key_scales[position] = codes_of_8_bits(key, dims, values);
        for (int d = 0; d < dims; ++d) keys[d * 16] = values[d];
        value_scales[position] = codes_of_8_bits(value, dims, values);
    } else {
        auto* keys = reinterpret_cast<std::uint8_t*>(region) + (key_at - lane) / 2 + lane;
        auto* values = reinterpret_cast<std::uint8_t*>(region + layout.values) + value_at / 2;
        auto* key_scales = reinterpret_cast<std::uint16_t*>(region + layout.key_scales);
        auto* value_scales = reinterpret_cast<std::uint16_t*>(region + layout.value_scales);
        for (int g = 0; g < layout.groups; ++g) {
            const int d = g * int4_group, count = dims - d < int4_group ? dims - d : int4_group;
            const std::ptrdiff_t scale_at = (block * layout.groups + g) * 16 + lane;
            std::uint8_t codes[int4_group];
            key_scales[scale_at] = codes_of_4_bits(key + d, count, codes);
            for (int i = 0; i < count; i += 2)
                keys[(d + i) / 2 * 16] = static_cast<std::uint8_t>(codes[i] | codes[i + 1] << 4);
            value_scales[scale_at] = codes_of_4_bits(value + d, count, codes);
            for (int i = 0; i < 16; ++i)
                values[g * 16 + i] = static_cast<std::uint8_t>(codes[i] | codes[16 + i] << 4);
        }
    }
}

}  // namespace tritwise::TRITWISE_ISA
