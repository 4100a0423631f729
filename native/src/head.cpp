// The last norm of a chunk, and its logits or only the most likely ids.
#include <cmath>
#include <limits>

#include "chunk.hpp"
#include "packing.hpp"

namespace tritwise {

// Rows whose logits exist at once when only their largest is asked for.
constexpr std::int64_t best_rows_at_once = 8;

void Model::norm_rows(const Chunk& chunk, const std::int32_t* rows, int m) {
    const int k = static_cast<int>(round_up(config_.hidden, 16));
    for (int j = 0; j < m; ++j) {
        const std::int64_t row = rows[j] - chunk.first;
        kernels_.rms_norm(hidden_.as<float>() + row * hidden_stride_, weights_.norm, k, config_.hidden,
                          config_.eps, input_.as<float>() + std::int64_t{j} * k);
    }
}

static bool all_finite(const float* x, int n) {
    bool finite = true;
    for (int i = 0; i < n; ++i) finite &= std::isfinite(x[i]);
    return finite;
}

void Model::head_logits(int m, float* y) {
    const int k = static_cast<int>(round_up(config_.hidden, 16));
    const float* normed = input_.as<float>();
    if (!weights_.has_int8_head) {
        pool_.for_ranges(config_.vocab, [&](std::int64_t from, std::int64_t to, int) {
            kernels_.dense(weights_.stored_head, static_cast<int>(from), static_cast<int>(to), normed, k, m,
                           y, config_.vocab);
        });
        return;
    }
    std::int8_t* planes = codes_.as<std::int8_t>();
    std::int8_t* quads = quads_.as<std::int8_t>();
    for (int j = 0; j < m; ++j) {
        const float* row = normed + std::int64_t{j} * k;
        kernels_.quantise_planes(row, k, planes, planes + k, scales_.as<float>() + j,
                                 sums_.as<std::int32_t>() + 2 * j);
        // Rounding to integers would hide what is not a number.
        if (!all_finite(row, k)) scales_.as<float>()[j] = std::numeric_limits<float>::quiet_NaN();
        store_quad_column(planes, k, quads, 2 * j);
        store_quad_column(planes + k, k, quads, 2 * j + 1);
    }
    for (std::int64_t column = 2 * m; column % quad; ++column) store_quad_column(nullptr, k, quads, column);
    const PlaneRows x{m, quads, scales_.as<float>(), sums_.as<std::int32_t>()};
    pool_.for_ranges(round_up(config_.vocab, group_rows) / group_rows,
                     [&](std::int64_t from, std::int64_t to, int) {
                         kernels_.bytes(weights_.int8_head, static_cast<int>(from), static_cast<int>(to), x,
                                        y, config_.vocab);
                     });
}

// The first of the largest; -1 when that is NaN or infinite. A NaN anywhere is the largest.
static std::int32_t best_of(const float* logits, int vocab) {
    int best = 0;
    for (int i = 0; i < vocab; ++i) {
        if (std::isnan(logits[i])) return -1;
        if (logits[i] > logits[best]) best = i;
    }
    return std::isfinite(logits[best]) ? best : -1;
}

void Model::head(const Chunk& chunk) {
    // Calls use(begin, count) for each run of asked rows that lie in this chunk.
    const auto each_run = [&](const std::int32_t* rows, std::int64_t count, std::int64_t limit, auto&& use) {
        const auto inside = [&](std::int64_t j) {
            return rows[j] >= chunk.first && rows[j] < chunk.first + chunk.n;
        };
        for (std::int64_t begin = 0, end; begin < count; begin = end) {
            end = begin;
            while (end < count && end - begin < limit && inside(end)) ++end;
            if (end > begin) use(begin, static_cast<int>(end - begin));
            else ++end;
        }
    };
    each_run(chunk.logits_for, chunk.logits_rows, chunk_tokens, [&](std::int64_t begin, int m) {
        norm_rows(chunk, chunk.logits_for + begin, m);
        float* y = chunk.logits + begin * config_.vocab;
        head_logits(m, y);
        if (chunk.trace) {
            const std::int64_t k = round_up(config_.hidden, 16);
            trace_rows(*chunk.trace, "norm", input_.as<float>(), k, config_.hidden, m);
            trace_rows(*chunk.trace, "logits", y, config_.vocab, config_.vocab, m);
        }
    });
    if (chunk.best_rows && !best_logits_)
        best_logits_ = Buffer(floats(best_rows_at_once * config_.vocab), Pages::lazy);
    each_run(chunk.best_for, chunk.best_rows, best_rows_at_once, [&](std::int64_t begin, int m) {
        norm_rows(chunk, chunk.best_for + begin, m);
        float* y = best_logits_.as<float>();
        head_logits(m, y);
        for (int j = 0; j < m; ++j)
            chunk.best[begin + j] = best_of(y + std::int64_t{j} * config_.vocab, config_.vocab);
    });
}

}  // namespace tritwise
