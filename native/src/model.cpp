#include "model.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "packing.hpp"

namespace tritwise {

// Tokens that pass through the layers together. More would only enlarge the activations: at 256 the unpacking
// of a weight is already below one percent of the work done with it.
static constexpr std::int64_t chunk_tokens = 256;

struct Model::Chunk {
    const std::int32_t *tokens, *slots, *positions;
    std::int64_t n;
    const std::int32_t* logits_for;  // rows within the whole call; `first` is this chunk's first token
    std::int64_t logits_rows, first;
    float* logits;
    Trace* trace;
};

static std::size_t floats(std::int64_t count) { return static_cast<std::size_t>(count) * sizeof(float); }

Model::Model(const ModelConfig& config, int threads, const std::string& kernel, bool int8_head, int slots,
             int context)
    : config_(config),
      kernels_(kernels_named(kernel)),
      pool_(threads),
      weights_(config, int8_head, kernels_, pool_),
      cache_(slots + 1, config.layers, config.kv_heads, config.head_dim, context),
      slots_(slots),
      context_(context) {
    const std::int64_t q = std::int64_t{config.heads} * config.head_dim, m = chunk_tokens;
    hidden_stride_ = static_cast<int>(round_up(config.hidden, group_rows));
    attention_stride_ = static_cast<int>(round_up(q, group_rows));
    qkv_stride_ = weights_.q_rows + 2 * weights_.kv_rows;
    ffn_stride_ = weights_.gate_rows;
    input_stride_ = std::max({hidden_stride_, attention_stride_, ffn_stride_});
    const auto make = [&](std::int64_t count) { return Buffer(floats(count), Pages::lazy); };
    hidden_ = make(m * hidden_stride_);
    qkv_ = make(m * qkv_stride_);
    attention_ = make(m * attention_stride_);
    gate_up_ = make(m * 2 * ffn_stride_);
    scratch_ = make(m * input_stride_);
    result_ = make(m * hidden_stride_);
    input_ = make(m * input_stride_);
    rope_ = make(m * config.head_dim);
    codes_ = Buffer(2 * m * input_stride_, Pages::lazy);  // twice: the 8-bit head has two planes
    quads_ = Buffer(2 * m * input_stride_, Pages::lazy);
    scales_ = make(m);
    sums_ = Buffer(2 * m * sizeof(std::int32_t), Pages::lazy);
    unpack_scratch_ = Buffer(static_cast<std::size_t>(threads) * group_rows * input_stride_, Pages::huge);
    attention_scratch_floats_ = round_up(attention_scratch(config.head_dim, round_up(context, 16)), 16);
    attention_scratch_ = make(threads * attention_scratch_floats_);
    for (int i = 0; i < config.head_dim; i += 2) {
        // In float32 as transformers computes them: the angles depend on this rounding.
        const float exponent = static_cast<float>(i) / static_cast<float>(config.head_dim);
        inverse_frequencies_.push_back(1.0f /
                                       static_cast<float>(std::pow(config.rope_theta, double{exponent})));
    }
}

void Model::finish() {
    weights_.finish();
    finished_ = true;
}

void Model::for_rows(const Chunk& chunk, auto&& work) {
    pool_.for_ranges(chunk.n, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t row = begin; row < end; ++row) work(row);
    });
}

static TraceArray& append(Trace& trace, const std::string& name, TraceArray::Type type, std::int64_t width,
                          const void* data) {
    TraceArray& array = trace[name];
    array.type = type;
    array.width = width;
    const auto* bytes = static_cast<const char*>(data);
    array.data.insert(array.data.end(), bytes,
                      bytes + std::max<std::int64_t>(width, 1) * (type == TraceArray::i8 ? 1 : 4));
    return array;
}

void Model::prepare(const Chunk& chunk, std::int64_t row, const float* x, int width) {
    const int k = static_cast<int>(round_up(width, block_k));
    if (!config_.ternary) {
        std::memcpy(input_.as<float>() + row * k, x, floats(k));
        return;
    }
    std::int8_t* codes = codes_.as<std::int8_t>() + row * k;
    kernels_.quantise(x, k, codes, scales_.as<float>() + row, sums_.as<std::int32_t>() + row);
    if (chunk.n == 1) return;
    store_quad_column(codes, k, quads_.as<std::int8_t>(), row);
    if (row == chunk.n - 1)
        for (std::int64_t column = chunk.n; column % quad; ++column)
            store_quad_column(nullptr, k, quads_.as<std::int8_t>(), column);
}

