// The last norm and the logits of a chunk.
#include "chunk.hpp"
#include "packing.hpp"

namespace tritwise {

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

}  // namespace tritwise
