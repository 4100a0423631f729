// AVX-512 with VNNI: vpdpbusd multiplies 64 unsigned by 64 signed bytes and adds them in fours to 16 int32
// lanes. Included by the files of both packings, each of which defines TRITWISE_ISA and `Packing` before.
//
// Weights of 32 rows are interleaved (native/README.md), so the 16 lanes of an accumulator are 16 rows and
// nothing is summed across lanes; activations are broadcast four codes at a time from memory.
//
//     struct Packing {
//         static constexpr TernaryPacking kind;
//         static constexpr int fields;           // weights in a byte
//         static constexpr int shift[fields];    // the place of field f in what `masked` leaves
//         static constexpr int segments;         // runs of neighbouring inputs that a few blocks hold
//         static std::int64_t input(k, block, field)              first of its four inputs; of a segment, too
//         void masked(__m512i bytes, __m512i (&out)[fields])      out[f] = (weight + 1) << shift[f]
//         void plain(__m512i bytes, __m512i (&out)[fields])       out[f] = weight + 1
//     };
#pragma once

namespace tritwise::TRITWISE_ISA {
constexpr int query_tile = 8;      // 8 queries x 2 vectors of a value: 16 accumulators
constexpr int attention_tile = 16;  // vectors of values or scores in work
constexpr int dense_row_tile = 4;  // 4 rows x 6 tokens: 24 accumulators
constexpr int dense_token_tile = 6;
}  // namespace tritwise::TRITWISE_ISA

#include "attention_kernels.hpp"
#include "by_input_avx512.hpp"
#include "cache_kernels.hpp"
#include "dense_kernels.hpp"
#include "float_kernels.hpp"
#include "head_products_avx512.hpp"
// Needs the products above.
#include "head_kernels.hpp"
#include "sampling_kernels.hpp"

namespace tritwise::TRITWISE_ISA {

// A block of either packing, and a step of a panel: 4 for each of 32 rows.
constexpr std::int64_t step_bytes = 128;

// Bytes ahead of the current load. The hardware prefetcher stops at 4 KiB pages; this runs on over them.
constexpr int prefetch_distance = 4096;

static_assert(step_bytes == block_bytes(Packing::kind));

static inline __m512i broadcast4(const std::int8_t* p) {
    std::int32_t word;
    std::memcpy(&word, p, 4);
    return _mm512_set1_epi32(word);
}

static inline void write(const ProductOutput& out, const float* row_scale, int row, int token, __m512i acc,
                         float x_scale, std::int32_t x_sum) {
    // Stored fields are value + 1: sum x (w + 1) - sum x = sum x w.
    acc = _mm512_sub_epi32(acc, _mm512_set1_epi32(x_sum));
    if (out.acc) _mm512_storeu_si512(out.acc + out.at(token, row), acc);
    if (out.y) {
        const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(x_scale), _mm512_loadu_ps(row_scale + row));
        _mm512_storeu_ps(out.y + out.at(token, row), _mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale));
    }
}

// One token by 32 rows. The fields are not shifted down: field f counts 2^shift fold and its sum is shifted once
// at the end, which is exact because every term is a multiple. A field is at most 128:
// |sum| <= 4 * 128 * 128 * K/16 < 2^31 for K < 2^19.
static void ternary_one(const TernaryMatrix& w, int begin, int end, const QuantisedRows& x,
                        const ProductOutput& out) {
    const Packing packing;
    const std::int64_t blocks = w.k / block_inputs(Packing::kind);
    const std::uint8_t* p = w.packed + begin * blocks * step_bytes;
    for (int group = begin; group < end; ++group) {
        __m512i acc[2][Packing::fields];
#pragma GCC unroll 5
        for (int f = 0; f < Packing::fields; ++f) acc[0][f] = acc[1][f] = _mm512_setzero_si512();
        for (std::int64_t block = 0; block < blocks; ++block, p += step_bytes) {
            _mm_prefetch(reinterpret_cast<const char*>(p + prefetch_distance), _MM_HINT_T0);
            _mm_prefetch(reinterpret_cast<const char*>(p + prefetch_distance + 64), _MM_HINT_T0);
            __m512i a[Packing::fields], b[Packing::fields];
            packing.masked(_mm512_loadu_si512(p), a);
            packing.masked(_mm512_loadu_si512(p + 64), b);
#pragma GCC unroll 5
            for (int f = 0; f < Packing::fields; ++f) {
                const __m512i input = broadcast4(x.codes + Packing::input(w.k, block, f));
                acc[0][f] = _mm512_dpbusd_epi32(acc[0][f], a[f], input);
                acc[1][f] = _mm512_dpbusd_epi32(acc[1][f], b[f], input);
            }
        }
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            __m512i sum = acc[half][0];
#pragma GCC unroll 5
            for (int f = 1; f < Packing::fields; ++f)
                sum = _mm512_add_epi32(sum, _mm512_srai_epi32(acc[half][f], Packing::shift[f]));
            write(out, w.row_scale, group * group_rows + half * 16, 0, sum, x.scale[0], x.sum[0]);
        }
    }
}

