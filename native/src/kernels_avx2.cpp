// AVX2 with FMA and F16C. vpmaddubsw multiplies unsigned by signed bytes and adds pairs in int16 with
// saturation, so every use below states why its sums stay inside int16.
//
// The layout is that of the other kernels (native/README.md): a ymm holds 8 rows x 4 bytes, 4 of them a
// group.
#define TRITWISE_ISA avx2
#include "kernels.hpp"

namespace tritwise::TRITWISE_ISA {
constexpr int query_tile = 4;      // 4 queries x 2 vectors x 2 registers: all 16 registers
constexpr int attention_tile = 4;  // vectors of values or scores in work
constexpr int dense_row_tile = 2;  // 2 rows x 2 tokens x 2 registers: 8 accumulators
constexpr int dense_token_tile = 2;
}  // namespace tritwise::TRITWISE_ISA

#include "attention_kernels.hpp"
#include "by_input_avx2.hpp"
#include "cache_kernels.hpp"
#include "dense_kernels.hpp"
#include "float_kernels.hpp"
#include "head_products_avx2.hpp"
// Needs the products above.
#include "head_kernels.hpp"
#include "sampling_kernels.hpp"

namespace tritwise::TRITWISE_ISA {

constexpr int prefetch_distance = 4096;  // bytes ahead; the hardware prefetcher stops at 4 KiB pages

static inline __m256i load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

static inline __m256i broadcast4(const std::int8_t* p) {
    std::int32_t word;
    std::memcpy(&word, p, 4);
    return _mm256_set1_epi32(word);
}

static inline __m256i pairs_to_int32(__m256i sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }

static inline void write(const ProductOutput& out, const float* row_scale, int row, int token, __m256i acc,
                         float x_scale, std::int32_t x_sum) {
    // Stored fields are value + 1: sum x (w + 1) - sum x = sum x w.
    acc = _mm256_sub_epi32(acc, _mm256_set1_epi32(x_sum));
    const std::ptrdiff_t at = token * out.stride + row;
    if (out.acc) _mm256_storeu_si256(reinterpret_cast<__m256i*>(out.acc + at), acc);
    if (out.y) {
        const __m256 scale = _mm256_mul_ps(_mm256_set1_ps(x_scale), _mm256_loadu_ps(row_scale + row));
        _mm256_storeu_ps(out.y + at, _mm256_mul_ps(_mm256_cvtepi32_ps(acc), scale));
    }
}

// One token. Per 32 bytes (128 weights): 1 load, 2 shifts, 4 AND, 4 vpmaddubsw, 1 vpmaddwd, 4 adds.
// Fields 0 and 2 count once, a pair is at most 2 * 2 * 128 = 512, two of them 1024; fields 1 and 3 are left
// at four times their value, 4096, and shifted down (exactly: they are multiples of 4): together 2048.
static void ternary_one(const TernaryMatrix& w, int begin, int end, const QuantisedRows& x,
                        const ProductOutput& out) {
    const __m256i low = _mm256_set1_epi8(0x03), high = _mm256_set1_epi8(0x0C);
    const std::int64_t blocks = w.k / block_inputs(TernaryPacking::four_a_byte);
    const std::uint8_t* p = w.packed + static_cast<std::int64_t>(begin) * blocks * 128;
    for (int group = begin; group < end; ++group) {
        __m256i acc[4] = {};
        const std::int8_t* codes = x.codes;
        for (std::int64_t block = 0; block < blocks; ++block, p += 128, codes += 16) {
            _mm_prefetch(reinterpret_cast<const char*>(p + prefetch_distance), _MM_HINT_T0);
            _mm_prefetch(reinterpret_cast<const char*>(p + prefetch_distance + 64), _MM_HINT_T0);
            const __m256i x0 = broadcast4(codes), x1 = broadcast4(codes + 4), x2 = broadcast4(codes + 8),
                          x3 = broadcast4(codes + 12);
            for (int i = 0; i < 4; ++i) {
                const __m256i a = load256(p + 32 * i), b = _mm256_srli_epi16(a, 4);
                const __m256i once = _mm256_add_epi16(_mm256_maddubs_epi16(_mm256_and_si256(a, low), x0),
                                                      _mm256_maddubs_epi16(_mm256_and_si256(b, low), x2));
                const __m256i fourfold =
                    _mm256_add_epi16(_mm256_maddubs_epi16(_mm256_and_si256(a, high), x1),
                                     _mm256_maddubs_epi16(_mm256_and_si256(b, high), x3));
                const __m256i sums = _mm256_add_epi16(once, _mm256_srai_epi16(fourfold, 2));
                acc[i] = _mm256_add_epi32(acc[i], pairs_to_int32(sums));
            }
        }
        for (int i = 0; i < 4; ++i)
            write(out, w.row_scale, group * group_rows + 8 * i, 0, acc[i], x.scale[0], x.sum[0]);
    }
}

// 32 rows x K of 2-bit fields to bytes [K/4][32 rows][4].
static void unpack_group(const std::uint8_t* p, std::int64_t blocks, std::uint8_t* panel) {
    const __m256i mask = _mm256_set1_epi8(0x03);
    for (std::int64_t block = 0; block < blocks; ++block, p += 128, panel += 512) {
        for (int i = 0; i < 4; ++i) {
            __m256i a = load256(p + 32 * i);
            for (int field = 0; field < 4; ++field) {
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(panel + field * 128 + 32 * i),
                                    _mm256_and_si256(a, mask));
                a = _mm256_srli_epi16(a, 2);
            }
        }
    }
}

