// The feed-forward half of a layer.
#include "chunk.hpp"

namespace tritwise {

// From the rows made ready by `prepare` to result_.
void Model::feed_forward(const Chunk& chunk, int n, const std::string& prefix) {
    if (config_.experts) return experts(chunk, n, prefix);
    const LayerWeights& layer = weights_.layers[n];
    const int ffn_k = static_cast<int>(round_up(config_.ffn, 16));
    product(Part::gate_up, layer.gate_up, chunk, gate_up_.as<float>());
    if (chunk.trace) {
        trace_product(chunk, layer.gate_up, prefix + "mlp.gate_proj", 0, config_.ffn, config_.hidden);
        trace_product(chunk, layer.gate_up, prefix + "mlp.up_proj", weights_.gate_rows, config_.ffn,
                      config_.hidden);
    }
    for_rows(Part::activation, chunk, [&](std::int64_t row) {
        float* gate = gate_up_.as<float>() + row * 2 * ffn_stride_;
        float* x = scratch_.as<float>() + row * input_stride_;
        (config_.relu2 ? kernels_.relu2_gate : kernels_.silu_gate)(gate, gate + ffn_stride_, ffn_k, x);
        if (layer.ffn_sub_norm)
            kernels_.rms_norm(x, layer.ffn_sub_norm, ffn_k, config_.ffn, config_.eps, x);
        prepare(chunk, row, x, config_.ffn);
    });
    product(Part::down, layer.down, chunk, result_.as<float>());
    if (chunk.trace)
        trace_product(chunk, layer.down, prefix + "mlp.down_proj", 0, config_.hidden, config_.ffn);
}

}  // namespace tritwise