// y = the rows made ready by `prepare`, times the matrix.
void Model::product(const Linear& matrix, const Chunk& chunk, float* y) {
    const int m = static_cast<int>(chunk.n);
    if (!config_.ternary) {
        const DenseMatrix& w = matrix.dense;
        pool_.for_ranges(w.rows / 8, [&](std::int64_t begin, std::int64_t end, int) {
            kernels_.dense(w, static_cast<int>(begin * 8), static_cast<int>(end * 8), input_.as<float>(), w.k,
                           m, y, w.rows);
        });
        return;
    }
    const TernaryMatrix& w = matrix.ternary;
    const QuantisedRows x{m,
                          w.k,
                          codes_.as<std::int8_t>(),
                          quads_.as<std::int8_t>(),
                          scales_.as<float>(),
                          sums_.as<std::int32_t>()};
    if (chunk.trace && accumulators_.bytes() < floats(std::int64_t{m} * w.rows))
        accumulators_ = Buffer(floats(std::int64_t{m} * w.rows), Pages::lazy);
    const ProductOutput out{y, chunk.trace ? accumulators_.as<std::int32_t>() : nullptr, w.rows};
    pool_.for_ranges(w.rows / group_rows, [&](std::int64_t begin, std::int64_t end, int thread) {
        kernels_.ternary(
            w, static_cast<int>(begin), static_cast<int>(end), x, out,
            unpack_scratch_.as<std::uint8_t>() + std::int64_t{thread} * group_rows * input_stride_);
    });
}

void Model::trace_product(const Chunk& chunk, const Linear& matrix, const std::string& name,
                          std::int64_t first_row, std::int64_t rows, std::int64_t k) {
    if (!config_.ternary) return;
    const TernaryMatrix& w = matrix.ternary;
    for (std::int64_t m = 0; m < chunk.n; ++m) {
        append(*chunk.trace, name + ".input_codes", TraceArray::i8, k, codes_.as<std::int8_t>() + m * w.k);
        append(*chunk.trace, name + ".input_scale", TraceArray::f32, 0, scales_.as<float>() + m);
        append(*chunk.trace, name + ".accumulator", TraceArray::i32, rows,
               accumulators_.as<std::int32_t>() + m * w.rows + first_row);
    }
}

static void trace_rows(Trace& trace, const std::string& name, const float* data, std::int64_t stride,
                       std::int64_t width, std::int64_t rows) {
    for (std::int64_t m = 0; m < rows; ++m) append(trace, name, TraceArray::f32, width, data + m * stride);
}

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

void Model::head(const Chunk& chunk) {
    const int k = static_cast<int>(round_up(config_.hidden, 16));
    const auto inside = [&](std::int64_t j) {
        return chunk.logits_for[j] >= chunk.first && chunk.logits_for[j] < chunk.first + chunk.n;
    };
    for (std::int64_t begin = 0; begin < chunk.logits_rows;) {
        if (!inside(begin)) {
            ++begin;
            continue;
        }
        std::int64_t end = begin + 1;
        while (end < chunk.logits_rows && end - begin < chunk_tokens && inside(end)) ++end;
        const int m = static_cast<int>(end - begin);
        float* normed = input_.as<float>();
        for (int j = 0; j < m; ++j) {
            const std::int64_t row = chunk.logits_for[begin + j] - chunk.first;
            kernels_.rms_norm(hidden_.as<float>() + row * hidden_stride_, weights_.norm, k, config_.hidden,
                              config_.eps, normed + std::int64_t{j} * k);
        }
        float* y = chunk.logits + begin * config_.vocab;
        if (weights_.has_int8_head) {
            std::int8_t* planes = codes_.as<std::int8_t>();
            std::int8_t* quads = quads_.as<std::int8_t>();
            for (int j = 0; j < m; ++j) {
                kernels_.quantise_planes(normed + std::int64_t{j} * k, k, planes, planes + k,
                                         scales_.as<float>() + j, sums_.as<std::int32_t>() + 2 * j);
                store_quad_column(planes, k, quads, 2 * j);
                store_quad_column(planes + k, k, quads, 2 * j + 1);
            }
            for (std::int64_t column = 2 * m; column % quad; ++column)
                store_quad_column(nullptr, k, quads, column);
            const PlaneRows x{m, quads, scales_.as<float>(), sums_.as<std::int32_t>()};
            pool_.for_ranges(round_up(config_.vocab, group_rows) / group_rows,
                             [&](std::int64_t from, std::int64_t to, int) {
                                 kernels_.bytes(weights_.int8_head, static_cast<int>(from),
                                                static_cast<int>(to), x, y, config_.vocab);
                             });
        } else {
            pool_.for_ranges(config_.vocab, [&](std::int64_t from, std::int64_t to, int) {
                kernels_.dense(weights_.stored_head, static_cast<int>(from), static_cast<int>(to), normed, k,
                               m, y, config_.vocab);
            });
        }
        if (chunk.trace) {
            trace_rows(*chunk.trace, "norm", normed, k, config_.hidden, m);
            trace_rows(*chunk.trace, "logits", y, config_.vocab, config_.vocab, m);
        }
        begin = end;
    }
}

