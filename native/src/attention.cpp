// Rotary embedding, the cache and attention of a chunk.
#include <algorithm>
#include <cmath>

#include "chunk.hpp"

namespace tritwise {

// RMSNorm of one head's query or key in place. A head need not be padded: the norm works in `room`.
void Model::norm_head(float* x, const float* weight, float* room) const {
    const int dims = config_.head_dim, padded = static_cast<int>(round_up(dims, 16));
    std::copy_n(x, dims, room);
    std::fill(room + dims, room + padded, 0.0f);
    kernels_.rms_norm(room, weight, padded, dims, config_.eps, room);
    std::copy_n(room, dims, x);
}

// Norms of heads, if there are any, and rotary embedding (half-split pairs) of the row's queries and keys in place,
// then its keys and values to the cache.
void Model::rotate_and_cache(const Chunk& chunk, int layer, std::int64_t row) {
    const int dims = config_.head_dim, half = dims / 2;
    const float* cosines = rope_.as<float>() + row * dims;
    const float* sines = cosines + half;
    float* q = qkv_.as<float>() + row * qkv_stride_;
    float* k = q + weights_.q_rows;
    const float* v = k + weights_.kv_rows;
    const LayerWeights& weights = weights_.layers[layer];
    for (int head = 0; head < config_.heads + config_.kv_heads; ++head) {
        float* x = head < config_.heads ? q + head * dims : k + (head - config_.heads) * dims;
        if (const float* norm = head < config_.heads ? weights.q_norm : weights.k_norm)
            norm_head(x, norm, scratch_.as<float>() + row * input_stride_);
        kernels_.rotate(x, cosines, sines, half);
    }
    const int position = chunk.positions[row];
    for (int head = 0; head < config_.kv_heads; ++head)
        kernels_.cache_position(cache_.layout(), cache_.region(chunk.slots[row], layer, head, position),
                                position % page_positions, k + head * dims, v + head * dims);
}

// How the attention of a chunk is cut into calls: the same for every layer. It changes the speed only.
void Model::plan_attention(const Chunk& chunk) {
    // A call of the kernel takes queries of one key-value head and one sequence: neighbouring tokens, and the
    // heads that share the key-value head.
    const int group = config_.heads / config_.kv_heads, threads = pool_.size();
    const auto pieces_of = [](int length) { return (length + piece_positions - 1) / piece_positions; };
    int heads_each = std::min(group, kernels_.query_tile), parts = (group + heads_each - 1) / heads_each;
    if (chunk.n < 4 && threads > 1) {
        std::int64_t pieces = 0;
        for (std::int64_t row = 0; row < chunk.n; ++row) pieces += pieces_of(chunk.positions[row] + 1);
        while (heads_each > 1 && pieces * config_.kv_heads * parts < 4 * threads) {
            heads_each = (heads_each + 1) / 2;
            parts = (group + heads_each - 1) / heads_each;
        }
    }
    const std::int64_t tokens_each = std::max(1, kernels_.query_tile / heads_each);
    struct Span {
        std::int64_t begin, end;
    };
    std::vector<Span> spans;
    std::int64_t total = 0;  // positions that all calls read
    for (std::int64_t begin = 0; begin < chunk.n;) {
        std::int64_t end = begin + 1;
        while (end < chunk.n && end - begin < tokens_each && chunk.slots[end] == chunk.slots[begin]) ++end;
        spans.push_back({begin, end});
        total += std::int64_t{chunk.positions[end - 1] + 1} * config_.kv_heads * parts;
        begin = end;
    }
    heads_each_ = heads_each;
    calls_.clear();
    merges_.clear();
    std::int64_t states = 0;
    // Later tokens see more positions: the long calls first, so that no thread is left with one at the end.
    for (auto span = spans.rbegin(); span != spans.rend(); ++span) {
        const int length = chunk.positions[span->end - 1] + 1, pieces = pieces_of(length);
        // A call that takes more than a quarter of a thread's share is cut into pieces, which are merged
        // afterwards. There are fewer than 4 * threads of those, which bounds the memory of their states.
        const bool cut = threads > 1 && pieces > 1 && std::int64_t{length} * 4 * threads > total;
        const auto merge = static_cast<std::int64_t>(merges_.size());
        if (cut) {
            for (std::int64_t row = span->begin; row < span->end; ++row) {
                for (int head = 0; head < config_.heads; ++head) {
                    merges_.push_back({row, head, pieces_of(chunk.positions[row] + 1), states});
                    states += std::int64_t{pieces} * attention_state(cache_.layout().value_width);
                }
            }
        }
        for (int kv_head = 0; kv_head < config_.kv_heads; ++kv_head)
            for (int part = 0; part < parts; ++part)
                for (int piece = 0; piece < (cut ? pieces : 1); ++piece)
                    calls_.push_back({span->begin, span->end, kv_head, part, cut ? piece : -1, merge});
    }
    if (attention_states_.bytes() < floats(states)) attention_states_ = Buffer(floats(states), Pages::lazy);
}

// Up to so many tokens hardly any key is read twice in a layer.
constexpr std::int64_t few_tokens = 64;

void Model::attend(const Chunk& chunk, int layer) {
    const Profile::Timer timer(profile_, Part::attention);
    const CacheLayout& layout = cache_.layout();
    const int dims = config_.head_dim, group = config_.heads / config_.kv_heads;
    float* states = attention_states_.as<float>();
    const auto out = [&](std::int64_t row, int head) {
        return attention_.as<float>() + row * attention_stride_ + std::int64_t{head} * dims;
    };
    pool_.for_ranges(
        static_cast<std::int64_t>(calls_.size()), [&](std::int64_t first, std::int64_t last, int thread) {
            AttentionTask task{};
            task.layout = &layout;
            task.page_bytes = cache_.page_bytes();
            task.scale = 1.0f / std::sqrt(static_cast<float>(dims));
            task.few = chunk.n <= few_tokens;
            task.scratch = attention_scratch_.as<float>() + thread * attention_scratch_floats_;
            for (std::int64_t i = first; i < last; ++i) {
                const AttentionCall& call = calls_[i];
                task.base = cache_.base(layer, call.kv_head);
                task.pages = cache_.pages(chunk.slots[call.begin]);
                task.piece = call.piece;
                task.queries = 0;
                for (std::int64_t row = call.begin; row < call.end; ++row) {
                    for (int j = call.part * heads_each_; j < std::min(group, (call.part + 1) * heads_each_);
                         ++j) {
                        const int head = call.kv_head * group + j, q = task.queries++;
                        task.query[q] = qkv_.as<float>() + row * qkv_stride_ + std::int64_t{head} * dims;
                        task.out[q] = out(row, head);
                        task.length[q] = chunk.positions[row] + 1;
                        task.state[q] = nullptr;
                        if (call.piece >= 0)
                            task.state[q] =
                                states +
                                merges_[call.merge + (row - call.begin) * config_.heads + head].states +
                                std::int64_t{call.piece} * attention_state(layout.value_width);
                    }
                }
                kernels_.attention(task);
            }
        });
    pool_.for_ranges(static_cast<std::int64_t>(merges_.size()),
                     [&](std::int64_t first, std::int64_t last, int) {
                         for (std::int64_t i = first; i < last; ++i) {
                             const AttentionMerge& merge = merges_[i];
                             kernels_.merge_attention(layout, states + merge.states, merge.pieces,
                                                      out(merge.row, merge.head));
                         }
                     });
}

}  // namespace tritwise
