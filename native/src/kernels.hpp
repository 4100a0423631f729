// The table of functions that each instruction set fills, and the views of data that they work on.
//
// Axes: M tokens, N outputs (rows of a weight), K inputs. Integer results are exact, so any order gives the
// same bits. Float results have one order, stated where each function is declared and written once, in
// lanes.hpp and the *_kernels.hpp files that every instruction set includes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "head_matrices.hpp"
#include "kv_cache_layout.hpp"

namespace tritwise {

constexpr int group_rows = 32;     // rows that are stored interleaved; weights are padded to it
constexpr int quad = 4;            // tokens that are interleaved for products with M > 1

// How weights lie in a block of 32 rows (native/README.md): four in a byte, which every processor takes apart
// with an AND; five, which needs a byte permutation over 64 entries; or three in five bits, looked up among
// 16 sums of inputs.
enum class TernaryPacking { four_a_byte, five_a_byte, three_in_five_bits };
// Inputs of a block; K is padded to a multiple.
constexpr int block_inputs(TernaryPacking packing) {
    return packing == TernaryPacking::four_a_byte ? 16 : packing == TernaryPacking::five_a_byte ? 20 : 24;
}
// Bytes of a block: 4 for each row, or 5.
constexpr int block_bytes(TernaryPacking packing) {
    return group_rows * (packing == TernaryPacking::three_in_five_bits ? 5 : 4);
}

enum class DType { f32, f16, bf16 };
inline std::size_t size_of(DType type) { return type == DType::f32 ? 4 : 2; }

// M quantised tokens. `quads` holds their codes with four tokens interleaved by four bytes:
//   quads: [M/4][K/4][4 tokens][4 codes], filled only for M > 1; tokens beyond M are zero.
struct QuantisedRows {
    int m;
    int k;                     // that of the weight: padded with zeros
    const std::int8_t* codes;  // of one token [k]; read only for M = 1
    const std::int8_t* quads;
    const float* scale;       // [M]
    const std::int32_t* sum;  // [M], sum of the codes
};

// A weight of packed fields (value + 1); rows is a multiple of group_rows. It lies in groups of rows in the kernel's
// packing, or, four in a byte, one input behind the other, so that inputs that are zero are never read.
struct TernaryMatrix {
    int rows;
    int k;  // multiple of block_inputs(packing)
    const std::uint8_t* packed;
    const float* row_scale;  // [rows], 0 for padding
    bool by_input = false;
};

// Of a matrix that lies by input: a slab is 128 rows of one input in 32 bytes, and an input has an even number of slabs.
// Byte b of a slab holds the rows slab_row(b), + 32, + 64 and + 96, from its low bits on.
constexpr int slab_rows = 128;
constexpr int slab_bytes = 32;
constexpr std::int64_t input_bytes(std::int64_t rows) { return (rows + 255) / 256 * 64; }
// So that interleaving the bytes of four inputs within 16 leaves 8 consecutive rows in 32 bytes.
constexpr int slab_row(int byte) { return byte % 16 / 4 * 8 + byte / 16 * 4 + byte % 4; }

constexpr int list_room = 16;  // numbers that listing inputs may write behind the list

// Where a product goes: acc[m * stride + n - first_row], and y = float(acc) * (x_scale[m] * row_scale[n]) at the same
// place. Either may be null.
struct ProductOutput {
    float* y;
    std::int32_t* acc;
    std::ptrdiff_t stride;
    int first_row = 0;