void Model::run_chunk(const Chunk& chunk) {
    const int hidden_k = static_cast<int>(round_up(config_.hidden, 16)),
              ffn_k = static_cast<int>(round_up(config_.ffn, 16));
    const int q = config_.heads * config_.head_dim, q_k = static_cast<int>(round_up(q, 16));
    const int kv = config_.kv_heads * config_.head_dim, half = config_.head_dim / 2;
    float* hidden = hidden_.as<float>();
    const auto scratch_row = [&](std::int64_t row) { return scratch_.as<float>() + row * input_stride_; };
    const auto norm_and_prepare = [&](std::int64_t row, const float* weight) {
        float* normed = scratch_row(row);
        kernels_.rms_norm(hidden + row * hidden_stride_, weight, hidden_k, config_.hidden, config_.eps,
                          normed);
        prepare(chunk, row, normed, config_.hidden);
    };
    const auto trace_normed = [&](const std::string& name) {
        if (chunk.trace)
            trace_rows(*chunk.trace, name, scratch_row(0), input_stride_, config_.hidden, chunk.n);
    };

    for_rows(chunk, [&](std::int64_t row) {
        kernels_.load_row(weights_.embedding, chunk.tokens[row], hidden + row * hidden_stride_);
        float* table = rope_.as<float>() + row * config_.head_dim;
        for (int i = 0; i < half; ++i) {
            const float angle = static_cast<float>(chunk.positions[row]) * inverse_frequencies_[i];
            table[i] = static_cast<float>(std::cos(double{angle}));
            table[half + i] = static_cast<float>(std::sin(double{angle}));
        }
        norm_and_prepare(row, weights_.layers[0].input_norm);
    });
    for (int n = 0; n < config_.layers; ++n) {
        const LayerWeights& layer = weights_.layers[n];
        const std::string prefix = chunk.trace ? "layers." + std::to_string(n) + "." : std::string();
        trace_normed(prefix + "input_layernorm");
        product(layer.qkv, chunk, qkv_.as<float>());
        if (chunk.trace) {
            trace_product(chunk, layer.qkv, prefix + "self_attn.q_proj", 0, q, config_.hidden);
            trace_product(chunk, layer.qkv, prefix + "self_attn.k_proj", weights_.q_rows, kv, config_.hidden);
            trace_product(chunk, layer.qkv, prefix + "self_attn.v_proj", weights_.q_rows + weights_.kv_rows,
                          kv, config_.hidden);
        }
        for_rows(chunk, [&](std::int64_t row) { rotate_and_cache(chunk, n, row); });
        attend(chunk, n);
        if (chunk.trace)
            trace_rows(*chunk.trace, prefix + "self_attn.output", attention_.as<float>(), attention_stride_,
                       q, chunk.n);
        for_rows(chunk, [&](std::int64_t row) {
            const float* x = attention_.as<float>() + row * attention_stride_;
            if (layer.attn_sub_norm) {
                kernels_.rms_norm(x, layer.attn_sub_norm, q_k, q, config_.eps, scratch_row(row));
                x = scratch_row(row);
            }
            prepare(chunk, row, x, q);
        });
        product(layer.o, chunk, result_.as<float>());
        if (chunk.trace) trace_product(chunk, layer.o, prefix + "self_attn.o_proj", 0, config_.hidden, q);
        for_rows(chunk, [&](std::int64_t row) {
            kernels_.add(hidden + row * hidden_stride_, result_.as<float>() + row * hidden_stride_, hidden_k);
            norm_and_prepare(row, layer.post_attention_norm);
        });
        product(layer.gate_up, chunk, gate_up_.as<float>());
        if (chunk.trace) {
            trace_product(chunk, layer.gate_up, prefix + "mlp.gate_proj", 0, config_.ffn, config_.hidden);
            trace_product(chunk, layer.gate_up, prefix + "mlp.up_proj", weights_.gate_rows, config_.ffn,
                          config_.hidden);
        }
        for_rows(chunk, [&](std::int64_t row) {
            float* gate = gate_up_.as<float>() + row * 2 * ffn_stride_;
            float* x = scratch_row(row);
            (config_.relu2 ? kernels_.relu2_gate : kernels_.silu_gate)(gate, gate + ffn_stride_, ffn_k, x);
            if (layer.ffn_sub_norm)
                kernels_.rms_norm(x, layer.ffn_sub_norm, ffn_k, config_.ffn, config_.eps, x);
            prepare(chunk, row, x, config_.ffn);
        });
        product(layer.down, chunk, result_.as<float>());
        if (chunk.trace)
            trace_product(chunk, layer.down, prefix + "mlp.down_proj", 0, config_.hidden, config_.ffn);
        for_rows(chunk, [&](std::int64_t row) {
            kernels_.add(hidden + row * hidden_stride_, result_.as<float>() + row * hidden_stride_, hidden_k);
            if (n + 1 < config_.layers) norm_and_prepare(row, weights_.layers[n + 1].input_norm);
        });
        if (chunk.trace)
            trace_rows(*chunk.trace, prefix + "output", hidden, hidden_stride_, config_.hidden, chunk.n);
    }
    head(chunk);
}