// 16 rows by 4 tokens: 8 int16 accumulators, emptied every 60 steps: 60 * 512 = 30720 stays inside int16.
// Per 64 bytes: 2 loads, 4 broadcasts, 8 vpmaddubsw, 8 adds.
static void panel_tile(const TernaryMatrix& w, int group, const std::uint8_t* panel, const QuantisedRows& x,
                       int token, const ProductOutput& out) {
    constexpr int steps = 60;
    const std::int64_t k4 = w.k / 4;
    const std::int8_t* quads = x.quads + static_cast<std::int64_t>(token) * w.k;
    for (int half = 0; half < 2; ++half) {
        __m256i acc[2][4] = {};
        for (std::int64_t begin = 0; begin < k4; begin += steps) {
            const std::int64_t end = begin + steps < k4 ? begin + steps : k4;
            __m256i narrow[2][4];
#pragma GCC unroll 4
            for (int t = 0; t < 4; ++t) narrow[0][t] = narrow[1][t] = _mm256_setzero_si256();
            for (std::int64_t i = begin; i < end; ++i) {
                const __m256i a = load256(panel + i * 128 + half * 64),
                              b = load256(panel + i * 128 + half * 64 + 32);
#pragma GCC unroll 4
                for (int t = 0; t < 4; ++t) {
                    const __m256i input = broadcast4(quads + i * 16 + t * 4);
                    narrow[0][t] = _mm256_add_epi16(narrow[0][t], _mm256_maddubs_epi16(a, input));
                    narrow[1][t] = _mm256_add_epi16(narrow[1][t], _mm256_maddubs_epi16(b, input));
                    // Otherwise GCC computes all products first, and one accumulator goes through memory.
                    __asm__ volatile("" : "+x"(narrow[0][t]), "+x"(narrow[1][t]));
                }
            }
#pragma GCC unroll 2
            for (int i = 0; i < 2; ++i)
#pragma GCC unroll 4
                for (int t = 0; t < 4; ++t)
                    acc[i][t] = _mm256_add_epi32(acc[i][t], pairs_to_int32(narrow[i][t]));
        }
        for (int t = 0; t < 4 && token + t < x.m; ++t)
            for (int i = 0; i < 2; ++i)
                write(out, w.row_scale, group * group_rows + half * 16 + 8 * i, token + t, acc[i][t],
                      x.scale[token + t], x.sum[token + t]);
    }
}

static void ternary(const TernaryMatrix& w, int begin, int end, const QuantisedRows& x,
                    const ProductOutput& out, std::uint8_t* panel) {
    if (x.m == 1 && !w.by_input) return ternary_one(w, begin, end, x, out);
    const std::int64_t blocks = w.k / block_inputs(TernaryPacking::four_a_byte);
    for (int group = begin; group < end; ++group) {
        if (w.by_input) unpack_inputs(w, group, 0, w.k, panel);
        else unpack_group(w.packed + group * blocks * 128, blocks, panel);
        for (int token = 0; token < x.m; token += quad) panel_tile(w, group, panel, x, token, out);
    }
}

static std::uint64_t read(const void* data, std::size_t size) {
    const auto* p = static_cast<const char*>(data);
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (std::size_t i = 0; i + 128 <= size; i += 128) {
        _mm_prefetch(p + i + prefetch_distance, _MM_HINT_T0);
        _mm_prefetch(p + i + prefetch_distance + 64, _MM_HINT_T0);
        a = _mm256_xor_si256(a, load256(p + i));
        b = _mm256_xor_si256(b, load256(p + i + 32));
        c = _mm256_xor_si256(c, load256(p + i + 64));
        d = _mm256_xor_si256(d, load256(p + i + 96));
    }
    std::uint64_t words[4], result = 0;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words),
                        _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d)));
    for (std::uint64_t word : words) result ^= word;
    return result;
}

}  // namespace tritwise::TRITWISE_ISA

namespace tritwise {

const Kernels& kernels_avx2() {
    using namespace avx2;
    static constexpr Kernels table = {
        .name = "avx2",
        .packing = TernaryPacking::four_a_byte,
        .query_tile = query_tile,
        .ternary = ternary,
        .add_inputs = add_inputs,
        .dense = dense,
        .rms_norm = rms_norm,
        .quantise = quantise,
        .quantise_planes = quantise_planes,
        .silu_gate = silu_gate,
        .relu2_gate = relu2_gate,
        .add = add,
        .load_row = load_row,
        .attention = attention,
        .merge_attention = merge_attention,
        .cache_position = cache_position,
        .sampling = sampling_kernels,
        .head8 = head8,
        .coarse = coarse,
        .exact_sums = exact_sums,
        .head4 = head4,
        .best_of = best_of,
        .split_row = split_row,
        .chunk_row = chunk_row,
        .half_row = half_row,
        .all_finite = all_finite,
        .read = read,
    };
    return table;
}

}  // namespace tritwise
