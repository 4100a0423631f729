// How keys and values lie in a page, and what an attention call works on. Read by the cache, which allocates,
// and by every kernel.
//
// A page holds `page_positions` positions of one sequence for all layers. Each (layer, key-value head) has one
// region in it, which is read from beginning to end:
//
//   keys          [block of 16 positions][head_dim][16]    a vector is one dimension of 16 keys
//   key scales    [block][groups][16]
//   values        [position][value_width]                  a vector is 16 dimensions of one value
//   value scales  [block][groups][16]
//
// f32, f16: an element as such, no scales. int8: a code, one float32 scale (groups = 1) a position and head.
// int4: groups of 32 dimensions with a float16 scale; a byte holds two codes + 8, the lower four bits first:
//   keys    [block][head_dim / 2][16]    dimensions 2i and 2i+1 of one position
//   values  [position][groups][16]       dimensions 32g+i and 32g+16+i
#pragma once

#include <cstddef>
#include <cstdint>

namespace tritwise {

enum class CacheType { f32, f16, int8, int4 };

constexpr int page_positions = 64;    // a multiple of 16
constexpr int piece_positions = 256;  // a multiple of page_positions; the softmax is merged piece by piece
constexpr int int4_group = 32;        // dimensions that share a scale
constexpr int attention_queries = 8;  // that one attention call can take at most

struct CacheLayout {
    CacheType type;
    int head_dim;
    int value_width;  // head_dim padded with zeros: to 16, int4 to 32
    int groups;       // scales of a key or a value
    // Bytes from the beginning of a region; keys begin at 0.
    std::int64_t key_scales, values, value_scales, region_bytes;

    CacheLayout(CacheType t, int dims) : type(t), head_dim(dims) {
        const int step = t == CacheType::int4 ? int4_group : 16;
        value_width = (dims + step - 1) / step * step;
        groups = t == CacheType::int4 ? value_width / int4_group : t == CacheType::int8 ? 1 : 0;
        const std::int64_t scales = std::int64_t{page_positions} * groups * (t == CacheType::int4 ? 2 : 4);
        key_scales = bytes(std::int64_t{page_positions} * dims);
        values = (key_scales + scales + 63) / 64 * 64;
        value_scales = values + bytes(std::int64_t{page_positions} * value_width);
        region_bytes = (value_scales + scales + 63) / 64 * 64;
    }
    std::int64_t bytes(std::int64_t elements) const {
        return type == CacheType::f32    ? elements * 4
               : type == CacheType::f16  ? elements * 2
               : type == CacheType::int8 ? elements
                                         : elements / 2;
    }
};

// Queries of one key-value head and one sequence. The positions are read in pieces of `piece_positions`; each
// piece gives the largest score, the sum of exponentials below it and the weighted values, and pieces are
// merged in order, beginning with the first. A call with `state` null does that for all positions and writes
// `out`; one with `state` computes piece `piece` only and leaves the merge to `merge_attention`.
struct AttentionTask {
    const CacheLayout* layout;
    const char* base;           // the region in page 0 of the pool; page p's lies p * page_bytes further on
    std::int64_t page_bytes;
    const std::int32_t* pages;  // of the sequence
    float scale;
    int queries;                           // 1..query_tile
    const float* query[attention_queries];
    int length[attention_queries];         // query i sees positions 0..length[i]-1
    float* out[attention_queries];         // head_dim floats each
    float* state[attention_queries];       // attention_state() floats each, or the first one null
    int piece;
    bool few;                              // tokens in the call: keys and values come from memory, not from a cache
    float* scratch;                        // attention_scratch() floats
};

// Largest score, sum, 14 floats of padding, then the values.
constexpr int attention_state(int value_width) { return 16 + value_width; }
constexpr int attention_scratch(const CacheLayout& layout) {
    return attention_queries * (layout.value_width + 2 * attention_state(layout.value_width) +
                                2 * piece_positions);
}

}  // namespace tritwise
