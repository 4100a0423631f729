// NEON with the dot product instructions of ARMv8.2 (sdot); nothing of later extensions is needed.
//
// The layout is that of the other kernels (native/README.md): a q register holds 4 rows x 4 bytes, 8 of them
// a group. sdot multiplies signed bytes by signed bytes, four neighbours into each int32, and takes its
// second operand by lane: one load brings the codes of 16 inputs of one token, or of 4 inputs of the four
// tokens of a quad.
//
//     w   | r0: k k+1 k+2 k+3 | r1: ... | r2: ... | r3: ... |
//     x   | codes of k..k+3 in lane 0   | lane 1 | 2  | 3   |      sdot acc.4s, w.16b, x.4b[lane]
#define TRITWISE_ISA neon
#define TRITWISE_NEON_LANES
#include "kernels.hpp"

namespace tritwise::TRITWISE_ISA {
constexpr int query_tile = 4;  // 4 queries x 1 vector x 4 registers: 16 accumulators, 4 for a key or value
constexpr int attention_tile = 4;  // vectors of values or scores in work
constexpr int dense_row_tile = 2;  // 2 rows x 2 tokens x 4 registers: 16 accumulators, 12 for the operands
constexpr int dense_token_tile = 2;
}  // namespace tritwise::TRITWISE_ISA

#include "attention_kernels.hpp"
#include "by_input_neon.hpp"
#include "cache_kernels.hpp"
#include "dense_kernels.hpp"
#include "float_kernels.hpp"
#include "head_products_neon.hpp"
#include "sampling_kernels.hpp"
// Needs the products above.
#include "head_kernels.hpp"

