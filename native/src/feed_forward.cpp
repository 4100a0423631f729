// The feed-forward half of a layer.
#include "chunk.hpp"

namespace tritwise {

// From so many tokens on the activation takes 32 rows of gate and up as soon as they are there, while they are in the
// second-level cache: both of a whole chunk are more than that holds. For few tokens it would only cut the stream of
// weights in two.
constexpr std::int64_t gated_tokens = 32;

// The activated rows in scratch_, of the rows made ready by `prepare`.
void Model::gated_product(const Linear& matrix, const Chunk& chunk, Gate activate) {
    Profile::Timer timer(profile_, Part::gate_up);
    const TernaryMatrix& w = matrix.ternary;
    timer.add(weights_.bytes(matrix), w.rows * std::int64_t{w.k} * chunk.n);
    const std::int64_t room = chunk_tokens * 2 * group_rows;  // of a thread
    if (!gated_) gated_ = Buffer(floats(pool_.size() * room), Pages::lazy);
    const QuantisedRows x = quantised(chunk, w);
    pool_.for_ranges(weights_.gate_rows / group_rows, [&](std::int64_t begin, std::int64_t end, int thread) {
        float* both = gated_.as<float>() + thread * room;
        for (int group = static_cast<int>(begin); group < end; ++group) {
            const int first = group * group_rows;
            for (int half = 0; half < 2; ++half) {
                const int of = group + half * weights_.gate_rows / group_rows;
                kernels_.ternary(w, of, of + 1, x,
                                 {both + half * group_rows, nullptr, 2 * group_rows, of * group_rows},
                                 unpack_scratch(thread));
            }
            for (std::int64_t row = 0; row < chunk.n; ++row) {
                const float* gate = both + row * 2 * group_rows;
                activate(gate, gate + group_rows, group_rows, scratch_.as<float>() + row * input_stride_ + first);
            }
        }
    });
}

// From the rows made ready by `prepare` to result_.
void Model::feed_forward(const Chunk& chunk, int n, const std::string& prefix) {
    if (config_.experts) return experts(chunk, n, prefix);
    const LayerWeights& layer = weights_.layers[n];
    const int ffn_k = static_cast<int>(round_up(config_.ffn, 16));
    const auto activate = config_.relu2 ? kernels_.relu2_gate : kernels_.silu_gate;
    // With norms inside of the linears gate and up have no common input.
    const bool together = config_.ternary && !config_.linear_norms && !chunk.trace && chunk.n >= gated_tokens;
    if (together) gated_product(layer.gate_up, chunk, activate);
    else product(Part::gate_up, layer.gate_up, chunk, gate_up_.as<float>(), prefix);
    for_rows(Part::activation, chunk, [&](std::int64_t row) {
        const float* gate = gate_up_.as<float>() + row * 2 * ffn_stride_;
        float* x = scratch_.as<float>() + row * input_stride_;
        if (!together) activate(gate, gate + ffn_stride_, ffn_k, x);
        if (layer.ffn_sub_norm)
            kernels_.rms_norm(x, layer.ffn_sub_norm, ffn_k, config_.ffn, config_.eps, x);
        prepare(chunk, row, x, config_.ffn);
    });
    product(Part::down, layer.down, chunk, result_.as<float>(), prefix);
}

}  // namespace tritwise
