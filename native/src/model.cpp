#include "model.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "chunk.hpp"
#include "packing.hpp"

namespace tritwise {

Model::Model(const ModelConfig& config, int threads, const std::string& kernel, HeadKind head, bool two_passes,
             int slots, int context, CacheType cache_type, int pages)
    : config_(config),
      kernels_(kernels_named(kernel)),
      pool_(threads),
      weights_(config, head, kernels_, pool_),
      cache_(cache_type, slots, config.layers, config.kv_heads, config.head_dim, context, pages),
      slots_(slots),
      context_(context),
      two_passes_(two_passes) {
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
    code_stride_ = static_cast<int>(round_up(input_stride_ + block_inputs(kernels_.packing), 64));
    codes_ = Buffer(2 * m * code_stride_, Pages::lazy);  // twice: the 8-bit head has two planes
    quads_ = Buffer(2 * m * code_stride_, Pages::lazy);
    scales_ = make(m);
    sums_ = Buffer(2 * m * sizeof(std::int32_t), Pages::lazy);
    embedding_rows_ = Buffer(floats(m * round_up(config.hidden, 16)), Pages::lazy);
    chunk_sums_ = Buffer(2 * m * round_up(config.hidden, chunk_k) / chunk_k * sizeof(std::int32_t), Pages::lazy);
    unpack_scratch_bytes_ = round_up(ternary_scratch(code_stride_, m), 64);
    unpack_scratch_ = Buffer(threads * unpack_scratch_bytes_, Pages::huge);
    attention_scratch_floats_ = attention_scratch(cache_.layout());
    attention_scratch_ = make(threads * attention_scratch_floats_);
    if (config.experts) expert_work_ = ExpertWork(config, weights_, m);
}

void Model::finish() {
    weights_.finish();
    finished_ = true;
}

void Model::prepare(const Chunk& chunk, std::int64_t row, const float* x, int width) {
    const int lanes_k = static_cast<int>(round_up(width, 16));
    if (!config_.ternary) {
        std::memcpy(input_.as<float>() + row * lanes_k, x, floats(lanes_k));
        return;
    }
    if (!config_.linear_norms) return quantise(chunk, row, x, width);
    float* kept = scratch_.as<float>() + row * input_stride_;
    if (x != kept) std::memcpy(kept, x, floats(lanes_k));
}

void Model::quantise(const Chunk& chunk, std::int64_t row, const float* x, int width) {
    const int lanes_k = static_cast<int>(round_up(width, 16));
    const int k = static_cast<int>(round_up(width, block_inputs(kernels_.packing)));
    std::int8_t* codes = codes_.as<std::int8_t>() + row * code_stride_;
    kernels_.quantise(x, lanes_k, codes, scales_.as<float>() + row, sums_.as<std::int32_t>() + row);
    if (k > lanes_k) std::memset(codes + lanes_k, 0, k - lanes_k);  // a wider product left its codes here
    if (chunk.n == 1) return;
    store_quad_column(codes, k, quads_.as<std::int8_t>(), row);
    if (row == chunk.n - 1)
        for (std::int64_t column = chunk.n; column % quad; ++column)
            store_quad_column(nullptr, k, quads_.as<std::int8_t>(), column);
}

QuantisedRows Model::quantised(const Chunk& chunk, const TernaryMatrix& w) const {
    return {static_cast<int>(chunk.n),  w.k, codes_.as<std::int8_t>(), quads_.as<std::int8_t>(), scales_.as<float>(),
            sums_.as<std::int32_t>()};
}

void Model::product(Part part, const Linear& matrix, const Chunk& chunk, float* y, const std::string& prefix) {
    if (!config_.linear_norms) {
        product_rows(part, matrix, 0, matrix.dense.rows / group_rows, chunk, y);
        if (chunk.trace)
            for (const LinearPart& each : matrix.parts) trace_product(chunk, matrix, each, prefix);
        return;
    }
    const int k = static_cast<int>(round_up(matrix.inputs, 16));
    for (const LinearPart& each : matrix.parts) {
        for_rows(Part::norms, chunk, [&](std::int64_t row) {
            const std::int64_t at = row * input_stride_;
            float* normed = input_.as<float>() + at;
            kernels_.rms_norm(scratch_.as<float>() + at, each.norm, k, matrix.inputs, config_.linear_eps, normed);
            quantise(chunk, row, normed, matrix.inputs);
        });
        product_rows(part, matrix, each.first_row / group_rows,
                     round_up(each.first_row + each.rows, group_rows) / group_rows, chunk, y);
        if (chunk.trace) trace_product(chunk, matrix, each, prefix);
    }
}

void Model::product_rows(Part part, const Linear& matrix, std::int64_t begin_group, std::int64_t end_group,
                         const Chunk& chunk, float* y) {
    Profile::Timer timer(profile_, part);
    const int m = static_cast<int>(chunk.n);
    if (!config_.ternary) {
        const DenseMatrix& w = matrix.dense;
        timer.add(weights_.bytes(matrix), w.rows * std::int64_t{w.k} * m);  // dense: always the whole matrix
        pool_.for_ranges(w.rows / 8, [&](std::int64_t begin, std::int64_t end, int) {
            kernels_.dense(w, static_cast<int>(begin * 8), static_cast<int>(end * 8), input_.as<float>(), w.k,
                           m, y, w.rows);
        });
        return;
    }
    const TernaryMatrix& w = matrix.ternary;
    if (chunk.trace && accumulators_.bytes() < floats(std::int64_t{m} * w.rows))
        accumulators_ = Buffer(floats(std::int64_t{m} * w.rows), Pages::lazy);
    const QuantisedRows x = quantised(chunk, w);
    if (w.by_input && product_by_input(timer, matrix, chunk, y)) return;
    const std::int64_t groups = end_group - begin_group;
    timer.add(weights_.bytes(matrix) * groups / (w.rows / group_rows), groups * group_rows * w.k * m);
    const ProductOutput out{y, chunk.trace ? accumulators_.as<std::int32_t>() : nullptr, w.rows};
    pool_.for_ranges(groups, [&](std::int64_t begin, std::int64_t end, int thread) {
        kernels_.ternary(w, static_cast<int>(begin_group + begin), static_cast<int>(begin_group + end), x, out,
                         unpack_scratch(thread));
    });
}

void Model::trace_product(const Chunk& chunk, const Linear& matrix, const LinearPart& part,
                          const std::string& prefix) {
    if (!config_.ternary) return;
    const TernaryMatrix& w = matrix.ternary;
    const std::string name = prefix + part.name;
    for (std::int64_t m = 0; m < chunk.n; ++m) {
        append(*chunk.trace, name + ".input_codes", TraceArray::i8, matrix.inputs, codes_.as<std::int8_t>() + m * code_stride_);
        append(*chunk.trace, name + ".input_scale", TraceArray::f32, 0, scales_.as<float>() + m);
        append(*chunk.trace, name + ".accumulator", TraceArray::i32, part.rows,
               accumulators_.as<std::int32_t>() + m * w.rows + part.first_row);
    }
}

void Model::run_chunk(const Chunk& chunk) {
    const int hidden_k = static_cast<int>(round_up(config_.hidden, 16));
    const int q = config_.heads * config_.head_dim, q_k = static_cast<int>(round_up(q, 16));
    const int half = config_.head_dim / 2;
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

    const DType type = weights_.embedding_type();
    const auto row_bytes = hidden_k * static_cast<std::int64_t>(size_of(type));
    weights_.embed(chunk.tokens, chunk.n, embedding_rows_.as<char>(), row_bytes);
    for_rows(Part::embedding, chunk, [&](std::int64_t row) {
        kernels_.load_row({1, hidden_k, type, embedding_rows_.as<char>() + row * row_bytes}, 0,
                          hidden + row * hidden_stride_);
        float* table = rope_.as<float>() + row * config_.head_dim;
        for (int i = 0; i < half; ++i) {
            const float angle = static_cast<float>(chunk.positions[row]) * config_.inverse_frequencies[i];
            table[i] = static_cast<float>(std::cos(double{angle})) * config_.rope_factor;
            table[half + i] = static_cast<float>(std::sin(double{angle})) * config_.rope_factor;
        }
        norm_and_prepare(row, weights_.layers[0].input_norm);
    });
    plan_attention(chunk);
    for (int n = 0; n < config_.layers; ++n) {
        const LayerWeights& layer = weights_.layers[n];
        const std::string prefix = chunk.trace ? "layers." + std::to_string(n) + "." : std::string();
        trace_normed(prefix + "input_layernorm");
        product(Part::qkv, layer.qkv, chunk, qkv_.as<float>(), prefix);
        for_rows(Part::rotary, chunk, [&](std::int64_t row) { rotate_and_cache(chunk, n, row); });
        attend(chunk, n);
        if (chunk.trace)
            trace_rows(*chunk.trace, prefix + "self_attn.output", attention_.as<float>(), attention_stride_,
                       q, chunk.n);
        for_rows(Part::norms, chunk, [&](std::int64_t row) {
            const float* x = attention_.as<float>() + row * attention_stride_;
            if (layer.attn_sub_norm) {
                kernels_.rms_norm(x, layer.attn_sub_norm, q_k, q, config_.eps, scratch_row(row));
                x = scratch_row(row);
            }
            prepare(chunk, row, x, q);
        });
        product(Part::o, layer.o, chunk, result_.as<float>(), prefix);
        for_rows(Part::norms, chunk, [&](std::int64_t row) {
            kernels_.add(hidden + row * hidden_stride_, result_.as<float>() + row * hidden_stride_, hidden_k);
            norm_and_prepare(row, layer.post_attention_norm);
        });
        feed_forward(chunk, n, prefix);
        for_rows(Part::norms, chunk, [&](std::int64_t row) {
            kernels_.add(hidden + row * hidden_stride_, result_.as<float>() + row * hidden_stride_, hidden_k);
            if (n + 1 < config_.layers) norm_and_prepare(row, weights_.layers[n + 1].input_norm);
        });
        if (chunk.trace)
            trace_rows(*chunk.trace, prefix + "output", hidden, hidden_stride_, config_.hidden, chunk.n);
    }
    head(chunk);
}

// What the call writes, one extent a slot.
std::vector<Extent> Model::check(const std::int32_t* tokens, const std::int32_t* slots,
                                 const std::int32_t* positions, std::int64_t n, const std::int32_t* wanted,
                                 std::int64_t rows) {
    if (!finished_) throw std::invalid_argument("finish() was not called: the weights are not complete");
    const auto text = [](std::int64_t value) { return std::to_string(value); };
    std::vector<Extent> extents;
    std::vector<std::int32_t> extent_of(slots_, -1);
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
        if (extent_of[slot] < 0) {
            if (position > cache_.length(slot))
                throw std::out_of_range(where + "position " + text(position) + " of slot " + text(slot) +
                                        " leaves a gap, the cache holds " + text(cache_.length(slot)));
            extent_of[slot] = static_cast<std::int32_t>(extents.size());
            extents.push_back({slot, position, position});
        }
        Extent& extent = extents[extent_of[slot]];
        if (position != extent.end)
            throw std::invalid_argument(where + "position " + text(position) + " of slot " + text(slot) +
                                        " follows " + text(extent.end - 1) +
                                        ", the tokens of a slot must be consecutive");
        extent.end = position + 1;
    }
    for (std::int64_t j = 0; j < rows; ++j)
        if (wanted[j] < 0 || wanted[j] >= n)
            throw std::out_of_range("logits are asked for token " + text(wanted[j]) + " of " + text(n));
    return extents;
}

