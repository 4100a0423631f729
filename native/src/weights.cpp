#include "weights.hpp"

#include <cstring>
#include <stdexcept>

#include "packing.hpp"

namespace tritwise {

static std::string shape_text(const std::vector<std::int64_t>& shape) {
    std::string text = "[";
    for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

Weights::Weights(const ModelConfig& config, bool with_int8_head, const Kernels& kernels, ThreadPool& pool)
    : layers(config.layers),
      has_int8_head(with_int8_head),
      gate_rows(static_cast<int>(round_up(config.ffn, group_rows))),
      q_rows(static_cast<int>(round_up(std::int64_t{config.heads} * config.head_dim, group_rows))),
      kv_rows(static_cast<int>(round_up(std::int64_t{config.kv_heads} * config.head_dim, group_rows))),
      config_(config),
      kernels_(kernels),
      pool_(pool) {
    const std::int64_t hidden = config.hidden, ffn = config.ffn,
                       q = std::int64_t{config.heads} * config.head_dim,
                       kv = std::int64_t{config.kv_heads} * config.head_dim;
    const std::int64_t norm_floats =
        (2 * config.layers + 1) * round_up(hidden, 16) +
        (config.sub_norms ? config.layers * (round_up(hidden, 16) + round_up(ffn, 16)) : 0);
    norm_arena_ = Buffer(norm_floats * sizeof(float), Pages::huge);

    for (int n = 0; n < config.layers; ++n) {
        const std::string prefix = "model.layers." + std::to_string(n) + ".";
        LayerWeights& layer = layers[n];
        add_linear(prefix, layer.qkv, hidden,
                   {{"self_attn.q_proj", q}, {"self_attn.k_proj", kv}, {"self_attn.v_proj", kv}});
        add_linear(prefix, layer.o, q, {{"self_attn.o_proj", hidden}});
        add_linear(prefix, layer.gate_up, hidden, {{"mlp.gate_proj", ffn}, {"mlp.up_proj", ffn}});
        add_linear(prefix, layer.down, ffn, {{"mlp.down_proj", hidden}});
        layer.input_norm = add_norm(prefix + "input_layernorm.weight", hidden);
        layer.post_attention_norm = add_norm(prefix + "post_attention_layernorm.weight", hidden);
        layer.attn_sub_norm =
            config.sub_norms ? add_norm(prefix + "self_attn.attn_sub_norm.weight", hidden) : nullptr;
        layer.ffn_sub_norm = config.sub_norms ? add_norm(prefix + "mlp.ffn_sub_norm.weight", ffn) : nullptr;
    }
    norm = add_norm("model.norm.weight", hidden);
    targets_["model.embed_tokens.weight"] = {Target::embedding, config.vocab, hidden};
    if (!config.tied) targets_["lm_head.weight"] = {Target::head, config.vocab, hidden};

    if (config.ternary) {  // the shapes are known, so one arena in the order in which a forward pass reads
        std::int64_t bytes = 0, scales = 0;
        const auto each = [&](auto&& use) {
            for (LayerWeights& layer : layers)
                for (Linear* matrix : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down})
                    use(matrix->ternary);
        };
        each([&](TernaryMatrix& m) { bytes += std::int64_t{m.rows} * m.k / 4, scales += m.rows; });
        ternary_arena_ = Buffer(bytes, Pages::huge);
        scale_arena_ = Buffer(scales * sizeof(float), Pages::huge);
        bytes = scales = 0;
        each([&](TernaryMatrix& m) {
            m.packed = ternary_arena_.as<std::uint8_t>() + bytes;
            m.row_scale = scale_arena_.as<float>() + scales;
            bytes += std::int64_t{m.rows} * m.k / 4, scales += m.rows;
        });
    }
}

void Weights::add_linear(const std::string& prefix, Linear& matrix, std::int64_t k,
                         const std::vector<std::pair<std::string, std::int64_t>>& parts) {
    std::int64_t rows = 0;
    for (const auto& [name, count] : parts) {
        targets_[prefix + name + ".weight"] = {Target::linear, count, k, &matrix, rows};
        rows += round_up(count, group_rows);
    }
    matrix.ternary = {static_cast<int>(rows), static_cast<int>(round_up(k, block_k)), nullptr, nullptr};
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
    pool_.for_ranges(rows, [&](std::int64_t begin, std::int64_t end, int) {
        repack_ternary(packed, packed_rows, k, const_cast<std::uint8_t*>(matrix.packed), matrix.k,
                       to.first_row, begin, end);
    });
    float* row_scale = const_cast<float*>(matrix.row_scale) + to.first_row;
    for (std::int64_t i = 0; i < rows; ++i) row_scale[i] = scale[scales == 1 ? 0 : i];
    to.set = true;
}

// `rows` rows of k values of matrix.type into rows first.. of a matrix whose rows are padded.
void Weights::store_rows(Buffer& storage, DenseMatrix& matrix, std::int64_t first, const void* data,
                         std::int64_t rows, std::int64_t k) {
    const auto size = static_cast<std::int64_t>(size_of(matrix.type));
    if (!storage) storage = Buffer(std::int64_t{matrix.rows} * matrix.k * size, Pages::huge);
    matrix.data = storage.as<void>();
    pool_.for_ranges(rows, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t row = begin; row < end; ++row)
            std::memcpy(storage.as<char>() + (first + row) * matrix.k * size,
                        static_cast<const char*>(data) + row * k * size, static_cast<std::size_t>(k * size));
    });
}