    std::ptrdiff_t at(int token, int row) const { return token * stride + row - first_row; }
};

// Row-major float weights, rows padded with zeros to a multiple of 16.
struct DenseMatrix {
    int rows;
    int k;  // multiple of 16
    DType type;
    const void* data;
};

constexpr std::int64_t sampling_block = 256;  // weights that are summed together
constexpr int sampling_buckets = 2048;        // of logits; 16 more hold what lies below them

// Passes over a row of n logits, for sampling.cpp. Sums of a block: lane = i mod 16, then the tree; blocks in order.
struct SamplingKernels {
    // The largest logit; false when one is NaN or +infinity.
    bool (*maximum)(const float* row, std::int64_t n, float* maximum);
    // weights = e^((row - maximum) * inverse_temperature), sums = those of the blocks; returns the total.
    double (*weights)(const float* row, std::int64_t n, float maximum, double inverse_temperature, double* weights,
                      double* sums);
    // index = (maximum - row) * scale, rounded down; sampling_buckets + i mod 16 from sampling_buckets on.
    void (*buckets)(const float* row, std::int64_t n, float maximum, float scale, std::int32_t* index);
    // Sets weights to 0 of logits below `logit`, of those equal to it behind `id`, and where they are below `least`.
    double (*cut)(const float* row, std::int64_t n, float logit, std::int32_t id, double least, double* weights,
                  double* sums);
    // -infinity where bit i & 31 of word i >> 5 is 0.
    void (*mask)(float* row, std::int64_t n, const std::uint32_t* mask);
};

// Bytes of scratch that a ternary product needs: unpacked rows and sums of the tokens, or tables of up to
// eight tokens and the codes that they were made from.
constexpr std::int64_t ternary_scratch(std::int64_t k, std::int64_t m) {
    return 96 * k + 16384 + (m + 16) * group_rows * 4;
}

struct Kernels {
    const char* name;
    TernaryPacking packing;
    int query_tile;

    // Products over groups of rows [begin, end). `scratch` holds ternary_scratch() bytes, aligned to 64. It is zeroed
    // before its first use and then written by this function only, which may keep there what the next call can use.
    // A matrix by input is unpacked for each group: only many tokens are worth it.
    void (*ternary)(const TernaryMatrix&, int group_begin, int group_end, const QuantisedRows&,
                    const ProductOutput&, std::uint8_t* scratch);
    // The places of codes that are not zero, k of them, rising; returns how many. May write list_room numbers beyond k.
    int (*list_inputs)(const std::int8_t* codes, std::int64_t k, std::int32_t* inputs);
    // Of a matrix by input and one token: adds (weight + 1) * codes[i] over the listed inputs i to `sums`. It holds
    // 4 * input_bytes(rows) numbers in an order of the kernel's own and is aligned to 64.
    void (*add_inputs)(const TernaryMatrix&, const std::int32_t* inputs, int count, const std::int8_t* codes,
                       std::int32_t* sums);
    // The token's y and acc, of which acc may be null, from the sums of `parts` that lie `stride` apart; leaves zeros.
    void (*collect_inputs)(const TernaryMatrix&, std::int32_t* sums, int parts, std::int64_t stride, float x_scale,
                           std::int32_t x_sum, float* y, std::int32_t* acc);
    // Rows [begin, end): y[m * stride + n] = sum of fused multiply-adds over 16 lanes, lane = k mod 16, then
    // the tree.
    void (*dense)(const DenseMatrix&, int row_begin, int row_end, const float* x, std::ptrdiff_t x_stride,
                  int m, float* y, std::ptrdiff_t stride);

