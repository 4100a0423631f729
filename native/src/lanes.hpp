// Sixteen float lanes: the one order of every float operation of the engine.
//
// An instruction set has one zmm, two ymm, four NEON registers or an array for them; the operations on a lane
// are the same IEEE operations everywhere, so results are equal to the bit. Included once by each
// kernels_*.cpp, inside a namespace of its own (TRITWISE_ISA): inline code compiled for AVX-512 must never be
// merged with its scalar namesake by the linker.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(TRITWISE_NEON_LANES)
#include <arm_neon.h>
#endif

namespace tritwise::TRITWISE_ISA {

#if defined(__AVX512F__)

struct Lanes {
    __m512 v;
};

inline Lanes load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, Lanes a) { _mm512_storeu_ps(p, a.v); }
inline Lanes set1(float x) { return {_mm512_set1_ps(x)}; }
inline Lanes operator+(Lanes a, Lanes b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Lanes operator-(Lanes a, Lanes b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Lanes operator*(Lanes a, Lanes b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Lanes operator/(Lanes a, Lanes b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Lanes fma(Lanes a, Lanes b, Lanes c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Lanes max(Lanes a, Lanes b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Lanes min(Lanes a, Lanes b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Lanes abs(Lanes a) { return {_mm512_abs_ps(a.v)}; }
inline Lanes load_bf16(const std::uint16_t* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
inline Lanes load_f16(const std::uint16_t* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline Lanes load_i8(const std::int8_t* p) {
    const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes))};
}
// The lower and the upper four bits of 16 bytes, minus 8. A permutation looks at four bits of its index only.
inline void load_i4(const std::uint8_t* p, Lanes& low, Lanes& high) {
    const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const __m512 values = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    low.v = _mm512_permutexvar_ps(bytes, values);
    high.v = _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), values);
}
// 2^n where a = n + 1.5 * 2^23: the low bits of a hold n.
inline Lanes pow2_of_magic(Lanes a) {
    const __m512i bits = _mm512_add_epi32(_mm512_castps_si512(a.v), _mm512_set1_epi32(127));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(bits, 23))};
}
// Lanes hold integers within int8.
inline void store_i8(std::int8_t* p, Lanes a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.v)));
}
inline void store_i32(std::int32_t* p, Lanes a) { _mm512_storeu_si512(p, _mm512_cvtps_epi32(a.v)); }
inline Lanes load_i32(const std::int32_t* p) { return {_mm512_cvtepi32_ps(_mm512_loadu_si512(p))}; }
inline void store_f16(std::uint16_t* p, Lanes a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}

// The tree: lane i + lane i+8, then i+4, i+2, i+1.
inline float sum(Lanes a) {
    const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a.v), 1));
    const __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a.v), high);
    const __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    const __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}

#elif defined(__AVX2__)

struct Lanes {
    __m256 a, b;
};

