// AVX-512 with VNNI: vpdpbusd multiplies 64 unsigned by 64 signed bytes and adds them in fours to 16 int32
// lanes.
//
// Weights of 32 rows are interleaved (native/README.md), so the 16 lanes of an accumulator are 16 rows and
// nothing is summed across lanes; activations are broadcast four codes at a time from memory.
#define TRITWISE_ISA avx512vnni
#include "kernels.hpp"

namespace tritwise::TRITWISE_ISA {
constexpr int query_tile = 8;      // 8 queries x 2 vectors of a value: 16 accumulators
constexpr int dense_row_tile = 4;  // 4 rows x 6 tokens: 24 accumulators
constexpr int dense_token_tile = 6;
}  // namespace tritwise::TRITWISE_ISA

#include "attention_kernels.hpp"
#include "dense_kernels.hpp"
#include "float_kernels.hpp"
#include "head_products_avx512.hpp"
// Needs the products above.
#include "head_kernels.hpp"
#include "sampling_kernels.hpp"

namespace tritwise::TRITWISE_ISA {

// Bytes ahead of the current load. The hardware prefetcher stops at 4 KiB pages; this runs on over them.
constexpr int prefetch_distance = 4096;

static inline __m512i broadcast4(const std::int8_t* p) {
    std::int32_t word;
    std::memcpy(&word, p, 4);
    return _mm512_set1_epi32(word);
}

static inline void write(const ProductOutput& out, const float* row_scale, int row, int token, __m512i acc,
                         float x_scale, std::int32_t x_sum) {
    // Stored fields are value + 1: sum x (w + 1) - sum x = sum x w.
    acc = _mm512_sub_epi32(acc, _mm512_set1_epi32(x_sum));
    if (out.acc) _mm512_storeu_si512(out.acc + token * out.stride + row, acc);
    if (out.y) {
        const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(x_scale), _mm512_loadu_ps(row_scale + row));
        _mm512_storeu_ps(out.y + token * out.stride + row, _mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale));
    }
}

// One token by 32 rows. Per 128 bytes (512 weights): 2 loads, 4 broadcasts, 8 AND, 8 vpdpbusd, 2 prefetches.
// The fields are not shifted down: field f counts 4^f fold and its sum is shifted once at the end, which is
// exact because every term is a multiple of 4^f. Field 3 is at most 128: |sum| <= 4 * 128 * 128 * K/16 < 2^31
// for K < 2^19.
static void ternary_one(const TernaryMatrix& w, int begin, int end, const QuantisedRows& x,
                        const ProductOutput& out) {
    const __m512i m0 = _mm512_set1_epi8(0x03), m1 = _mm512_set1_epi8(0x0C), m2 = _mm512_set1_epi8(0x30),
                  m3 = _mm512_set1_epi8(static_cast<char>(0xC0));
    const std::int64_t blocks = w.k / block_k;
    const std::uint8_t* p = w.packed + static_cast<std::int64_t>(begin) * blocks * 128;
    for (int group = begin; group < end; ++group) {
        __m512i a0 = _mm512_setzero_si512(), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
        const std::int8_t* codes = x.codes;
        for (std::int64_t block = 0; block < blocks; ++block, p += 128, codes += 16) {
            _mm_prefetch(reinterpret_cast<const char*>(p + prefetch_distance), _MM_HINT_T0);
            _mm_prefetch(reinterpret_cast<const char*>(p + prefetch_distance + 64), _MM_HINT_T0);
            const __m512i a = _mm512_loadu_si512(p), b = _mm512_loadu_si512(p + 64);
            const __m512i x0 = broadcast4(codes), x1 = broadcast4(codes + 4), x2 = broadcast4(codes + 8),
                          x3 = broadcast4(codes + 12);
            a0 = _mm512_dpbusd_epi32(a0, _mm512_and_si512(a, m0), x0);
            a1 = _mm512_dpbusd_epi32(a1, _mm512_and_si512(a, m1), x1);
            a2 = _mm512_dpbusd_epi32(a2, _mm512_and_si512(a, m2), x2);
            a3 = _mm512_dpbusd_epi32(a3, _mm512_and_si512(a, m3), x3);
            b0 = _mm512_dpbusd_epi32(b0, _mm512_and_si512(b, m0), x0);
            b1 = _mm512_dpbusd_epi32(b1, _mm512_and_si512(b, m1), x1);
            b2 = _mm512_dpbusd_epi32(b2, _mm512_and_si512(b, m2), x2);
            b3 = _mm512_dpbusd_epi32(b3, _mm512_and_si512(b, m3), x3);
        }
        const __m512i a_sum =
            _mm512_add_epi32(_mm512_add_epi32(a0, _mm512_srai_epi32(a1, 2)),
                             _mm512_add_epi32(_mm512_srai_epi32(a2, 4), _mm512_srai_epi32(a3, 6)));
        const __m512i b_sum =
            _mm512_add_epi32(_mm512_add_epi32(b0, _mm512_srai_epi32(b1, 2)),
                             _mm512_add_epi32(_mm512_srai_epi32(b2, 4), _mm512_srai_epi32(b3, 6)));
        write(out, w.row_scale, group * group_rows, 0, a_sum, x.scale[0], x.sum[0]);
        write(out, w.row_scale, group * group_rows + 16, 0, b_sum, x.scale[0], x.sum[0]);
    }
}