void Model::check(const std::int32_t* tokens, const std::int32_t* slots, const std::int32_t* positions,
                  std::int64_t n, const std::int32_t* logits_for, std::int64_t rows) {
    if (!finished_) throw std::invalid_argument("finish() was not called: the weights are not complete");
    const auto text = [](std::int64_t value) { return std::to_string(value); };
    std::vector<std::int32_t> next(slots_ + 1,
                                   -1);  // the position that a slot's next token of this call must have
    for (std::int64_t i = 0; i < n; ++i) {
        const std::string where = "token " + text(i) + ": ";
        const std::int32_t slot = slots[i], position = positions[i];
        if (tokens[i] < 0 || tokens[i] >= config_.vocab)
            throw std::out_of_range(where + "id " + text(tokens[i]) + " is not in a vocabulary of " +
                                    text(config_.vocab));
        if (slot < 0 || slot >= slots_)
            throw std::out_of_range(where + "slot " + text(slot) + " does not exist, there are " +
                                    text(slots_));
        if (position < 0 || position >= context_)
            throw std::out_of_range(where + "position " + text(position) + " is outside a context of " +
                                    text(context_));
        if (next[slot] < 0 && position > cache_.length(slot))
            throw std::out_of_range(where + "position " + text(position) + " of slot " + text(slot) +
                                    " leaves a gap, the cache holds " + text(cache_.length(slot)));
        if (next[slot] >= 0 && position != next[slot])
            throw std::invalid_argument(where + "position " + text(position) + " of slot " + text(slot) +
                                        " follows " + text(next[slot] - 1) +
                                        ", the tokens of a slot must be consecutive");
        next[slot] = position + 1;
    }
    for (std::int64_t j = 0; j < rows; ++j)
        if (logits_for[j] < 0 || logits_for[j] >= n)
            throw std::out_of_range("logits are asked for token " + text(logits_for[j]) + " of " + text(n));
}

void Model::forward(const std::int32_t* tokens, const std::int32_t* slots, const std::int32_t* positions,
                    std::int64_t n, const std::int32_t* logits_for, std::int64_t rows, float* logits) {
    check(tokens, slots, positions, n, logits_for, rows);
    for (std::int64_t first = 0; first < n; first += chunk_tokens) {
        const std::int64_t count = std::min(chunk_tokens, n - first);
        run_chunk({tokens + first, slots + first, positions + first, count, logits_for, rows, first, logits,
                   nullptr});
        for (std::int64_t i = first; i < first + count; ++i) cache_.length(slots[i]) = positions[i] + 1;
    }
}

Trace Model::trace(const std::int32_t* tokens, std::int64_t n) {
    // A slot of its own beyond the user's, so that no cached sequence is disturbed.
    if (n > context_)
        throw std::out_of_range(std::to_string(n) + " tokens are more than a context of " +
                                std::to_string(context_));
    for (std::int64_t i = 0; i < n; ++i)
        if (tokens[i] < 0 || tokens[i] >= config_.vocab)
            throw std::out_of_range("token " + std::to_string(i) + ": id " + std::to_string(tokens[i]) +
                                    " is not in a vocabulary of " + std::to_string(config_.vocab));
    if (!finished_) throw std::invalid_argument("finish() was not called: the weights are not complete");
    Trace trace;
    std::vector<std::int32_t> slots(n, slots_), positions(n);
    for (std::int64_t i = 0; i < n; ++i) positions[i] = static_cast<std::int32_t>(i);
    std::vector<float> logits(static_cast<std::size_t>(n) * config_.vocab);
    for (std::int64_t first = 0; first < n; first += chunk_tokens) {
        const std::int64_t count = std::min(chunk_tokens, n - first);
        run_chunk({tokens + first, slots.data() + first, positions.data() + first, count, positions.data(), n,
                   first, logits.data(), &trace});
    }
    return trace;
}

void Model::reset(int slot) {
    length(slot);
    cache_.length(slot) = 0;
}

int Model::length(int slot) {
    if (slot < 0 || slot >= slots_)
        throw std::out_of_range("slot " + std::to_string(slot) + " does not exist, there are " +
                                std::to_string(slots_));
    return cache_.length(slot);
}

}  // namespace tritwise
