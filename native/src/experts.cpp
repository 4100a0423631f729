// A feed-forward layer of experts: router, products over the tokens that share an expert, weighted sum.
#include "experts.hpp"

#include <algorithm>
#include <cmath>

#include "chunk.hpp"
#include "packing.hpp"

namespace tritwise {

void choose_experts(const float* logits, int experts, int k, bool normalise, std::int32_t* chosen,
                    float* weights) {
    const float largest = *std::max_element(logits, logits + experts);
    const auto mass = [&](int expert) { return std::exp(double{logits[expert]} - double{largest}); };
    for (int i = 0; i < k; ++i) {
        int best = -1;
        for (int expert = 0; expert < experts; ++expert)
            if ((best < 0 || logits[expert] > logits[best]) &&
                std::find(chosen, chosen + i, expert) == chosen + i)
                best = expert;
        chosen[i] = best;
    }
    std::sort(chosen, chosen + k);
    double sum = 0.0;
    if (normalise)
        for (int i = 0; i < k; ++i) sum += mass(chosen[i]);
    else
        for (int expert = 0; expert < experts; ++expert) sum += mass(expert);
    for (int i = 0; i < k; ++i) weights[i] = static_cast<float>(mass(chosen[i]) / sum);
}

ExpertWork::ExpertWork(const ModelConfig& config, const Weights& all, std::int64_t tokens)
    : experts(config.experts),
      k(config.experts_per_token),
      has_shared(config.shared_ffn > 0),
      chosen(tokens * k),
      weights(tokens * k),
      shared_weights(tokens),
      slots(tokens * (k + 1)),
      next(experts + 1) {
    const LayerWeights& layer = all.layers[0];
    std::int64_t widest = 0;
    for (const ExpertWeights& expert : layer.experts) {
        stride = std::max({stride, expert.gate_up.ternary.k, expert.down.ternary.k, expert.gate_up.dense.k,
                           expert.down.dense.k});
        widest = std::max<std::int64_t>(widest, expert.gate_up.dense.rows);
    }
    // An entry a token and expert, and what the beginnings of the groups leave free.
    const std::int64_t most = tokens * (k + 1) + std::int64_t{quad} * (experts + 1);
    const auto make = [](std::int64_t bytes) { return Buffer(static_cast<std::size_t>(bytes), Pages::lazy); };
    router = make(tokens * layer.router.dense.rows * 4);
    if (config.ternary) {
        codes = make(most * stride);
        quads = make(most * stride);
        scales = make(most * 4);
        sums = make(most * 4);
    } else {
        inputs = make(most * stride * 4);
    }
    gate_up = make(most * widest * 4);
    out = make(most * layer.experts[0].down.dense.rows * 4);
}

void ExpertWork::group(const LayerWeights& layer, std::int64_t rows) {
    groups.clear();
    entries.resize(rows * (k + (has_shared ? 1 : 0)));
    std::fill(next.begin(), next.end(), 0);
    for (std::int64_t i = 0; i < rows * k; ++i) ++next[chosen[i]];
    if (has_shared) next[experts] = static_cast<std::int32_t>(rows);
    std::int64_t first = 0, slot = 0, used = 0;
    for (int id = 0; id <= experts; ++id) {
        const int m = next[id];
        if (m == 0) continue;
        next[id] = static_cast<std::int32_t>(groups.size());  // from here on an expert's group
        groups.push_back({&layer.experts[id], id, 0, first, slot, used, 0});
        first += m;
        slot += round_up(m, quad);
        used += std::int64_t{m} * layer.experts[id].gate_up.dense.rows;
    }
    const auto add = [&](std::int64_t row, std::int64_t j, int id) {
        Group& to = groups[next[id]];
        slots[row * (k + 1) + j] = to.slot + to.m;
        entries[to.first + to.m++] = {static_cast<std::int32_t>(row), next[id]};
    };
    for (std::int64_t row = 0; row < rows; ++row) {
        for (int j = 0; j < k; ++j) add(row, j, chosen[row * k + j]);
        if (has_shared) add(row, k, experts);
    }
}

// One linear of every group, y of its entries in rows behind `y + at(group)`. An item is 32 rows of one
// expert's matrix, the experts one behind the other, so one section does the work of all.
void Model::expert_products(Part part, Linear ExpertWeights::* which, const Chunk& chunk, float* y, auto&& at) {
    Profile::Timer timer(profile_, part);
    ExpertWork& work = expert_work_;
    std::int64_t items = 0;
    for (ExpertWork::Group& group : work.groups) {
        const Linear& matrix = group.expert->*which;
        group.task = items;
        items += matrix.dense.rows / group_rows;
        timer.add(weights_.bytes(matrix), matrix.dense.rows * std::int64_t{matrix.dense.k} * group.m);
    }
    std::int32_t* acc = chunk.trace ? work.accumulators.as<std::int32_t>() : nullptr;
    pool_.for_ranges(items, [&](std::int64_t begin, std::int64_t end, int thread) {
        auto group = std::upper_bound(work.groups.begin(), work.groups.end(), begin,
                                      [](std::int64_t item, const auto& g) { return item < g.task; }) -
                     1;
        for (; begin < end; ++group) {
            const Linear& matrix = group->expert->*which;
            const int rows = matrix.dense.rows, from = static_cast<int>(begin - group->task),
                      to = static_cast<int>(std::min<std::int64_t>(end - group->task, rows / group_rows));
            const std::int64_t input = group->slot * work.stride;
            if (config_.ternary) {
                const QuantisedRows x{group->m,
                                      matrix.ternary.k,
                                      work.codes.as<std::int8_t>() + input,
                                      work.quads.as<std::int8_t>() + input,
                                      work.scales.as<float>() + group->slot,
                                      work.sums.as<std::int32_t>() + group->slot};
                kernels_.ternary(matrix.ternary, from, to, x,
                                 {y + at(*group), acc ? acc + at(*group) : nullptr, rows},
                                 unpack_scratch(thread));
            } else {
                kernels_.dense(matrix.dense, from * group_rows, to * group_rows,
                               work.inputs.as<float>() + input, matrix.dense.k, group->m, y + at(*group),
                               rows);
            }
            begin = group->task + to;
        }
    });
}

// As `prepare`, for the product of entry `index` of a group with a matrix.
void Model::prepare_entry(const ExpertWork::Group& group, int index, const Linear& matrix, const float* x,
                          int width) {
    ExpertWork& work = expert_work_;
    const std::int64_t base = group.slot * work.stride;
    const int lanes = static_cast<int>(round_up(width, 16));
    if (!config_.ternary) {
        std::memcpy(work.inputs.as<float>() + base + std::int64_t{index} * lanes, x, floats(lanes));
        return;
    }
    const int k = matrix.ternary.k;
    // Not k apart: what is quantised is padded to lanes, which may be more than the blocks of a packing.
    std::int8_t* codes = work.codes.as<std::int8_t>() + base + std::int64_t{index} * work.stride;
    kernels_.quantise(x, lanes, codes, work.scales.as<float>() + group.slot + index,
                      work.sums.as<std::int32_t>() + group.slot + index);
    if (k > lanes) std::memset(codes + lanes, 0, static_cast<std::size_t>(k - lanes));
    if (group.m == 1) return;
    std::int8_t* quads = work.quads.as<std::int8_t>() + base;
    store_quad_column(codes, k, quads, index);
    if (index == group.m - 1)
        for (std::int64_t column = group.m; column % quad; ++column)
            store_quad_column(nullptr, k, quads, column);
}

void Model::trace_expert(const Chunk& chunk, const ExpertWork::Group& group, const std::string& name,
                         const Linear& matrix, int width, std::int64_t first_acc, int rows) {
    if (!config_.ternary) return;
    const ExpertWork& work = expert_work_;
    for (std::int64_t i = 0; i < group.m; ++i) {
        append(*chunk.trace, name + ".input_codes", TraceArray::i8, width,
               work.codes.as<std::int8_t>() + (group.slot + i) * work.stride);
        append(*chunk.trace, name + ".input_scale", TraceArray::f32, 0,
               work.scales.as<float>() + group.slot + i);
        append(*chunk.trace, name + ".accumulator", TraceArray::i32, rows,
               work.accumulators.as<std::int32_t>() + first_acc + i * matrix.ternary.rows);
    }
}

// Router: every logit is a chain of fused multiply-adds in 16 lanes, then the tree; softmax and choice a
// token.
void Model::route(const Chunk& chunk, const LayerWeights& layer) {
    const Profile::Timer timer(profile_, Part::router);
    ExpertWork& work = expert_work_;
    const DenseMatrix& router = layer.router.dense;
    float* logits = work.router.as<float>();
    pool_.for_ranges(router.rows / 8, [&](std::int64_t begin, std::int64_t end, int) {
        kernels_.dense(router, static_cast<int>(begin * 8), static_cast<int>(end * 8), scratch_.as<float>(),
                       input_stride_, static_cast<int>(chunk.n), logits, router.rows);
    });
    for_rows(chunk, [&](std::int64_t row) {
        const float* of_row = logits + row * router.rows;
        choose_experts(of_row, work.experts, work.k, config_.normalise_experts,
                       work.chosen.data() + row * work.k, work.weights.data() + row * work.k);
        if (work.has_shared)  // its gate's row lies behind those of the experts
            work.shared_weights[row] = static_cast<float>(
                1.0 / (1.0 + std::exp(-double{of_row[round_up(work.experts, group_rows)]})));
    });
    work.group(layer, chunk.n);
    experts_read_ += static_cast<std::int64_t>(work.groups.size()) - (work.has_shared ? 1 : 0);
}

// From the normed rows in scratch_ to result_.
void Model::experts(const Chunk& chunk, int n, const std::string& prefix) {
    const LayerWeights& layer = weights_.layers[n];
    ExpertWork& work = expert_work_;
    if (chunk.trace && config_.ternary && !work.accumulators)
        work.accumulators = Buffer(std::max(work.gate_up.bytes(), work.out.bytes()), Pages::lazy);
    route(chunk, layer);
    const auto for_entries = [&](auto&& each) {
        pool_.for_ranges(static_cast<std::int64_t>(work.entries.size()),
                         [&](std::int64_t begin, std::int64_t end, int) {
                             for (std::int64_t i = begin; i < end; ++i) {
                                 const ExpertWork::Group& group = work.groups[work.entries[i].group];
                                 each(group, static_cast<int>(i - group.first), work.entries[i].row);
                             }
                         });
    };
    const auto trace_groups = [&](auto&& each) {
        if (!chunk.trace) return;
        for (const ExpertWork::Group& group : work.groups)
            each(group, *group.expert,
                 prefix + "mlp." +
                     (group.id == work.experts ? "shared_expert" : "experts." + std::to_string(group.id)));
    };

    for_entries([&](const ExpertWork::Group& group, int index, std::int64_t row) {
        prepare_entry(group, index, group.expert->gate_up, scratch_.as<float>() + row * input_stride_,
                      config_.hidden);
    });
    const auto gate_up_at = [](const ExpertWork::Group& group) { return group.gate_up; };
    expert_products(Part::gate_up, &ExpertWeights::gate_up, chunk, work.gate_up.as<float>(), gate_up_at);
    if (chunk.trace) trace_routes(chunk, layer, prefix);
    trace_groups([&](const ExpertWork::Group& group, const ExpertWeights& expert, const std::string& name) {
        for (int i = 0; i < group.m; ++i)
            append(*chunk.trace, name + ".positions", TraceArray::i32, 0,
                   chunk.positions + work.entries[group.first + i].row);
        const Linear& matrix = expert.gate_up;
        trace_expert(chunk, group, name + ".gate_proj", matrix, config_.hidden, group.gate_up, expert.ffn);
        trace_expert(chunk, group, name + ".up_proj", matrix, config_.hidden,
                     group.gate_up + matrix.dense.rows / 2, expert.ffn);
    });

    for_entries([&](const ExpertWork::Group& group, int index, std::int64_t) {
        const ExpertWeights& expert = *group.expert;
        const int rows = expert.gate_up.dense.rows, ffn_k = static_cast<int>(round_up(expert.ffn, 16));
        float* x = work.gate_up.as<float>() + group.gate_up + std::int64_t{index} * rows;
        (config_.relu2 ? kernels_.relu2_gate : kernels_.silu_gate)(x, x + rows / 2, ffn_k, x);
        if (expert.sub_norm) kernels_.rms_norm(x, expert.sub_norm, ffn_k, expert.ffn, config_.eps, x);
        prepare_entry(group, index, expert.down, x, expert.ffn);
    });
    const auto out_at = [&](const ExpertWork::Group& group) { return group.slot * hidden_stride_; };
    expert_products(Part::down, &ExpertWeights::down, chunk, work.out.as<float>(), out_at);
    trace_groups([&](const ExpertWork::Group& group, const ExpertWeights& expert, const std::string& name) {
        trace_expert(chunk, group, name + ".down_proj", expert.down, expert.ffn, out_at(group),
                     config_.hidden);
    });

    // A token's sum, in ascending order of experts and the shared one last, depends on no other token.
    const int hidden_k = static_cast<int>(round_up(config_.hidden, 16));
    for_rows(chunk, [&](std::int64_t row) {
        float* sum = result_.as<float>() + row * hidden_stride_;
        std::fill(sum, sum + hidden_k, 0.0f);
        for (int j = 0; j < work.k + (work.has_shared ? 1 : 0); ++j) {
            const float* y = work.out.as<float>() + work.slots[row * (work.k + 1) + j] * hidden_stride_;
            const float weight = j < work.k ? work.weights[row * work.k + j] : work.shared_weights[row];
            for (int i = 0; i < hidden_k; ++i) sum[i] += weight * y[i];
        }
    });
}

void Model::trace_routes(const Chunk& chunk, const LayerWeights& layer, const std::string& prefix) {
    const ExpertWork& work = expert_work_;
    const int stride = layer.router.dense.rows;
    trace_rows(*chunk.trace, prefix + "mlp.gate.logits", work.router.as<float>(), stride, work.experts,
               chunk.n);
    for (std::int64_t row = 0; row < chunk.n; ++row) {
        append(*chunk.trace, prefix + "mlp.gate.experts", TraceArray::i32, work.k,
               work.chosen.data() + row * work.k);
        append(*chunk.trace, prefix + "mlp.gate.weights", TraceArray::f32, work.k,
               work.weights.data() + row * work.k);
        if (work.has_shared)
            append(*chunk.trace, prefix + "mlp.shared_expert_gate.weights", TraceArray::f32, 0,
                   work.shared_weights.data() + row);
    }
}

}  // namespace tritwise