// Accumulators of T tokens by 32 rows. Kernels keep them in a local array that only constants index, which
// the compiler holds in registers, and leave them here for the code that has to ask which tokens exist.
template <int T>
struct Tile {
    alignas(64) std::int32_t sums[T][group_rows];

    void keep(const __m512i (&acc)[2][T]) {
#pragma GCC unroll 12
        for (int t = 0; t < T; ++t) {
            _mm512_store_si512(sums[t], acc[0][t]);
            _mm512_store_si512(sums[t] + 16, acc[1][t]);
        }
    }
};

template <int T>
static inline void write_tile(const TernaryMatrix& w, int group, const QuantisedRows& x, int token,
                              const ProductOutput& out, const Tile<T>& tile) {
    for (int t = 0; t < T && token + t < x.m; ++t)
        for (int half = 0; half < 2; ++half)
            write(out, w.row_scale, group * group_rows + half * 16, token + t,
                  _mm512_load_si512(tile.sums[t] + half * 16), x.scale[token + t], x.sum[token + t]);
}

// Up to 4Q tokens by 32 rows, unpacked in registers: for batches too small to pay for an unpacked panel.
// Per 128 bytes: 2 loads, 6 shifts, 8 AND, 16 Q broadcasts, 32 Q vpdpbusd.
template <int Q>
static void ternary_few(const TernaryMatrix& w, int begin, int end, const QuantisedRows& x,
                        const ProductOutput& out) {
    const __m512i mask = _mm512_set1_epi8(0x03);
    const std::int64_t blocks = w.k / block_k, quad_stride = static_cast<std::int64_t>(w.k) * quad;
    const std::uint8_t* p = w.packed + static_cast<std::int64_t>(begin) * blocks * 128;
    for (int group = begin; group < end; ++group) {
        __m512i acc[2][4 * Q];
#pragma GCC unroll 12
        for (int t = 0; t < 4 * Q; ++t) acc[0][t] = acc[1][t] = _mm512_setzero_si512();
        const std::int8_t* codes = x.quads;
        for (std::int64_t block = 0; block < blocks; ++block, p += 128, codes += 64) {
            _mm_prefetch(reinterpret_cast<const char*>(p + prefetch_distance), _MM_HINT_T0);
            _mm_prefetch(reinterpret_cast<const char*>(p + prefetch_distance + 64), _MM_HINT_T0);
            __m512i a = _mm512_loadu_si512(p), b = _mm512_loadu_si512(p + 64);
            for (int field = 0; field < 4; ++field) {
                const __m512i u = _mm512_and_si512(a, mask), v = _mm512_and_si512(b, mask);
#pragma GCC unroll 12
                for (int t = 0; t < 4 * Q; ++t) {
                    const __m512i input = broadcast4(codes + t / 4 * quad_stride + field * 16 + t % 4 * 4);
                    acc[0][t] = _mm512_dpbusd_epi32(acc[0][t], u, input);
                    acc[1][t] = _mm512_dpbusd_epi32(acc[1][t], v, input);
                }
                a = _mm512_srli_epi16(a, 2);
                b = _mm512_srli_epi16(b, 2);
            }
        }
        Tile<4 * Q> tile;
        tile.keep(acc);
        write_tile(w, group, x, 0, out, tile);
    }
}

// Bytes [k4][32 rows][4] by T columns of quads. Per 128 bytes: 2 loads, T broadcasts, 2 T vpdpbusd.
template <int T>
static inline void byte_tile(const std::uint8_t* p, std::int64_t k4, const std::int8_t* quads,
                             Tile<T>& tile) {
    const std::int64_t quad_stride = k4 * 16;
    __m512i acc[2][T];
#pragma GCC unroll 12
    for (int t = 0; t < T; ++t) acc[0][t] = acc[1][t] = _mm512_setzero_si512();
    for (std::int64_t i = 0; i < k4; ++i, p += 128, quads += 16) {
        const __m512i a = _mm512_loadu_si512(p), b = _mm512_loadu_si512(p + 64);
#pragma GCC unroll 12
        for (int t = 0; t < T; ++t) {
            const __m512i input = broadcast4(quads + t / 4 * quad_stride + t % 4 * 4);
            acc[0][t] = _mm512_dpbusd_epi32(acc[0][t], a, input);
            acc[1][t] = _mm512_dpbusd_epi32(acc[1][t], b, input);
        }
    }
    tile.keep(acc);
}