template <int T>
struct Tokens {
    static constexpr int count = T;
};

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
template <int Q>
static void ternary_few(const TernaryMatrix& w, int begin, int end, const QuantisedRows& x,
                        const ProductOutput& out) {
    const Packing packing;
    const std::int64_t blocks = w.k / block_inputs(Packing::kind),
                       quad_stride = static_cast<std::int64_t>(w.k) * quad;
    const std::uint8_t* p = w.packed + begin * blocks * step_bytes;
    for (int group = begin; group < end; ++group) {
        __m512i acc[2][4 * Q];
#pragma GCC unroll 12
        for (int t = 0; t < 4 * Q; ++t) acc[0][t] = acc[1][t] = _mm512_setzero_si512();
        for (std::int64_t block = 0; block < blocks; ++block, p += step_bytes) {
            _mm_prefetch(reinterpret_cast<const char*>(p + prefetch_distance), _MM_HINT_T0);
            _mm_prefetch(reinterpret_cast<const char*>(p + prefetch_distance + 64), _MM_HINT_T0);
            __m512i a[Packing::fields], b[Packing::fields];
            packing.plain(_mm512_loadu_si512(p), a);
            packing.plain(_mm512_loadu_si512(p + 64), b);
#pragma GCC unroll 5
            for (int f = 0; f < Packing::fields; ++f) {
                const std::int8_t* codes = x.quads + Packing::input(w.k, block, f) * quad;
#pragma GCC unroll 12
                for (int t = 0; t < 4 * Q; ++t) {
                    const __m512i input = broadcast4(codes + t / 4 * quad_stride + t % 4 * 4);
                    acc[0][t] = _mm512_dpbusd_epi32(acc[0][t], a[f], input);
                    acc[1][t] = _mm512_dpbusd_epi32(acc[1][t], b[f], input);
                }
            }
        }
        Tile<4 * Q> tile;
        tile.keep(acc);
        write_tile(w, group, x, 0, out, tile);
    }
}

// Many tokens: blocks of a group are unpacked into the first-level cache, about `panel_steps` steps of four inputs at
// a time, and all tokens pass over them, 12 at a time (24 accumulators). The sums wait in `sums` [token][32 rows]
// between two panels; loading and storing them is a percent of a panel's work.
constexpr std::int64_t panel_steps = 128;  // of 128 bytes: half of a 32 KiB cache

// A matrix in groups, in the kernel's packing.
struct ByGroup {
    static constexpr int fields = Packing::fields, segments = Packing::segments;
    static std::int64_t input(std::int64_t k, std::int64_t block, int segment) {
        return Packing::input(k, block, segment);
    }
    static std::int64_t blocks(const TernaryMatrix& w) { return w.k / block_inputs(Packing::kind); }
    static void unpack(const TernaryMatrix& w, int group, std::int64_t first, std::int64_t count, std::uint8_t* panel);
};

// A matrix by input: a block is four inputs.
struct ByInput {
    static constexpr int fields = 1, segments = 1;
    static std::int64_t input(std::int64_t, std::int64_t block, int) { return block * 4; }
    static std::int64_t blocks(const TernaryMatrix& w) { return w.k / 4; }
    static void unpack(const TernaryMatrix& w, int group, std::int64_t first, std::int64_t count, std::uint8_t* panel) {
        unpack_inputs<false>(w, group, first * 4, count * 4, panel);
    }
};

void ByGroup::unpack(const TernaryMatrix& w, int group, std::int64_t first, std::int64_t count, std::uint8_t* panel) {
    const std::uint8_t* p = w.packed + (group * blocks(w) + first) * step_bytes;
    const Packing packing;
    for (std::int64_t block = 0; block < count; ++block, p += step_bytes) {
        // The blocks of the next panel or group: they come while the tokens pass over this one.
        _mm_prefetch(reinterpret_cast<const char*>(p + prefetch_distance), _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(p + prefetch_distance + 64), _MM_HINT_T0);
        __m512i a[Packing::fields], b[Packing::fields];
        packing.plain(_mm512_loadu_si512(p), a);
        packing.plain(_mm512_loadu_si512(p + 64), b);
#pragma GCC unroll 5
        for (int f = 0; f < Packing::fields; ++f) {
            // As if the matrix ended here: the fields of a block lie in order of their inputs.
            const std::int64_t step = input(count * block_inputs(Packing::kind), block, f) / 4;
            _mm512_storeu_si512(panel + step * step_bytes, a[f]);
            _mm512_storeu_si512(panel + step * step_bytes + 64, b[f]);
        }
    }
}