    // The following take n padded to 16 with zeros.
    // out = weight * (x * (1 / sqrt(sum(x^2) / count + eps))); the sum in 16 lanes, then the tree.
    void (*rms_norm)(const float* x, const float* weight, int n, int count, float eps, float* out);
    // codes = round_even(x * (127 / max(|x|max, 1e-5))); scale = max(|x|max, 1e-5) / 127; sum of the codes.
    void (*quantise)(const float* x, int n, std::int8_t* codes, float* scale, std::int32_t* sum);
    // The same with 127 * 128 steps, as two planes hi * 128 + lo with |hi| <= 127 and -64 <= lo <= 63.
    void (*quantise_planes)(const float* x, int n, std::int8_t* hi, std::int8_t* lo, float* scale,
                            std::int32_t* sums);
    // out = silu(gate) * up, with silu(g) = g / (1 + exp(-g)).
    void (*silu_gate)(const float* gate, const float* up, int n, float* out);
    // out = max(gate, 0)^2 * up.
    void (*relu2_gate)(const float* gate, const float* up, int n, float* out);
    void (*add)(float* x, const float* y, int n);
    // Of any length: the pairs (x[i], x[i + half]) turned by their angles, each product and sum rounded.
    void (*rotate)(float* x, const float* cosines, const float* sines, int half);
    void (*load_row)(const DenseMatrix&, std::int64_t row, float* out);
    // softmax(scale * q k) v. Scores: fused multiply-adds over d in order, a group's sum times its scale added
    // to those before it. In a piece: the sum of exponentials in 16 lanes, lane = position mod 16, then the
    // tree; values in fused multiply-adds over positions in order, the weight times the value's scale. Pieces:
    // both sides times exp(own largest - largest of both), in order. In the end times 1 / sum.
    void (*attention)(const AttentionTask&);
    // out [head_dim] from the states of pieces 0..pieces-1, each attention_state() floats; overwrites the
    // first one.
    void (*merge_attention)(const CacheLayout&, float* states, int pieces, float* out);
    // A position's key and value [head_dim] into a region, rounded to its type (native/README.md). float16
    // saturates.
    void (*cache_position)(const CacheLayout&, char* region, int position_in_page, const float* key,
                           const float* value);

    SamplingKernels sampling;

    // The head, products over groups of rows [begin, end).
    // y[m * stride + n] = fma(float(acc_hi), 128, float(acc_lo)) * (scale[m] * row_scale[n]).
    void (*head8)(const SplitMatrix&, int begin, int end, const PlaneRows&, float* y, std::ptrdiff_t stride);
    // Adds to searches[m] every row of at most coarse_tokens tokens that could have the largest logit.
    void (*coarse)(const SplitMatrix&, int begin, int end, const PlaneRows&, CoarseSearch* searches);
    // sums[0], sums[1]: sum code * hi and sum code * lo of one token by the exact_rows rows of a block.
    void (*exact_sums)(const SplitMatrix&, int block, const PlaneRows&, int token,
                       std::int32_t (*sums)[group_rows]);
    // y = scale[m] * sum over chunks of float(128 * acc_hi + acc_lo) * chunk scale, a chain of fused multiply-adds.
    void (*head4)(const ChunkMatrix&, int begin, int end, const PlaneRows&, float* y, std::ptrdiff_t stride);
    // The first of the largest, -1 when that is NaN or infinite.
    std::int32_t (*best_of)(const float* logits, int n);

    // For packing a head; k is a multiple of 16. `high` and `low` point to the row's first bytes in its group.
    void (*split_row)(const std::int8_t* codes, int k, int count, std::uint8_t* high, std::uint8_t* low,
                      float* slope, float* offset, float* spread, float* mean, float* code_spread);
    void (*chunk_row)(const float* values, int k, std::uint8_t* group, int row_in_group);
    void (*half_row)(const float* values, int n, std::uint16_t* out);
    bool (*all_finite)(const void* data, DType type, std::int64_t n);

    std::uint64_t (*read)(const void* data,
                          std::size_t bytes);  // for measuring bandwidth: xor of all 64-bit words
    // For measuring the processor: `rounds` times what the innermost loop of `ternary` multiplies and adds up for many
    // tokens, without a load. Returns the number of products; *sink depends on all of them.
    std::int64_t (*multiply)(std::int64_t rounds, std::uint64_t* sink);
};

const Kernels& kernels_scalar();
#if defined(__x86_64__)
const Kernels& kernels_avx2();
const Kernels& kernels_avxvnni();
const Kernels& kernels_avx512vnni();
const Kernels& kernels_avx512vbmi();
#elif defined(__aarch64__)
const Kernels& kernels_neon();
#endif

// Runnable on this processor, fastest first.
std::vector<const Kernels*> available_kernels();
const Kernels& kernels_named(const std::string& name);  // throws std::invalid_argument

}  // namespace tritwise