// 32 rows x K of 2-bit fields to bytes [K/4][32 rows][4]. Per 128 bytes: 2 loads, 6 shifts, 8 AND, 8 stores.
static void unpack_group(const std::uint8_t* p, std::int64_t blocks, std::uint8_t* panel) {
    const __m512i mask = _mm512_set1_epi8(0x03);
    for (std::int64_t block = 0; block < blocks; ++block, p += 128) {
        __m512i a = _mm512_loadu_si512(p), b = _mm512_loadu_si512(p + 64);
        for (int field = 0; field < 4; ++field, panel += 128) {
            _mm512_storeu_si512(panel, _mm512_and_si512(a, mask));
            _mm512_storeu_si512(panel + 64, _mm512_and_si512(b, mask));
            a = _mm512_srli_epi16(a, 2);
            b = _mm512_srli_epi16(b, 2);
        }
    }
}

template <int T>
static inline void panel_tile(const TernaryMatrix& w, int group, const std::uint8_t* panel,
                              const QuantisedRows& x, int token, const ProductOutput& out) {
    Tile<T> tile;
    byte_tile<T>(panel, w.k / 4, x.quads + static_cast<std::int64_t>(token) * w.k, tile);
    write_tile(w, group, x, token, out, tile);
}

// Many tokens: each group is unpacked once into L2, then all tokens pass over it, 12 at a time (24
// accumulators).
static void ternary_many(const TernaryMatrix& w, int begin, int end, const QuantisedRows& x,
                         const ProductOutput& out, std::uint8_t* panel) {
    const std::int64_t blocks = w.k / block_k;
    for (int group = begin; group < end; ++group) {
        unpack_group(w.packed + group * blocks * 128, blocks, panel);
        int token = 0;
        for (; token + 16 < x.m || (token + 8 < x.m && token + 12 >= x.m); token += 12)
            panel_tile<12>(w, group, panel, x, token, out);
        for (; token + 4 < x.m; token += 8) panel_tile<8>(w, group, panel, x, token, out);  // 16 left: 8 + 8
        if (token < x.m) panel_tile<4>(w, group, panel, x, token, out);
    }
}

static void ternary(const TernaryMatrix& w, int begin, int end, const QuantisedRows& x,
                    const ProductOutput& out, std::uint8_t* scratch) {
    if (x.m == 1) return ternary_one(w, begin, end, x, out);
    if (x.m <= 4) return ternary_few<1>(w, begin, end, x, out);
    if (x.m <= 8) return ternary_few<2>(w, begin, end, x, out);
    if (x.m <= 12) return ternary_few<3>(w, begin, end, x, out);
    ternary_many(w, begin, end, x, out, scratch);
}

static std::uint64_t read(const void* data, std::size_t size) {
    const auto* p = static_cast<const char*>(data);
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    for (std::size_t i = 0; i + 256 <= size; i += 256) {
        _mm_prefetch(p + i + prefetch_distance, _MM_HINT_T0);
        _mm_prefetch(p + i + prefetch_distance + 64, _MM_HINT_T0);
        _mm_prefetch(p + i + prefetch_distance + 128, _MM_HINT_T0);
        _mm_prefetch(p + i + prefetch_distance + 192, _MM_HINT_T0);
        a = _mm512_xor_si512(a, _mm512_loadu_si512(p + i));
        b = _mm512_xor_si512(b, _mm512_loadu_si512(p + i + 64));
        c = _mm512_xor_si512(c, _mm512_loadu_si512(p + i + 128));
        d = _mm512_xor_si512(d, _mm512_loadu_si512(p + i + 192));
    }
    std::uint64_t words[8], result = 0;
    _mm512_storeu_si512(words, _mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d)));
    for (std::uint64_t word : words) result ^= word;
    return result;
}

}  // namespace tritwise::TRITWISE_ISA

namespace tritwise {

const Kernels& kernels_avx512vnni() {
    using namespace avx512vnni;
    static constexpr Kernels table = {
        .name = "avx512vnni",
        .query_tile = query_tile,
        .ternary = ternary,
        .dense = dense,
        .rms_norm = rms_norm,
        .quantise = quantise,
        .quantise_planes = quantise_planes,
        .silu_gate = silu_gate,
        .relu2_gate = relu2_gate,
        .add = add,
        .load_row = load_row,
        .attention = attention,
        .sampling = sampling_kernels,
        .head8 = head8,
        .coarse = coarse,
        .low_sums = low_sums,
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