void Weights::quantise_head(const void* data, DType type) {
    const std::int64_t k = config_.hidden, padded = round_up(k, 16), rows = config_.vocab;
    const std::int64_t stored = round_up(rows, group_rows);
    head_storage_ = Buffer(stored * padded, Pages::huge);
    head_scales_ = Buffer(stored * sizeof(float), Pages::huge);
    const auto size = static_cast<std::int64_t>(size_of(type));
    pool_.for_ranges(rows, [&](std::int64_t begin, std::int64_t end, int) {
        std::vector<char> raw(padded * size, 0);
        std::vector<float> values(padded);
        std::vector<std::int8_t> codes(padded);
        const DenseMatrix one{1, static_cast<int>(padded), type, raw.data()};
        for (std::int64_t row = begin; row < end; ++row) {
            std::memcpy(raw.data(), static_cast<const char*>(data) + row * k * size,
                        static_cast<std::size_t>(k * size));
            kernels_.load_row(one, 0, values.data());
            std::int32_t ignored;
            kernels_.quantise(values.data(), static_cast<int>(padded), codes.data(),
                              head_scales_.as<float>() + row, &ignored);
            store_byte_row(codes.data(), padded, head_storage_.as<std::uint8_t>(), row);
        }
    });
    int8_head = {static_cast<int>(rows), static_cast<int>(padded), head_storage_.as<std::uint8_t>(),
                 head_scales_.as<float>()};
}

void Weights::set_dense(const std::string& name, const void* data, DType type,
                        const std::vector<std::int64_t>& shape) {
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
    switch (to.kind) {
        case Target::norm: {
            const std::int64_t padded = round_up(to.rows, 16);
            std::vector<char> raw(padded * size_of(type), 0);
            std::memcpy(raw.data(), data, to.rows * size_of(type));
            kernels_.load_row({1, static_cast<int>(padded), type, raw.data()}, 0, to.values);
            break;
        }
        case Target::linear: {
            Linear& matrix = *to.matrix;
            if (matrix.has_dense && matrix.dense.type != type)
                throw std::invalid_argument(name +
                                            ": its type differs from that of the tensors it is fused with");
            matrix.dense.type = type;
            matrix.has_dense = true;
            store_rows(matrix.storage, matrix.dense, to.first_row, data, to.rows, to.k);
            break;
        }
        case Target::embedding:
        case Target::head: {
            const bool is_head = to.kind == Target::head || config_.tied;
            if (is_head && has_int8_head) quantise_head(data, type);
            if (to.kind == Target::head && has_int8_head) break;  // only its 8-bit form is kept
            DenseMatrix& matrix = to.kind == Target::head ? stored_head : embedding;
            Buffer& storage = to.kind == Target::head ? head_storage_ : embedding_storage_;
            matrix = {static_cast<int>(to.rows), static_cast<int>(round_up(to.k, 16)), type, nullptr};
            storage = Buffer();
            store_rows(storage, matrix, 0, data, to.rows, to.k);
            if (is_head) stored_head = matrix;
            break;
        }
    }
    to.set = true;
}

void Weights::finish() const {
    std::string missing;
    for (const auto& [name, to] : targets_)
        if (!to.set) missing += (missing.empty() ? "" : ", ") + name;
    if (!missing.empty()) throw std::invalid_argument("these tensors are missing: " + missing);
}

std::int64_t Weights::bytes() const {
    std::size_t total = ternary_arena_.bytes() + scale_arena_.bytes() + norm_arena_.bytes() +
                        embedding_storage_.bytes() + head_storage_.bytes() + head_scales_.bytes();
    for (const LayerWeights& layer : layers)
        for (const Linear* matrix : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down})
            total += matrix->storage.bytes();
    return static_cast<std::int64_t>(total);
}

std::int64_t Weights::bytes_per_token() const {
    const bool embedding_is_head = config_.tied && !has_int8_head;
    return bytes() - (embedding_is_head ? 0 : static_cast<std::int64_t>(embedding_storage_.bytes()));
}

}  // namespace tritwise