template <int T, class Order>
static inline void panel_tile(const std::uint8_t* panel, std::int64_t k, std::int64_t first_block,
                              std::int64_t blocks, const std::int8_t* quads, std::int32_t* sums) {
    const std::int64_t quad_stride = k * quad;
    const std::int64_t steps = blocks * Order::fields / Order::segments;
    __m512i acc[2][T];
#pragma GCC unroll 12
    for (int t = 0; t < T; ++t) {
        acc[0][t] = first_block ? _mm512_load_si512(sums + t * group_rows) : _mm512_setzero_si512();
        acc[1][t] = first_block ? _mm512_load_si512(sums + t * group_rows + 16) : _mm512_setzero_si512();
    }
    for (int segment = 0; segment < Order::segments; ++segment) {
        const std::int8_t* codes = quads + Order::input(k, first_block, segment) * quad;
        for (std::int64_t i = 0; i < steps; ++i, panel += step_bytes, codes += 4 * quad) {
            const __m512i a = _mm512_loadu_si512(panel), b = _mm512_loadu_si512(panel + 64);
#pragma GCC unroll 12
            for (int t = 0; t < T; ++t) {
                const __m512i input = broadcast4(codes + t / 4 * quad_stride + t % 4 * 4);
                acc[0][t] = _mm512_dpbusd_epi32(acc[0][t], a, input);
                acc[1][t] = _mm512_dpbusd_epi32(acc[1][t], b, input);
            }
        }
    }
#pragma GCC unroll 12
    for (int t = 0; t < T; ++t) {
        _mm512_store_si512(sums + t * group_rows, acc[0][t]);
        _mm512_store_si512(sums + t * group_rows + 16, acc[1][t]);
    }
}

template <class Order>
static void ternary_many(const TernaryMatrix& w, int begin, int end, const QuantisedRows& x,
                         const ProductOutput& out, std::uint8_t* scratch) {
    const std::int64_t blocks = Order::blocks(w), at_once = panel_steps / Order::fields;
    auto* sums = reinterpret_cast<std::int32_t*>(scratch + panel_steps * step_bytes);
    for (int group = begin; group < end; ++group) {
        for (std::int64_t first = 0; first < blocks; first += at_once) {
            const std::int64_t count = blocks - first < at_once ? blocks - first : at_once;
            Order::unpack(w, group, first, count, scratch);
            const auto tile = [&](auto tokens, int token) {
                panel_tile<decltype(tokens)::count, Order>(scratch, w.k, first, count,
                                                    x.quads + std::int64_t{token} * w.k, sums + token * group_rows);
            };
            int token = 0;
            for (; token + 16 < x.m || (token + 8 < x.m && token + 12 >= x.m); token += 12)
                tile(Tokens<12>{}, token);
            for (; token + 4 < x.m; token += 8) tile(Tokens<8>{}, token);  // 16 left: 8 + 8
            if (token < x.m) tile(Tokens<4>{}, token);
        }
        for (int token = 0; token < x.m; ++token)
            for (int half = 0; half < 2; ++half)
                write(out, w.row_scale, group * group_rows + half * 16, token,
                      _mm512_load_si512(sums + token * group_rows + half * 16), x.scale[token], x.sum[token]);
    }
}

static void ternary(const TernaryMatrix& w, int begin, int end, const QuantisedRows& x,
                    const ProductOutput& out, std::uint8_t* scratch) {
    if (w.by_input) return ternary_many<ByInput>(w, begin, end, x, out, scratch);
    if (x.m == 1) return ternary_one(w, begin, end, x, out);
    if (x.m <= 4) return ternary_few<1>(w, begin, end, x, out);
    if (x.m <= 8) return ternary_few<2>(w, begin, end, x, out);
    if (x.m <= 12) return ternary_few<3>(w, begin, end, x, out);
    ternary_many<ByGroup>(w, begin, end, x, out, scratch);
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

// 24 accumulators, as of a tile of 12 tokens.
static std::int64_t multiply(std::int64_t rounds, std::uint64_t* sink) {
    __m512i acc[2][12];
    const __m512i a = _mm512_set1_epi8(2), x = _mm512_set1_epi8(static_cast<char>(*sink));
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) acc[0][i] = acc[1][i] = _mm512_setzero_si512();
    for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
        for (int i = 0; i < 12; ++i) {
            // Equal chains would be computed once.
            __asm__("" : "+v"(acc[0][i]), "+v"(acc[1][i]));
            acc[0][i] = _mm512_dpbusd_epi32(acc[0][i], a, x);
            acc[1][i] = _mm512_dpbusd_epi32(acc[1][i], a, x);
        }
    }
    Tile<12> tile;
    tile.keep(acc);
    for (const auto& sums : tile.sums)
        for (const std::int32_t sum : sums) *sink ^= static_cast<std::uint64_t>(sum);
    return rounds * 24 * 64;
}

static constexpr Kernels make_table(const char* name) {
    return {
        .name = name,
        .packing = Packing::kind,
        .query_tile = query_tile,
        .ternary = ternary,
        .list_inputs = list_inputs,
        .add_inputs = add_inputs,
        .collect_inputs = collect_inputs,
        .dense = dense,
        .rms_norm = rms_norm,
        .quantise = quantise,
        .quantise_planes = quantise_planes,
        .silu_gate = silu_gate,
        .relu2_gate = relu2_gate,
        .add = add,
        .rotate = rotate,
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
        .multiply = multiply,
    };
}

}  // namespace tritwise::TRITWISE_ISA
