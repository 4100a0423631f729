#include "weights.hpp"

#include <atomic>
#include <cstring>
#include <stdexcept>

#include "packing.hpp"

namespace tritwise {

static std::string shape_text(const std::vector<std::int64_t>& shape) {
    std::string text = "[";
    for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

Weights::Weights(const ModelConfig& config, HeadKind head_kind, const Kernels& kernels, ThreadPool& pool)
    : layers(config.layers),
      gate_rows(static_cast<int>(round_up(config.ffn, group_rows))),
      q_rows(static_cast<int>(round_up(std::int64_t{config.heads} * config.head_dim, group_rows))),
      kv_rows(static_cast<int>(round_up(std::int64_t{config.kv_heads} * config.head_dim, group_rows))),
      config_(config),
      kernels_(kernels),
      pool_(pool) {
    head.kind = head_kind;
    const std::int64_t hidden = config.hidden, ffn = config.ffn,
                       q = std::int64_t{config.heads} * config.head_dim,
                       kv = std::int64_t{config.kv_heads} * config.head_dim;
    const std::int64_t ffn_norms =
        config.experts ? config.experts * round_up(config.expert_ffn, 16) + round_up(config.shared_ffn, 16)
                       : round_up(ffn, 16);
    const std::int64_t norm_floats =
        (2 * config.layers + 1) * round_up(hidden, 16) +
        (config.sub_norms ? config.layers * (round_up(hidden, 16) + ffn_norms) : 0) +
        (config.head_norms ? config.layers * 2 * round_up(config.head_dim, 16) : 0) +
        (config.linear_norms ? config.layers * (5 * round_up(hidden, 16) + round_up(q, 16) + round_up(ffn, 16)) : 0);
    norm_arena_ = Buffer(norm_floats * sizeof(float), Pages::huge);

    for (int n = 0; n < config.layers; ++n) {
        const std::string prefix = "model.layers." + std::to_string(n) + ".";
        LayerWeights& layer = layers[n];
        add_linear(prefix, layer.qkv, hidden,
                   {{"self_attn.q_proj", q}, {"self_attn.k_proj", kv}, {"self_attn.v_proj", kv}});
        add_linear(prefix, layer.o, q, {{"self_attn.o_proj", hidden}});
        if (config.experts) {
            add_experts(prefix, layer);
        } else {
            add_linear(prefix, layer.gate_up, hidden, {{"mlp.gate_proj", ffn}, {"mlp.up_proj", ffn}});
            add_linear(prefix, layer.down, ffn, {{"mlp.down_proj", hidden}});
            // Squared ReLU leaves most of its inputs at zero: those are not read.
            layer.down.ternary.by_input = config.ternary && config.relu2;
        }
        layer.input_norm = add_norm(prefix + "input_layernorm.weight", hidden);
        layer.post_attention_norm = add_norm(prefix + "post_attention_layernorm.weight", hidden);
        layer.attn_sub_norm =
            config.sub_norms ? add_norm(prefix + "self_attn.attn_sub_norm.weight", hidden) : nullptr;
        layer.ffn_sub_norm =
            config.sub_norms && !config.experts ? add_norm(prefix + "mlp.ffn_sub_norm.weight", ffn) : nullptr;
        layer.q_norm = config.head_norms ? add_norm(prefix + "self_attn.q_norm.weight", config.head_dim) : nullptr;
        layer.k_norm = config.head_norms ? add_norm(prefix + "self_attn.k_norm.weight", config.head_dim) : nullptr;
    }
    norm = add_norm("model.norm.weight", hidden);
    targets_["model.embed_tokens.weight"] = {Target::embedding, config.vocab, hidden};
    if (!config.tied) targets_["lm_head.weight"] = {Target::head, config.vocab, hidden};

    if (config.ternary) {  // the shapes are known, so one arena in the order in which a forward pass reads
        std::int64_t bytes = 0, scales = 0;
        const auto each = [&](auto&& use) {
            for (LayerWeights& layer : layers)
                for (Linear* matrix : linears(layer)) use(matrix->ternary);
        };
        const auto room = [&](const TernaryMatrix& m) { return round_up(ternary_bytes(m, kernels_.packing), 64); };
        each([&](TernaryMatrix& m) { bytes += room(m), scales += m.rows; });
        ternary_arena_ = Buffer(bytes, Pages::huge);
        scale_arena_ = Buffer(scales * sizeof(float), Pages::huge);
        bytes = scales = 0;
        each([&](TernaryMatrix& m) {
            m.packed = ternary_arena_.as<std::uint8_t>() + bytes;
            m.row_scale = scale_arena_.as<float>() + scales;
            bytes += room(m), scales += m.rows;
        });
    }
}

std::vector<Linear*> Weights::linears(LayerWeights& layer) {
    std::vector<Linear*> result = {&layer.qkv, &layer.o};
    if (layer.experts.empty()) result.insert(result.end(), {&layer.gate_up, &layer.down});
    for (ExpertWeights& expert : layer.experts) result.insert(result.end(), {&expert.gate_up, &expert.down});
    return result;
}

// Each expert's matrices lie side by side, so that a touched expert is one stream of bytes.
void Weights::add_experts(const std::string& prefix, LayerWeights& layer) {
    const std::int64_t hidden = config_.hidden;
    std::vector<std::pair<std::string, std::int64_t>> router = {{"mlp.gate", config_.experts}};
    if (config_.shared_ffn) router.emplace_back("mlp.shared_expert_gate", 1);
    add_linear(prefix, layer.router, hidden, router, Target::router);
    layer.experts.resize(config_.experts +
                         (config_.shared_ffn ? 1 : 0));  // not again: targets_ points into it
    for (int id = 0; id < static_cast<int>(layer.experts.size()); ++id) {
        const bool is_shared = id == config_.experts;
        const std::string name = is_shared ? "mlp.shared_expert." : "mlp.experts." + std::to_string(id) + ".";
        ExpertWeights& expert = layer.experts[id];
        expert.ffn = is_shared ? config_.shared_ffn : config_.expert_ffn;
        add_linear(prefix, expert.gate_up, hidden,
                   {{name + "gate_proj", expert.ffn}, {name + "up_proj", expert.ffn}});
        add_linear(prefix, expert.down, expert.ffn, {{name + "down_proj", hidden}});
        expert.sub_norm =
            config_.sub_norms ? add_norm(prefix + name + "ffn_sub_norm.weight", expert.ffn) : nullptr;
    }
}

void Weights::add_linear(const std::string& prefix, Linear& matrix, std::int64_t k,
                         const std::vector<std::pair<std::string, std::int64_t>>& parts, Target::Kind kind) {
    std::int64_t rows = 0;
    for (const auto& [name, count] : parts) {
        targets_[prefix + name + ".weight"] = {kind, count, k, &matrix, rows};
        const float* norm = config_.linear_norms ? add_norm(prefix + name + ".rms_norm.weight", k) : nullptr;
        matrix.parts.push_back({name, static_cast<int>(rows), static_cast<int>(count), norm});
        rows += round_up(count, group_rows);
    }
    matrix.inputs = static_cast<int>(k);
    matrix.ternary = {static_cast<int>(rows), static_cast<int>(round_up(k, block_inputs(kernels_.packing))), nullptr, nullptr};
    matrix.dense = {static_cast<int>(rows), static_cast<int>(round_up(k, 16)), DType::f32, nullptr};
}

const float* Weights::add_norm(const std::string& name, std::int64_t size) {
    float* values = norm_arena_.as<float>() + norm_used_;
    norm_used_ += round_up(size, 16);
    targets_[name] = {Target::norm, size, 0, nullptr, 0, values};
    return values;
}

Weights::Target& Weights::target(const std::string& name) {
    const auto found = targets_.find(name);
    if (found == targets_.end())
        throw std::invalid_argument(name + ": this model has no tensor of that name");
    return found->second;
}

void Weights::set_ternary(const std::string& name, const std::uint8_t* packed, std::int64_t packed_rows,
                          std::int64_t k, std::int64_t rows, const float* scale, std::int64_t scales) {
    Target& to = target(name);
    if (to.kind != Target::linear || !config_.ternary)
        throw std::invalid_argument(name +
                                    ": a packed ternary tensor was given, but the model keeps floats there");
    if (rows != to.rows || k != to.k || packed_rows != packed_stripes(rows))
        throw std::invalid_argument(name + ": shape " + shape_text({rows, k}) + " in packed " +
                                    shape_text({packed_rows, k}) + " was given, " +
                                    shape_text({to.rows, to.k}) + " in packed " +
                                    shape_text({packed_stripes(to.rows), to.k}) + " is needed");
    if (scales != 1 && scales != rows)
        throw std::invalid_argument(name + ": " + std::to_string(scales) + " scales were given, 1 or " +
                                    std::to_string(rows) + " are needed");
    std::atomic<bool> bad{false};
    pool_.for_ranges(packed_rows, [&](std::int64_t begin, std::int64_t end, int) {
        if (has_field_three(packed + begin * k, (end - begin) * k)) bad = true;
    });
    if (bad)
        throw std::invalid_argument(name + ": not ternary, a 2-bit field holds 3; codes + 1 are 0, 1, 2");
    const TernaryMatrix& matrix = to.matrix->ternary;
    if (matrix.by_input) {
        pool_.for_ranges((rows + slab_rows - 1) / slab_rows, [&](std::int64_t begin, std::int64_t end, int) {
            repack_by_input(packed, rows, k, const_cast<std::uint8_t*>(matrix.packed), matrix.k, begin, end);
        });
    } else {
        pool_.for_ranges(rows, [&](std::int64_t begin, std::int64_t end, int) {
            repack_ternary(packed, packed_rows, k, kernels_.packing, const_cast<std::uint8_t*>(matrix.packed),
                           matrix.k, to.first_row, begin, end);
        });
    }
    float* row_scale = const_cast<float*>(matrix.row_scale) + to.first_row;
    for (std::int64_t i = 0; i < rows; ++i) row_scale[i] = scale[scales == 1 ? 0 : i];
    to.set = true;
}

void Weights::set_ternary_file(const std::string& name, int descriptor, std::int64_t offset, std::int64_t rows,
                               std::int64_t k, float scale, bool binary) {
    const TensorFile file(descriptor);
    const std::int64_t stripes = packed_stripes(rows);
    if (bounce_.bytes() < static_cast<std::size_t>(stripes * k)) bounce_ = Buffer(stripes * k, Pages::huge);
    std::uint8_t* packed = bounce_.as<std::uint8_t>();
    std::atomic<bool> unreadable{false}, zero{false};
    pool_.for_ranges(stripes, [&](std::int64_t begin, std::int64_t end, int) {
        if (!file.read(offset + begin * k, (end - begin) * k, packed + begin * k)) unreadable = true;
        for (std::int64_t row = begin; binary && row < end; ++row)
            for (int field = 0; field < 4 && field * stripes + row < rows; ++field)
                if (has_code_zero(packed + row * k, k, field)) zero = true;
    });
    if (unreadable) throw std::invalid_argument(name + ": its file ended before its last byte");
    if (zero) throw std::invalid_argument(name + ": it holds the code 0, but linear_type is binary");
    set_ternary(name, packed, stripes, k, rows, &scale, 1);
}

void Weights::check_shape(const std::string& name, const std::vector<std::int64_t>& shape) {
    Target& to = target(name);
    if (to.kind == Target::linear && config_.ternary)
        throw std::invalid_argument(
            name + ": floats were given, but this model's linears are packed ternary tensors");
    const std::vector<std::int64_t> needed = to.kind == Target::norm
                                                 ? std::vector<std::int64_t>{to.rows}
                                                 : std::vector<std::int64_t>{to.rows, to.k};
    if (shape != needed)
        throw std::invalid_argument(name + ": shape " + shape_text(shape) + " was given, " +
                                    shape_text(needed) + " is needed");
}

void Weights::set_dense(const std::string& name, const void* data, DType type,
                        const std::vector<std::int64_t>& shape) {
    check_shape(name, shape);
    const std::int64_t k = shape.back(), rows = shape.size() == 1 ? 1 : shape[0];
    set_rows(name, {static_cast<const char*>(data), nullptr, 0, type, rows, k});
}

void Weights::set_dense_file(const std::string& name, int descriptor, std::int64_t offset, DType type,
                             const std::vector<std::int64_t>& shape) {
    check_shape(name, shape);
    const std::int64_t k = shape.back(), rows = shape.size() == 1 ? 1 : shape[0];
    set_rows(name, {nullptr, std::make_shared<TensorFile>(descriptor), offset, type, rows, k});
}

void Weights::set_rows(const std::string& name, const RowSource& source) {
    Target& to = target(name);
    switch (to.kind) {
        case Target::norm: {
            const std::int64_t padded = round_up(source.k, 16);
            std::vector<char> raw(padded * size_of(source.type), 0);
            read_rows(name, source, raw.data(), padded, kernels_, pool_);
            kernels_.load_row({1, static_cast<int>(padded), source.type, raw.data()}, 0, to.values);
            break;
        }
        case Target::router:
        case Target::linear: {
            Linear& matrix = *to.matrix;
            if (matrix.has_dense && matrix.dense.type != source.type)
                throw std::invalid_argument(name +
                                            ": its type differs from that of the tensors it is fused with");
            matrix.dense.type = source.type;
            matrix.has_dense = true;
            const std::int64_t row_bytes = matrix.dense.k * static_cast<std::int64_t>(size_of(source.type));
            if (!matrix.storage) matrix.storage = Buffer(matrix.dense.rows * row_bytes, Pages::huge);
            matrix.dense.data = matrix.storage.as<void>();
            read_rows(name, source, matrix.storage.as<char>() + to.first_row * row_bytes, matrix.dense.k, kernels_,
                      pool_);
            break;
        }
        case Target::embedding: {
            if (config_.tied) head.make(name, source, kernels_, pool_);
            embedding_ = source;
            embedding_storage_ = Buffer();
            if (config_.tied && head.kind == HeadKind::stored && head.dense.k == source.k) {
                embedding_.data = static_cast<const char*>(head.dense.data);
            } else if (source.data) {
                embedding_storage_ = Buffer(source.rows * source.row_bytes(), Pages::huge);
                embedding_.data = embedding_storage_.as<char>();
                read_rows(name, source, embedding_storage_.as<char>(), source.k, kernels_, pool_);
            } else if (!config_.tied) {
                // Only looked at: a value that is no number is refused now, not when its token comes.
                check_rows(name, source, kernels_, pool_);
            }
            break;
        }
        case Target::head: head.make(name, source, kernels_, pool_); break;
    }
    to.set = true;
}

void Weights::embed(const std::int32_t* tokens, std::int64_t count, char* to,
                    std::int64_t stride) const {
    for (std::int64_t i = 0; i < count; ++i)
        if (!embedding_.read(tokens[i], 1, to + i * stride))
            throw std::runtime_error("the row of token " + std::to_string(tokens[i]) +
                                     " of model.embed_tokens.weight cannot be read: its file has become shorter");
}

void Weights::finish() {
    std::string missing;
    for (const auto& [name, to] : targets_)
        if (!to.set) missing += (missing.empty() ? "" : ", ") + name;
    if (!missing.empty()) throw std::invalid_argument("these tensors are missing: " + missing);
    bounce_ = Buffer();
}

std::int64_t Weights::bytes() const {
    std::size_t total = ternary_arena_.bytes() + scale_arena_.bytes() + norm_arena_.bytes() +
                        embedding_storage_.bytes() + static_cast<std::size_t>(head.bytes());
    for (const LayerWeights& layer : layers) {
        total += layer.router.storage.bytes();
        for (const Linear* matrix : linears(const_cast<LayerWeights&>(layer)))
            total += matrix->storage.bytes();
    }
    return static_cast<std::int64_t>(total);
}

std::int64_t Weights::bytes(const Linear& matrix) const {
    return config_.ternary ? ternary_bytes(matrix.ternary, kernels_.packing) + matrix.ternary.rows * 4
                           : static_cast<std::int64_t>(matrix.storage.bytes());
}

std::int64_t Weights::bytes_per_token() const {
    std::int64_t untouched = 0;  // of a token's layer: all experts but its own and the shared one
    if (config_.experts) {
        const ExpertWeights& one = layers[0].experts[0];
        untouched += bytes(one.gate_up) + bytes(one.down);
        untouched += one.sub_norm ? round_up(one.ffn, 16) * 4 : 0;
        untouched *= std::int64_t{config_.layers} * (config_.experts - config_.experts_per_token);
    }
    return bytes() - untouched - static_cast<std::int64_t>(embedding_storage_.bytes());
}

}  // namespace tritwise
