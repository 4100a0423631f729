// The output head as the kernels read it: 8 bits in two planes of nibbles, or 4 bits with a scale for 32 inputs.
//
// A plane holds groups of 32 rows, each [K/8][32 rows][4 bytes]; byte j of a row holds input 8i+j in its low
// nibble and input 8i+4+j in its high one.
#pragma once

#include <cstdint>

namespace tritwise {

constexpr int chunk_k = 32;          // inputs that share a scale in the 4-bit head
constexpr int chunk_bytes = 64 + 512;  // 32 half-precision scales, then 32 rows x 32 nibbles
constexpr int coarse_tokens = 48;      // that one coarse pass takes: a group is read from memory once for all
constexpr int exact_rows = 16;  // computed together when one of them is rescored: they share cache lines

// Tokens for a head: x = scale * (hi * 128 + lo), both planes in one quad layout: token t is columns 2t and
// 2t+1.
struct PlaneRows {
    int m;
    const std::int8_t* quads;       // [2M/4][K/4][4][4]
    const float* scale;             // [M]
    const std::int32_t* sum;        // [2M], sums of the codes
    const std::int32_t* chunk_sum;  // [2M][ceil(K / 32)], the same by chunks; read by the 4-bit head alone
    // hi alone, for the coarse pass: of one token its codes [K], of several [M/4][K/4][4][4].
    const std::int8_t* high;
};

// w = code * row_scale with code + 128 = 16 * high + low.
//
// What the high plane alone tells: with h = high - 8, code = slope * h + offset + r, where least squares over
// the row make r orthogonal to h and to the constant, and spread = |r| / sqrt(K). What hi alone tells of the
// token needs the mean of the row's codes, and code_spread = |code - mean| / sqrt(K).
struct SplitMatrix {
    int rows;  // not padded; storage is, to 32
    int k;     // multiple of 16
    const std::uint8_t *high, *low;
    const float *row_scale, *slope, *offset, *spread, *mean, *code_spread;  // padded rows: 0
};

// w = (nibble - 8) * scale of its row and chunk. A group of 32 rows is [ceil(K / 32)] chunks in one piece: 32
// scales, then [4][32 rows][4 bytes] as above.
struct ChunkMatrix {
    int rows, k;
    const std::uint8_t* groups;
    std::int64_t group_bytes() const { return std::int64_t{(k + chunk_k - 1) / chunk_k} * chunk_bytes; }
};

// A row whose logit could be the largest, in units of the token's scale: an estimate, and what the logit does
// not exceed.
struct CoarseRow {
    int row;
    float estimate, upper;
};

// One thread's search for one token. A row is kept when its upper bound reaches the largest lower bound so far.
struct CoarseSearch {
    // Standard deviations to either side: times |128 hi| for what the high plane leaves, |lo| for the codes.
    float high_width, low_width;
    float bound;  // the largest lower bound, -infinity at first
    int count;
    CoarseRow* found;  // room for all rows
};

}  // namespace tritwise
