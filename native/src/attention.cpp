// Rotary embedding, the cache and attention of a chunk.
#include <algorithm>
#include <cmath>

#include "chunk.hpp"

namespace tritwise {

// Rotary embedding (half-split pairs) of the row's queries and keys in place, then its keys and values to the
// cache.
void Model::rotate_and_cache(const Chunk& chunk, int layer, std::int64_t row) {
    const int dims = config_.head_dim, half = dims / 2;
    const float* cosines = rope_.as<float>() + row * dims;
    const float* sines = cosines + half;
    float* q = qkv_.as<float>() + row * qkv_stride_;
    float* k = q + weights_.q_rows;
    const float* v = k + weights_.kv_rows;
    for (int head = 0; head < config_.heads + config_.kv_heads; ++head) {
        float* x = head < config_.heads ? q + head * dims : k + (head - config_.heads) * dims;
        for (int i = 0; i < half; ++i) {
            const float a = x[i], b = x[i + half];
            x[i] = a * cosines[i] - b * sines[i];
            x[i + half] = b * cosines[i] + a * sines[i];
        }
    }
    for (int head = 0; head < config_.kv_heads; ++head)
        cache_.write(chunk.slots[row], layer, head, chunk.positions[row], k + head * dims, v + head * dims);
}

void Model::attend(const Chunk& chunk, int layer) {
    // A call of the kernel takes queries of one key-value head and one sequence: neighbouring tokens, and the
    // heads that share the key-value head. How they are grouped changes the speed only.
    const int dims = config_.head_dim, group = config_.heads / config_.kv_heads;
    int heads_each = std::min(group, kernels_.query_tile);
    const auto calls = [&] { return chunk.n * config_.kv_heads * ((group + heads_each - 1) / heads_each); };
    while (chunk.n < 4 && heads_each > 1 && calls() < 4 * pool_.size()) heads_each = (heads_each + 1) / 2;
    const int parts = (group + heads_each - 1) / heads_each;
    const std::int64_t tokens_each = std::max(1, kernels_.query_tile / heads_each);

    struct Span {
        std::int64_t begin, end;
    };
    std::vector<Span> spans;
    for (std::int64_t begin = 0; begin < chunk.n;) {
        std::int64_t end = begin + 1;
        while (end < chunk.n && end - begin < tokens_each && chunk.slots[end] == chunk.slots[begin]) ++end;
        spans.push_back({begin, end});
        begin = end;
    }
    const std::int64_t tasks = static_cast<std::int64_t>(spans.size()) * config_.kv_heads * parts;
    pool_.for_ranges(tasks, [&](std::int64_t first, std::int64_t last, int thread) {
        AttentionTask task{};
        task.head_dim = dims;
        task.value_stride = cache_.value_stride();
        task.scale = 1.0f / std::sqrt(static_cast<float>(dims));
        task.scratch = attention_scratch_.as<float>() + thread * attention_scratch_floats_;
        for (std::int64_t i = first; i < last; ++i) {
            // Later tokens see more positions: the long calls first, so that no thread is left with one at
            // the end.
            const Span span = spans[spans.size() - 1 - i / (config_.kv_heads * parts)];
            const int kv_head = static_cast<int>(i / parts % config_.kv_heads),
                      part = static_cast<int>(i % parts);
            const int slot = chunk.slots[span.begin];
            task.keys = cache_.keys(slot, layer, kv_head);
            task.values = cache_.values(slot, layer, kv_head);
            task.queries = 0;
            for (std::int64_t row = span.begin; row < span.end; ++row) {
                for (int j = part * heads_each; j < std::min(group, (part + 1) * heads_each); ++j) {
                    const std::int64_t offset = std::int64_t{kv_head * group + j} * dims;
                    task.query[task.queries] = qkv_.as<float>() + row * qkv_stride_ + offset;
                    task.out[task.queries] = attention_.as<float>() + row * attention_stride_ + offset;
                    task.length[task.queries++] = chunk.positions[row] + 1;
                }
            }
            kernels_.attention(task);
        }
    });
}

}  // namespace tritwise
