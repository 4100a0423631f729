// Causal attention of a few queries that share one key-value head. Included by each kernels_*.cpp.
//
// Keys lie in blocks of 16 positions, [head_dim][16]: a vector holds one dimension of 16 keys, so 16 scores
// need head_dim multiply-adds and no horizontal sum. Values lie by position: a vector holds 16 dimensions of
// one value. Queries of one call share every load of a key or value.
#pragma once

#include "kernels.hpp"
#include "lanes.hpp"

namespace tritwise::TRITWISE_ISA {

// scores[q * ld + position] = scale * sum_d query[d] key[position][d], d in order.
template <int Q>
inline void attention_scores(const AttentionTask& task, const float* interleaved, int blocks, float* scores,
                             std::ptrdiff_t ld) {
    const int dims = task.head_dim;
    for (int block = 0; block < blocks; ++block) {
        const float* keys = task.keys + static_cast<std::ptrdiff_t>(block) * dims * 16;
        Lanes acc[Q];
        for (int q = 0; q < Q; ++q) acc[q] = set1(0.0f);
        for (int d = 0; d < dims; ++d) {
            const Lanes key = load(keys + d * 16);
            for (int q = 0; q < Q; ++q) acc[q] = fma(set1(interleaved[d * Q + q]), key, acc[q]);
        }
        for (int q = 0; q < Q; ++q) store(scores + q * ld + block * 16, acc[q] * set1(task.scale));
    }
}

// Scores to exp(score - max), zero beyond `length` up to a multiple of 16. Returns the sum.
inline float exponentials(float* scores, int length) {
    const int padded = (length + 15) / 16 * 16;
    for (int i = length; i < padded; ++i) scores[i] = scores[length - 1];
    Lanes top = load(scores);
    for (int i = 16; i < padded; i += 16) top = max(load(scores + i), top);
    const Lanes shift = set1(largest(top));
    Lanes total = set1(0.0f);
    for (int i = 0; i < padded; i += 16) {
        store(scores + i, exp(load(scores + i) - shift));
        if (i + 16 > length)
            for (int j = length; j < padded; ++j) scores[j] = 0.0f;
        total = total + load(scores + i);
    }
    return sum(total);
}

// out[q * value_stride + d] += sum over positions [begin, end), in order, of scores * values.
template <int Q, int D>
inline void attention_values(const AttentionTask& task, const float* scores, std::ptrdiff_t ld, int begin,
                             int end, int d, float* out) {
    Lanes acc[Q][D];
    for (int q = 0; q < Q; ++q)
        for (int i = 0; i < D; ++i) acc[q][i] = load(out + q * task.value_stride + d + i * 16);
    const float* values = task.values + static_cast<std::ptrdiff_t>(begin) * task.value_stride + d;
    for (int position = begin; position < end; ++position, values += task.value_stride) {
        Lanes value[D];
        for (int i = 0; i < D; ++i) value[i] = load(values + i * 16);
        for (int q = 0; q < Q; ++q) {
            const Lanes weight = set1(scores[q * ld + position]);
            for (int i = 0; i < D; ++i) acc[q][i] = fma(weight, value[i], acc[q][i]);
        }
    }
    for (int q = 0; q < Q; ++q)
        for (int i = 0; i < D; ++i) store(out + q * task.value_stride + d + i * 16, acc[q][i]);
}

template <int Q>
inline void attention_values_all(const AttentionTask& task, const float* scores, std::ptrdiff_t ld, int begin,
                                 int end, float* out) {
    int d = 0;
    for (; d + 32 <= task.value_stride; d += 32) attention_values<Q, 2>(task, scores, ld, begin, end, d, out);
    for (; d < task.value_stride; d += 16) attention_values<Q, 1>(task, scores, ld, begin, end, d, out);
}

template <int Q>
inline void attention_tile(const AttentionTask& task) {
    // Fewer queries than Q: the last one stands in for those that lack, and their results are dropped.
    int longest = 0, shortest = task.length[0];
    for (int q = 0; q < task.queries; ++q) {
        longest = task.length[q] > longest ? task.length[q] : longest;
        shortest = task.length[q] < shortest ? task.length[q] : shortest;
    }
    const int blocks = (longest + 15) / 16;
    const std::ptrdiff_t ld = blocks * 16;
    float* interleaved = task.scratch;
    float* out = interleaved + Q * (task.head_dim + 16);
    float* scores = out + Q * (task.head_dim + 16);
    for (int q = 0; q < Q; ++q) {
        const float* query = task.query[q < task.queries ? q : task.queries - 1];
        for (int d = 0; d < task.head_dim; ++d) interleaved[d * Q + q] = query[d];
        for (int d = 0; d < task.value_stride; ++d) out[q * task.value_stride + d] = 0.0f;
    }
    attention_scores<Q>(task, interleaved, blocks, scores, ld);
    float inverse[Q];
    for (int q = 0; q < Q; ++q)
        inverse[q] =
            1.0f / exponentials(scores + q * ld, task.length[q < task.queries ? q : task.queries - 1]);
    // What all queries see together, then each one's rest: positions stay in order for every query.
    attention_values_all<Q>(task, scores, ld, 0, shortest, out);
    for (int q = 0; q < task.queries; ++q) {
        float* row = out + q * task.value_stride;
        attention_values_all<1>(task, scores + q * ld, ld, shortest, task.length[q], row);
        for (int d = 0; d < task.value_stride; d += 16) store(row + d, load(row + d) * set1(inverse[q]));
        for (int d = 0; d < task.head_dim; ++d) task.out[q][d] = row[d];
    }
}

inline void attention(const AttentionTask& task) {
    if (task.queries == 1) return attention_tile<1>(task);
    if (task.queries == 2) return attention_tile<2>(task);
    if (task.queries <= 4) return attention_tile<4>(task);
    if constexpr (query_tile > 4) attention_tile<8>(task);
}

}  // namespace tritwise::TRITWISE_ISA