namespace tritwise::TRITWISE_ISA {

constexpr int prefetch_distance = 4096;  // bytes ahead; hardware prefetchers stop at the end of a page

// Fields 0..2 are signed bytes as they are.
static inline int8x16_t as_signed(uint8x16_t bytes) { return vreinterpretq_s8_u8(bytes); }

static inline void write(const ProductOutput& out, const float* row_scale, int row, int token, int32x4_t acc,
                         float x_scale, std::int32_t x_sum) {
    // Stored fields are value + 1: sum x (w + 1) - sum x = sum x w.
    acc = vsubq_s32(acc, vdupq_n_s32(x_sum));
    const std::ptrdiff_t at = out.at(token, row);
    if (out.acc) vst1q_s32(out.acc + at, acc);
    if (out.y) {
        const float32x4_t scale = vmulq_f32(vdupq_n_f32(x_scale), vld1q_f32(row_scale + row));
        vst1q_f32(out.y + at, vmulq_f32(vcvtq_f32_s32(acc), scale));
    }
}

// One token by 32 rows. Per 128 bytes (512 weights): 9 loads, 24 AND, 16 shifts, 32 sdot, 2 prefetches.
// Field 1 is not shifted down: it counts fourfold, and its sum is shifted once at the end, exactly. To leave
// field 2 in place too would need 8 more accumulators than there are registers. |sum| <= 2 * 4 * 128 * K/4 <
// 2^31 for K < 2^23.
static void ternary_one(const TernaryMatrix& w, int begin, int end, const QuantisedRows& x,
                        const ProductOutput& out) {
    const uint8x16_t m0 = vdupq_n_u8(0x03), m1 = vdupq_n_u8(0x0C);
    const std::int64_t blocks = w.k / block_inputs(TernaryPacking::four_a_byte);
    const std::uint8_t* p = w.packed + static_cast<std::int64_t>(begin) * blocks * 128;
    for (int group = begin; group < end; ++group) {
        int32x4_t once[8], fourfold[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) once[i] = fourfold[i] = vdupq_n_s32(0);
        const std::int8_t* codes = x.codes;
        for (std::int64_t block = 0; block < blocks; ++block, p += 128, codes += 16) {
            __builtin_prefetch(p + prefetch_distance);
            __builtin_prefetch(p + prefetch_distance + 64);
            const int8x16_t input = vld1q_s8(codes);
#pragma GCC unroll 8
            for (int i = 0; i < 8; ++i) {
                const uint8x16_t a = vld1q_u8(p + 16 * i);
                once[i] = vdotq_laneq_s32(once[i], as_signed(vandq_u8(a, m0)), input, 0);
                fourfold[i] = vdotq_laneq_s32(fourfold[i], as_signed(vandq_u8(a, m1)), input, 1);
                once[i] = vdotq_laneq_s32(once[i], as_signed(vandq_u8(vshrq_n_u8(a, 4), m0)), input, 2);
                once[i] = vdotq_laneq_s32(once[i], as_signed(vshrq_n_u8(a, 6)), input, 3);
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i)
            write(out, w.row_scale, group * group_rows + 4 * i, 0,
                  vaddq_s32(once[i], vshrq_n_s32(fourfold[i], 2)), x.scale[0], x.sum[0]);
    }
}

// Four rows x 16 inputs: field f of every byte.
static inline void unpack(uint8x16_t a, uint8x16_t (&fields)[4]) {
    const uint8x16_t mask = vdupq_n_u8(0x03);
    fields[0] = vandq_u8(a, mask);
    fields[1] = vandq_u8(vshrq_n_u8(a, 2), mask);
    fields[2] = vandq_u8(vshrq_n_u8(a, 4), mask);
    fields[3] = vshrq_n_u8(a, 6);
}

// Up to 4 tokens by 16 rows, unpacked in registers; a group is passed twice.
// Per 64 bytes: 8 loads, 12 shifts, 12 AND, 64 sdot.
static void ternary_few(const TernaryMatrix& w, int begin, int end, const QuantisedRows& x,
                        const ProductOutput& out) {
    const std::int64_t blocks = w.k / block_inputs(TernaryPacking::four_a_byte);
    for (int half = 2 * begin; half < 2 * end; ++half) {
        const std::uint8_t* p = w.packed + half / 2 * blocks * 128 + half % 2 * 64;
        int32x4_t acc[4][4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i)
            for (int t = 0; t < 4; ++t) acc[i][t] = vdupq_n_s32(0);
        const std::int8_t* codes = x.quads;
        for (std::int64_t block = 0; block < blocks; ++block, p += 128, codes += 64) {
            __builtin_prefetch(p + prefetch_distance);
            const int8x16_t input[4] = {vld1q_s8(codes), vld1q_s8(codes + 16), vld1q_s8(codes + 32),
                                        vld1q_s8(codes + 48)};
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                uint8x16_t fields[4];
                unpack(vld1q_u8(p + 16 * i), fields);
#pragma GCC unroll 4
                for (int field = 0; field < 4; ++field)
#pragma GCC unroll 4
                    for (int t = 0; t < 4; ++t)
                        acc[i][t] = dot(acc[i][t], as_signed(fields[field]), input[field], t);
            }
        }
        for (int t = 0; t < x.m; ++t)
            for (int i = 0; i < 4; ++i)
                write(out, w.row_scale, half * 16 + 4 * i, t, acc[i][t], x.scale[t], x.sum[t]);
    }
}

// 32 rows x K of 2-bit fields to bytes [K/4][32 rows][4]. Per 128 bytes: 8 loads, 24 shifts, 24 AND, 32
// stores.
static void unpack_group(const std::uint8_t* p, std::int64_t blocks, std::uint8_t* panel) {
    for (std::int64_t block = 0; block < blocks; ++block, p += 128, panel += 512) {
        for (int i = 0; i < 8; ++i) {
            uint8x16_t fields[4];
            unpack(vld1q_u8(p + 16 * i), fields);
            for (int field = 0; field < 4; ++field) vst1q_u8(panel + field * 128 + 16 * i, fields[field]);
        }
    }
}

// Bytes [k4][32 rows][4], of which 4R rows are taken, by Q quads of columns: sums[column][row].
// Per 16 R bytes: R + Q loads, 4 R Q sdot.
template <int R, int Q>
static inline void byte_tile(const std::uint8_t* p, std::int64_t k4, const std::int8_t* quads,
                             std::int32_t (*sums)[group_rows]) {
    int32x4_t acc[R][Q][4];
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 3
        for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
            for (int t = 0; t < 4; ++t) acc[i][q][t] = vdupq_n_s32(0);
    for (std::int64_t i = 0; i < k4; ++i, p += 128, quads += 16) {
        int8x16_t w[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) w[r] = as_signed(vld1q_u8(p + 16 * r));
#pragma GCC unroll 3
        for (int q = 0; q < Q; ++q) {
            const int8x16_t input = vld1q_s8(quads + q * k4 * 16);
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
                for (int t = 0; t < 4; ++t) acc[r][q][t] = dot(acc[r][q][t], w[r], input, t);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 3
        for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
            for (int t = 0; t < 4; ++t) vst1q_s32(sums[4 * q + t] + 4 * r, acc[r][q][t]);
}

// All 32 rows by 4Q columns: with one quad 16 rows at a time, with more 8, so that 24 accumulators stay.
template <int Q>
static inline void byte_rows(const std::uint8_t* p, std::int64_t k4, const std::int8_t* quads,
                             std::int32_t (*sums)[group_rows]) {
    constexpr int R = Q == 1 ? 4 : 2;
    for (int row = 0; row < group_rows; row += 4 * R) {
        std::int32_t part[4 * Q][group_rows];
        byte_tile<R, Q>(p + 4 * row, k4, quads, part);
        for (int t = 0; t < 4 * Q; ++t) std::memcpy(sums[t] + row, part[t], 4 * R * sizeof(std::int32_t));
    }
}

template <int Q>
static inline void panel_tile(const TernaryMatrix& w, int group, const std::uint8_t* panel,
                              const QuantisedRows& x, int token, const ProductOutput& out) {
    std::int32_t sums[4 * Q][group_rows];
    byte_rows<Q>(panel, w.k / 4, x.quads + static_cast<std::int64_t>(token) * w.k, sums);
    for (int t = 0; t < 4 * Q && token + t < x.m; ++t)
        for (int row = 0; row < group_rows; row += 4)
            write(out, w.row_scale, group * group_rows + row, token + t, vld1q_s32(sums[t] + row),
                  x.scale[token + t], x.sum[token + t]);
}

// Many tokens: each group is unpacked once, then all tokens pass over it, 12 at a time.
static void ternary_many(const TernaryMatrix& w, int begin, int end, const QuantisedRows& x,
                         const ProductOutput& out, std::uint8_t* panel) {
    const std::int64_t blocks = w.k / block_inputs(TernaryPacking::four_a_byte);
    for (int group = begin; group < end; ++group) {
        if (w.by_input) unpack_inputs(w, group, panel);
        else unpack_group(w.packed + group * blocks * 128, blocks, panel);
        int token = 0;
        for (; token + 16 < x.m || (token + 8 < x.m && token + 12 >= x.m); token += 12)
            panel_tile<3>(w, group, panel, x, token, out);
        for (; token + 4 < x.m; token += 8) panel_tile<2>(w, group, panel, x, token, out);  // 16 left: 8 + 8
        if (token < x.m) panel_tile<1>(w, group, panel, x, token, out);
    }
}

static void ternary(const TernaryMatrix& w, int begin, int end, const QuantisedRows& x,
                    const ProductOutput& out, std::uint8_t* scratch) {
    if (x.m == 1 && !w.by_input) return ternary_one(w, begin, end, x, out);
    if (x.m <= 4 && !w.by_input) return ternary_few(w, begin, end, x, out);
    ternary_many(w, begin, end, x, out, scratch);
}

// 24 accumulators, as of a tile of 12 tokens.
static std::int64_t multiply(std::int64_t rounds, std::uint64_t* sink) {
    const int8x16_t a = vdupq_n_s8(2), x = vdupq_n_s8(static_cast<std::int8_t>(*sink));
    int32x4_t acc[24];
#pragma GCC unroll 24
    for (int i = 0; i < 24; ++i) acc[i] = vdupq_n_s32(i);  // equal ones would be computed once
    for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 24
        for (int i = 0; i < 24; ++i) acc[i] = dot(acc[i], a, x, 0);
    }
#pragma GCC unroll 24
    for (int i = 1; i < 24; ++i) acc[0] = veorq_s32(acc[0], acc[i]);
    const uint64x2_t words = vreinterpretq_u64_s32(acc[0]);
    *sink ^= vgetq_lane_u64(words, 0) ^ vgetq_lane_u64(words, 1);
    return rounds * 24 * 16;
}

static std::uint64_t read(const void* data, std::size_t size) {
    const auto* p = static_cast<const std::uint8_t*>(data);
    uint8x16_t sums[4] = {vdupq_n_u8(0), vdupq_n_u8(0), vdupq_n_u8(0), vdupq_n_u8(0)};
    for (std::size_t i = 0; i + 64 <= size; i += 64) {
        __builtin_prefetch(p + i + prefetch_distance);
        for (int j = 0; j < 4; ++j) sums[j] = veorq_u8(sums[j], vld1q_u8(p + i + 16 * j));
    }
    const uint64x2_t all =
        vreinterpretq_u64_u8(veorq_u8(veorq_u8(sums[0], sums[1]), veorq_u8(sums[2], sums[3])));
    return vgetq_lane_u64(all, 0) ^ vgetq_lane_u64(all, 1);
}

}  // namespace tritwise::TRITWISE_ISA

namespace tritwise {

const Kernels& kernels_neon() {
    using namespace neon;
    static constexpr Kernels table = {
        .name = "neon",
        .packing = TernaryPacking::four_a_byte,
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
    return table;
}

}  // namespace tritwise