void Model::forward(const std::int32_t* tokens, const std::int32_t* slots, const std::int32_t* positions,
                    std::int64_t n, const std::int32_t* logits_for, std::int64_t rows, float* logits,
                    const std::int32_t* best_for, std::int64_t best_rows, std::int32_t* best) {
    check(tokens, slots, positions, n, logits_for, rows);
    cache_.reserve(check(tokens, slots, positions, n, best_for, best_rows));
    for (std::int64_t first = 0; first < n; first += chunk_tokens) {
        const std::int64_t count = std::min(chunk_tokens, n - first);
        run_chunk({tokens + first, slots + first, positions + first, count, first, logits_for, rows, logits,
                   best_for, best_rows, best, nullptr});
        for (std::int64_t i = first; i < first + count; ++i) cache_.set_length(slots[i], positions[i] + 1);
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
        run_chunk({tokens + first, slots.data() + first, positions.data() + first, count, first,
                   positions.data(), n, logits.data(), nullptr, 0, nullptr, &trace});
    }
    return trace;
}

void Model::reset(int slot) {
    length(slot);
    cache_.reset(slot);
}

int Model::length(int slot) {
    if (slot < 0 || slot >= slots_)
        throw std::out_of_range("slot " + std::to_string(slot) + " does not exist, there are " +
                                std::to_string(slots_));
    return cache_.length(slot);
}

void Model::share(int source, int target, int positions) {
    length(target);
    if (positions < 0 || positions > length(source))
        throw std::out_of_range("slot " + std::to_string(source) + " holds " + std::to_string(length(source)) +
                                " positions, " + std::to_string(positions) + " cannot be shared");
    cache_.share(source, target, positions);
}

int Model::pages_held(const std::vector<int>& slots) {
    for (const int slot : slots) length(slot);
    return cache_.pages_held(slots);
}

int Model::pages_needed(int slot, int first, int end) {
    if (first < 0 || first > length(slot) || end < first || end > context_)
        throw std::out_of_range("positions " + std::to_string(first) + " to " + std::to_string(end) +
                                " of slot " + std::to_string(slot) + " cannot be written next");
    return cache_.pages_needed({slot, first, end});
}

}  // namespace tritwise