inline Lanes load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, Lanes x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
inline Lanes set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Lanes operator+(Lanes x, Lanes y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline Lanes operator-(Lanes x, Lanes y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline Lanes operator*(Lanes x, Lanes y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline Lanes operator/(Lanes x, Lanes y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline Lanes fma(Lanes x, Lanes y, Lanes z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
inline Lanes max(Lanes x, Lanes y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline Lanes min(Lanes x, Lanes y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline Lanes abs(Lanes x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
inline __m128i half_at(const std::uint16_t* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
inline Lanes load_bf16(const std::uint16_t* p) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half_at(p)), 16)),
            _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half_at(p + 8)), 16))};
}
inline Lanes load_f16(const std::uint16_t* p) {
    return {_mm256_cvtph_ps(half_at(p)), _mm256_cvtph_ps(half_at(p + 8))};
}
inline Lanes load_i8(const std::int8_t* p) {
    const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(codes, 8)))};
}
inline __m256 centred(__m256i codes) {
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_and_si256(codes, _mm256_set1_epi32(15)),
                                               _mm256_set1_epi32(8)));
}
inline void load_i4(const std::uint8_t* p, Lanes& low, Lanes& high) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const __m256i a = _mm256_cvtepu8_epi32(bytes), b = _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8));
    low = {centred(a), centred(b)};
    high = {centred(_mm256_srli_epi32(a, 4)), centred(_mm256_srli_epi32(b, 4))};
}
inline __m256 pow2_half(__m256 a) {
    const __m256i bits = _mm256_add_epi32(_mm256_castps_si256(a), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 23));
}
inline Lanes pow2_of_magic(Lanes x) { return {pow2_half(x.a), pow2_half(x.b)}; }
inline void store_i32(std::int32_t* p, Lanes x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_cvtps_epi32(x.a));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), _mm256_cvtps_epi32(x.b));
}
inline Lanes load_i32(const std::int32_t* p) {
    return {_mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))),
            _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8)))};
}
inline void store_f16(std::uint16_t* p, Lanes x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_i8(std::int8_t* p, Lanes x) {
    const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));
    const __m256i ordered = _mm256_permute4x64_epi64(words, 0xD8);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1)));
}
inline float sum(Lanes x) {
    const __m256 b = _mm256_add_ps(x.a, x.b);
    const __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    const __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}

#elif defined(TRITWISE_NEON_LANES)

// Four registers. Named by the file that includes this, because every aarch64 compiler has NEON, also for the
// scalar kernel.
struct Lanes {
    float32x4_t v[4];
};

template <class Operation>
inline Lanes each(Operation operation) {
    return {{operation(0), operation(1), operation(2), operation(3)}};
}

inline Lanes load(const float* p) {
    return each([&](int i) { return vld1q_f32(p + 4 * i); });
}
inline void store(float* p, Lanes x) {
    for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, x.v[i]);
}
inline Lanes set1(float x) {
    return each([&](int) { return vdupq_n_f32(x); });
}
inline Lanes operator+(Lanes x, Lanes y) {
    return each([&](int i) { return vaddq_f32(x.v[i], y.v[i]); });
}
inline Lanes operator-(Lanes x, Lanes y) {
    return each([&](int i) { return vsubq_f32(x.v[i], y.v[i]); });
}
inline Lanes operator*(Lanes x, Lanes y) {
    return each([&](int i) { return vmulq_f32(x.v[i], y.v[i]); });
}
inline Lanes operator/(Lanes x, Lanes y) {
    return each([&](int i) { return vdivq_f32(x.v[i], y.v[i]); });
}
inline Lanes fma(Lanes x, Lanes y, Lanes z) {
    return each([&](int i) { return vfmaq_f32(z.v[i], x.v[i], y.v[i]); });
}
// By comparison: vmaxq would give NaN for NaN and +0 for two zeros, where the others give the second operand.
inline Lanes max(Lanes x, Lanes y) {
    return each([&](int i) { return vbslq_f32(vcgtq_f32(x.v[i], y.v[i]), x.v[i], y.v[i]); });
}
inline Lanes min(Lanes x, Lanes y) {
    return each([&](int i) { return vbslq_f32(vcltq_f32(x.v[i], y.v[i]), x.v[i], y.v[i]); });
}
inline Lanes abs(Lanes x) {
    return each([&](int i) { return vabsq_f32(x.v[i]); });
}
inline Lanes load_bf16(const std::uint16_t* p) {
    return each([&](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)); });
}
inline Lanes load_f16(const std::uint16_t* p) {
    return each([&](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); });
}
inline Lanes pow2_of_magic(Lanes x) {
    return each([&](int i) {
        const int32x4_t bits = vaddq_s32(vreinterpretq_s32_f32(x.v[i]), vdupq_n_s32(127));
        return vreinterpretq_f32_s32(vshlq_n_s32(bits, 23));
    });
}
inline void store_i32(std::int32_t* p, Lanes x) {
    for (int i = 0; i < 4; ++i) vst1q_s32(p + 4 * i, vcvtq_s32_f32(x.v[i]));
}
// Four of sixteen bytes as floats.
inline float32x4_t quarter_as_floats(int8x16_t bytes, int i) {
    const int16x8_t words = vmovl_s8(i < 2 ? vget_low_s8(bytes) : vget_high_s8(bytes));
    return vcvtq_f32_s32(vmovl_s16(i % 2 ? vget_high_s16(words) : vget_low_s16(words)));
}
inline Lanes load_i8(const std::int8_t* p) {
    const int8x16_t bytes = vld1q_s8(p);
    return each([&](int i) { return quarter_as_floats(bytes, i); });
}
inline void load_i4(const std::uint8_t* p, Lanes& low, Lanes& high) {
    const uint8x16_t bytes = vld1q_u8(p);
    const int8x16_t eight = vdupq_n_s8(8);
    const int8x16_t a = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15))), eight);
    const int8x16_t b = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4)), eight);
    low = each([&](int i) { return quarter_as_floats(a, i); });
    high = each([&](int i) { return quarter_as_floats(b, i); });
}
inline Lanes load_i32(const std::int32_t* p) {
    return each([&](int i) { return vcvtq_f32_s32(vld1q_s32(p + 4 * i)); });
}
inline void store_f16(std::uint16_t* p, Lanes x) {
    for (int i = 0; i < 4; ++i) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(x.v[i])));
}
inline void store_i8(std::int8_t* p, Lanes x) {
    for (int i = 0; i < 2; ++i) {
        const int16x8_t words =
            vcombine_s16(vmovn_s32(vcvtq_s32_f32(x.v[2 * i])), vmovn_s32(vcvtq_s32_f32(x.v[2 * i + 1])));
        vst1_s8(p + 8 * i, vmovn_s16(words));
    }
}
inline float sum(Lanes x) {
    const float32x4_t a = vaddq_f32(vaddq_f32(x.v[0], x.v[2]), vaddq_f32(x.v[1], x.v[3]));
    const float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(b, 0) + vget_lane_f32(b, 1);
}

