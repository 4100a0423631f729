// What the files of the forward pass share: the chunk of tokens in work, and how a trace is written.
#pragma once

#include <algorithm>
#include <cstring>

#include "model.hpp"

namespace tritwise {

// Tokens that pass through the layers together. More would only enlarge the activations: at 256 the unpacking
// of a weight is already below one percent of the work done with it.
constexpr std::int64_t chunk_tokens = 256;

struct Model::Chunk {
    const std::int32_t *tokens, *slots, *positions;
    std::int64_t n;
    std::int64_t first;              // this chunk's first token in the whole call
    const std::int32_t* logits_for;  // rows within the whole call
    std::int64_t logits_rows;
    float* logits;  // [logits_rows, vocab]
    const std::int32_t* best_for;
    std::int64_t best_rows;
    std::int32_t* best;  // [best_rows]
    Trace* trace;
};

inline std::size_t floats(std::int64_t count) { return static_cast<std::size_t>(count) * sizeof(float); }

inline void Model::for_rows(const Chunk& chunk, auto&& work) {
    pool_.for_ranges(chunk.n, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t row = begin; row < end; ++row) work(row);
    });
}

inline void Model::for_rows(Part part, const Chunk& chunk, auto&& work) {
    const Profile::Timer timer(profile_, part);
    for_rows(chunk, work);
}

inline TraceArray& append(Trace& trace, const std::string& name, TraceArray::Type type, std::int64_t width,
                          const void* data) {
    TraceArray& array = trace[name];
    array.type = type;
    array.width = width;
    const auto* bytes = static_cast<const char*>(data);
    array.data.insert(array.data.end(), bytes,
                      bytes + std::max<std::int64_t>(width, 1) * (type == TraceArray::i8 ? 1 : 4));
    return array;
}

inline void trace_rows(Trace& trace, const std::string& name, const float* data, std::int64_t stride,
                       std::int64_t width, std::int64_t rows) {
    for (std::int64_t m = 0; m < rows; ++m) append(trace, name, TraceArray::f32, width, data + m * stride);
}

}  // namespace tritwise
