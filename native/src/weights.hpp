// All weights of a model, by Hugging Face's names, in the layouts that the kernels read.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "head_weights.hpp"
#include "kernels.hpp"
#include "memory.hpp"
#include "thread_pool.hpp"

namespace tritwise {

struct ModelConfig {
    int vocab, hidden, ffn, layers, heads, kv_heads,
        head_dim;  // ffn: the widest expert's where there are experts
    int experts, experts_per_token, expert_ffn,
        shared_ffn;          // 0 experts: a dense feed-forward; 0: none shared
    bool normalise_experts;  // the weights of a token's experts add up to 1
    float eps;
    float linear_eps;        // of the norms inside of the linears
    std::vector<float> inverse_frequencies;  // of the rotary embedding, [head_dim / 2]
    float rope_factor;                       // times cos and sin
    bool tied;       // the head is the embedding
    bool sub_norms;   // model_type bitnet
    bool head_norms;  // model_type qwen3
    bool linear_norms;  // use_rms_norm: each linear of a block norms its own input; ternary and without experts
    bool relu2;      // else SiLU
    bool ternary;    // linear_type ternary or binary; else dense
};

// A tensor of a matrix: its name below the layer, its rows, and the norm of its input, null where it shares that of the
// matrix.
struct LinearPart {
    std::string name;
    int first_row, rows;
    const float* norm;
};

// One matrix, possibly of several tensors above each other (q|k|v, gate|up); each begins at a multiple of
// group_rows, and the rows between are zero.
struct Linear {
    int inputs = 0;  // not padded
    std::vector<LinearPart> parts;
    TernaryMatrix ternary{};
    DenseMatrix dense{};
    Buffer storage;          // dense only; ternary matrices lie in one arena
    bool has_dense = false;  // whether a part was set, which fixes the type
};

struct ExpertWeights {
    Linear gate_up, down;
    const float* sub_norm;  // may be null
    int ffn;
};

struct LayerWeights {
    Linear qkv, o, gate_up, down;  // the last two are empty where there are experts
    Linear router;  // always dense; the shared expert's gate is the row behind the experts, padded
    std::vector<ExpertWeights> experts;                                            // the shared one last
    const float *input_norm, *post_attention_norm, *attn_sub_norm, *ffn_sub_norm;  // the last two may be null
    const float *q_norm, *k_norm;  // of a head's query and key; may be null
};

class Weights {
public:
    Weights(const ModelConfig& config, HeadKind head, const Kernels& kernels, ThreadPool& pool);

    // Both throw std::invalid_argument that names the tensor. `scales` is 1 or `rows`.
    void set_ternary(const std::string& name, const std::uint8_t* packed, std::int64_t packed_rows,
                     std::int64_t k, std::int64_t rows, const float* scale, std::int64_t scales);
    void set_dense(const std::string& name, const void* data, DType type,
                   const std::vector<std::int64_t>& shape);
    // The same from a file that is open as `descriptor`, at a byte offset; the file is not needed after `finish`,
    // except for an embedding whose rows are then read when a token needs them. Values are checked: no NaN and no
    // infinity, no field 3, and no code 0 where `binary`.
    void set_ternary_file(const std::string& name, int descriptor, std::int64_t offset, std::int64_t rows,
                          std::int64_t k, float scale, bool binary);
    void set_dense_file(const std::string& name, int descriptor, std::int64_t offset, DType type,
                        const std::vector<std::int64_t>& shape);
    void finish();  // throws std::invalid_argument that names every tensor that was not set

    std::int64_t bytes() const;            // resident
    std::int64_t bytes(const Linear& matrix) const;  // with its scales, without the norms of its parts
    std::int64_t bytes_per_token() const;  // read by one step with logits; the one embedding row is left out
    // The embedding of `count` tokens as it is stored, `stride` bytes apart. Throws std::runtime_error when the file
    // has become shorter.
    void embed(const std::int32_t* tokens, std::int64_t count, char* to, std::int64_t stride) const;
    DType embedding_type() const { return embedding_.type; }

    std::vector<LayerWeights> layers;
    const float* norm = nullptr;
    HeadWeights head;
    int gate_rows, q_rows, kv_rows;  // rows of the parts, padded to group_rows

    // A layer's ternary or dense matrices, without the router, in the order in which a forward pass reads
    // them.
    static std::vector<Linear*> linears(LayerWeights& layer);

private:
    struct Target {  // where a tensor goes
        enum Kind { linear, router, norm, embedding, head } kind;
        std::int64_t rows, k;  // k is 0 for a norm
        Linear* matrix = nullptr;
        std::int64_t first_row = 0;
        float* values = nullptr;
        bool set = false;
    };

    Target& target(const std::string& name);
    void add_linear(const std::string& prefix, Linear& matrix, std::int64_t k,
                    const std::vector<std::pair<std::string, std::int64_t>>& parts,
                    Target::Kind kind = Target::linear);
    void add_experts(const std::string& prefix, LayerWeights& layer);
    const float* add_norm(const std::string& name, std::int64_t size);
    void set_rows(const std::string& name, const RowSource& source);
    void check_shape(const std::string& name, const std::vector<std::int64_t>& shape);

    const ModelConfig config_;
    const Kernels& kernels_;
    ThreadPool& pool_;
    std::map<std::string, Target> targets_;
    Buffer ternary_arena_, scale_arena_, norm_arena_, embedding_storage_;
    RowSource embedding_;
    Buffer bounce_;  // what is read of a file, until `finish`
    std::int64_t norm_used_ = 0;
};

}  // namespace tritwise