#else

struct Lanes {
    float v[16];
};

template <class Operation>
inline Lanes each(Operation operation) {
    Lanes result;
    for (int i = 0; i < 16; ++i) result.v[i] = operation(i);
    return result;
}

inline float bits_to_float(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline Lanes load(const float* p) {
    return each([&](int i) { return p[i]; });
}
inline void store(float* p, const Lanes& a) { std::memcpy(p, a.v, sizeof(a.v)); }
inline Lanes set1(float x) {
    return each([&](int) { return x; });
}
inline Lanes operator+(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.v[i] + b.v[i]; });
}
inline Lanes operator-(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.v[i] - b.v[i]; });
}
inline Lanes operator*(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.v[i] * b.v[i]; });
}
inline Lanes operator/(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.v[i] / b.v[i]; });
}
inline Lanes fma(const Lanes& a, const Lanes& b, const Lanes& c) {
    return each([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
}
inline Lanes max(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline Lanes min(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline Lanes abs(const Lanes& a) {
    return each([&](int i) { return std::fabs(a.v[i]); });
}
inline Lanes load_bf16(const std::uint16_t* p) {
    return each([&](int i) { return bits_to_float(std::uint32_t{p[i]} << 16); });
}
inline float half_to_float(std::uint16_t half) {
    const std::uint32_t sign = std::uint32_t{half} >> 15 << 31, exponent = half >> 10 & 31,
                        fraction = half & 1023;
    if (exponent == 31) return bits_to_float(sign | 0x7F800000u | fraction << 13);
    if (exponent == 0) {  // zero and subnormals: fraction * 2^-24, exact in a float
        const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    return bits_to_float(sign | (exponent + 112) << 23 | fraction << 13);
}
inline Lanes load_f16(const std::uint16_t* p) {
    return each([&](int i) { return half_to_float(p[i]); });
}
inline Lanes load_i8(const std::int8_t* p) {
    return each([&](int i) { return static_cast<float>(p[i]); });
}
inline void load_i4(const std::uint8_t* p, Lanes& low, Lanes& high) {
    low = each([&](int i) { return static_cast<float>((p[i] & 15) - 8); });
    high = each([&](int i) { return static_cast<float>((p[i] >> 4) - 8); });
}
inline Lanes pow2_of_magic(const Lanes& a) {
    return each([&](int i) {
        std::uint32_t bits;
        std::memcpy(&bits, &a.v[i], 4);
        return bits_to_float((bits + 127) << 23);
    });
}
inline void store_i32(std::int32_t* p, const Lanes& a) {
    for (int i = 0; i < 16; ++i) p[i] = static_cast<std::int32_t>(a.v[i]);
}
inline Lanes load_i32(const std::int32_t* p) {
    return each([&](int i) { return static_cast<float>(p[i]); });
}
// Ties to even; beyond 65504 + half a step infinity.
inline std::uint16_t float_to_half(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000u);
    const float size = std::fabs(value);
    if (!(size < 65520.0f)) return static_cast<std::uint16_t>(sign | (size == size ? 0x7C00u : 0x7E00u));
    // Subnormal halves are multiples of 2^-24, which the sum with 0.5 rounds to and leaves in the low bits.
    if (size < 0x1p-14f) {
        const float shifted = size + 0.5f;
        std::memcpy(&bits, &shifted, 4);
        return static_cast<std::uint16_t>(sign | (bits & 0x7FFu));
    }
    std::memcpy(&bits, &size, 4);
    const std::uint32_t rounded = bits + 0xFFFu + (bits >> 13 & 1u);
    return static_cast<std::uint16_t>(sign | (rounded - (112u << 23)) >> 13);
}
inline void store_f16(std::uint16_t* p, const Lanes& a) {
    for (int i = 0; i < 16; ++i) p[i] = float_to_half(a.v[i]);
}
inline void store_i8(std::int8_t* p, const Lanes& a) {
    for (int i = 0; i < 16; ++i) p[i] = static_cast<std::int8_t>(static_cast<std::int32_t>(a.v[i]));
}
inline float sum(const Lanes& a) {
    float t[16];
    std::memcpy(t, a.v, sizeof(t));
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; ++i) t[i] += t[i + half];
    return t[0];
}

#endif

inline float largest(Lanes a) {
    float t[16];
    store(t, a);
    float result = t[0];
    for (int i = 1; i < 16; ++i) result = t[i] > result ? t[i] : result;
    return result;
}

// 1.5 * 2^23: adding it to |x| < 2^22 rounds x to an integer, ties to even, which then stands in the low
// bits.
constexpr float magic = 12582912.0f;
inline Lanes round_even(Lanes x) { return (x + set1(magic)) - set1(magic); }

// e^x with a relative error below 2 units in the last place, for x clamped to the range of normal results.
// x = n ln2 + r with |r| <= ln2 / 2; e^r by Taylor to degree 7, whose remainder 0.3466^8 / 8! < 2^-27.
inline Lanes exp(Lanes x) {
    x = min(max(x, set1(-87.0f)), set1(88.0f));
    const Lanes shifted = fma(x, set1(1.44269504f), set1(magic));
    const Lanes n = shifted - set1(magic);
    // ln2 in two parts; the first has few bits, so that n * part is exact.
    Lanes r = fma(n, set1(-0.693359375f), x);
    r = fma(n, set1(2.12194440e-4f), r);
    Lanes p = set1(1.0f / 5040);
    p = fma(p, r, set1(1.0f / 720));
    p = fma(p, r, set1(1.0f / 120));
    p = fma(p, r, set1(1.0f / 24));
    p = fma(p, r, set1(1.0f / 6));
    p = fma(p, r, set1(0.5f));
    p = fma(p, r, set1(1.0f));
    p = fma(p, r, set1(1.0f));
    return p * pow2_of_magic(shifted);
}

}  // namespace tritwise::TRITWISE_ISA
