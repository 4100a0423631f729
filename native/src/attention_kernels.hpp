// Causal attention of a few queries that share one key-value head. Included by each kernels_*.cpp.
//
// Keys lie in blocks of 16 positions, [head_dim][16]: a vector holds one dimension of 16 keys, so 16 scores
// need head_dim multiply-adds and no horizontal sum. Values lie by position: a vector holds 16 dimensions of
// one value. Queries of one call share every load and every conversion of a key or value.
//
// A step, 16 elements of the cache for Q queries: 1 load and conversion (f16, int8: 1 + 1; int4: 2.5), Q
// broadcasts from memory, Q multiply-adds. With fewer queries more blocks or dimensions go side by side, so
// that up to `attention_tile` chains of multiply-adds hide their latency.
#pragma once

#include "kernels.hpp"
#include "lanes.hpp"

namespace tritwise::TRITWISE_ISA {

// Sixteen elements from element i on.
template <CacheType T>
inline Lanes load_elements(const char* p, std::ptrdiff_t i) {
    if constexpr (T == CacheType::f32) return load(reinterpret_cast<const float*>(p) + i);
    else if constexpr (T == CacheType::f16) return load_f16(reinterpret_cast<const std::uint16_t*>(p) + i);
    else return load_i8(reinterpret_cast<const std::int8_t*>(p) + i);
}

// The scales of the 16 positions of a block for one group.
template <CacheType T>
inline Lanes load_scales(const char* p, std::ptrdiff_t vector) {
    if constexpr (T == CacheType::int4)
        return load_f16(reinterpret_cast<const std::uint16_t*>(p) + vector * 16);
    else return load(reinterpret_cast<const float*>(p) + vector * 16);
}

constexpr bool has_scales(CacheType type) { return type == CacheType::int8 || type == CacheType::int4; }

inline const char* region_of(const AttentionTask& task, int position) {
    return task.base + task.pages[position / page_positions] * task.page_bytes;
}

// Bytes of sixteen elements.
constexpr std::ptrdiff_t vector_bytes(CacheType type) {
    return type == CacheType::f32 ? 64 : type == CacheType::f16 ? 32 : type == CacheType::int8 ? 16 : 8;
}

// What the next calls read: keys and values of as many positions. A page's region is too short for the hardware to know
// where it goes on, so it is asked for while scores are computed, step by step.
struct Ahead {
    const char *keys, *values;  // null: nothing is asked for

    void fetch(std::ptrdiff_t begin, std::ptrdiff_t end) const {
        if (!keys) return;
        for (std::ptrdiff_t at = (begin + 63) / 64 * 64; at < end; at += 64) {
            __builtin_prefetch(keys + at, 0, 2);
            __builtin_prefetch(values + at, 0, 2);
        }
    }
};

// scores[q * ld + position] for B blocks of 16 positions of one page.
template <CacheType T, int Q, int B>
inline void block_scores(const AttentionTask& task, const char* region, int block, const float* interleaved,
                         float* scores, std::ptrdiff_t ld, const Ahead& ahead) {
    constexpr std::ptrdiff_t step_bytes = B * vector_bytes(T);
    const CacheLayout& layout = *task.layout;
    const int dims = layout.head_dim, step = T == CacheType::int4 ? int4_group : dims;
    const std::ptrdiff_t block_elements = std::ptrdiff_t{dims} * 16;
    Lanes total[B][Q];
    for (int b = 0; b < B; ++b)
        for (int q = 0; q < Q; ++q) total[b][q] = set1(0.0f);
    for (int begin = 0, group = 0; begin < dims; begin += step, ++group) {
        const int end = begin + step < dims ? begin + step : dims;
        Lanes acc[B][Q];
        for (int b = 0; b < B; ++b)
            for (int q = 0; q < Q; ++q) acc[b][q] = set1(0.0f);
        if constexpr (T == CacheType::int4) {
            const auto* keys = reinterpret_cast<const std::uint8_t*>(region) + block * block_elements / 2;
            for (int d = begin; d < end; d += 2) {
                ahead.fetch(d * step_bytes, (d + 2) * step_bytes);
                for (int b = 0; b < B; ++b) {
                    Lanes even, odd;
                    load_i4(keys + (b * block_elements + d * 16) / 2, even, odd);
                    for (int q = 0; q < Q; ++q)
                        acc[b][q] = fma(set1(interleaved[d * Q + q]), even, acc[b][q]);
                    for (int q = 0; q < Q; ++q)
                        acc[b][q] = fma(set1(interleaved[(d + 1) * Q + q]), odd, acc[b][q]);
                }
            }
        } else {
            for (int d = begin; d < end; ++d) {
                ahead.fetch(d * step_bytes, (d + 1) * step_bytes);
                for (int b = 0; b < B; ++b) {
                    const Lanes key = load_elements<T>(region, (block + b) * block_elements + d * 16);
                    for (int q = 0; q < Q; ++q)
                        acc[b][q] = fma(set1(interleaved[d * Q + q]), key, acc[b][q]);
                }
            }
        }
        for (int b = 0; b < B; ++b) {
            if constexpr (has_scales(T)) {
                const Lanes scales =
                    load_scales<T>(region + layout.key_scales, (block + b) * layout.groups + group);
                for (int q = 0; q < Q; ++q) total[b][q] = fma(acc[b][q], scales, total[b][q]);
            } else {
                for (int q = 0; q < Q; ++q) total[b][q] = acc[b][q];
            }
        }
    }
    for (int b = 0; b < B; ++b)
        for (int q = 0; q < Q; ++q) store(scores + q * ld + b * 16, total[b][q] * set1(task.scale));
}

// Scores to exp(score - max), zero beyond `length` up to a multiple of 16. Gives the maximum and the sum.
inline void exponentials(float* scores, int length, float* largest_score, float* total_weight) {
    const int padded = (length + 15) / 16 * 16;
    for (int i = length; i < padded; ++i) scores[i] = scores[length - 1];
    Lanes top = load(scores);
    for (int i = 16; i < padded; i += 16) top = max(load(scores + i), top);
    *largest_score = largest(top);
    const Lanes shift = set1(*largest_score);
    Lanes total = set1(0.0f);
    for (int i = 0; i < padded; i += 16) {
        store(scores + i, exp(load(scores + i) - shift));
        if (i + 16 > length)
            for (int j = length; j < padded; ++j) scores[j] = 0.0f;
        total = total + load(scores + i);
    }
    *total_weight = sum(total);
}

// out[q * ld_out + d] += sum over positions first + [begin, end), in order, of weights * values, for D vectors.
template <CacheType T, int Q, int D>
inline void add_values(const AttentionTask& task, int first, int begin, int end, const float* weights, int d,
                       float* out, std::ptrdiff_t ld_out) {
    const CacheLayout& layout = *task.layout;
    Lanes acc[Q][D];
    for (int q = 0; q < Q; ++q)
        for (int i = 0; i < D; ++i) acc[q][i] = load(out + q * ld_out + d + i * 16);
    while (begin < end) {
        const int in_page = begin % page_positions;
        const int count = end - begin < page_positions - in_page ? end - begin : page_positions - in_page;
        const char* values = region_of(task, first + begin) + layout.values;
        for (int position = in_page; position < in_page + count; ++position, ++begin) {
            const std::ptrdiff_t element = std::ptrdiff_t{position} * layout.value_width + d;
            Lanes value[D];
            if constexpr (T == CacheType::int4) {
                for (int i = 0; i < D; i += 2)
                    load_i4(reinterpret_cast<const std::uint8_t*>(values) + element / 2 + i * 8, value[i],
                            value[i + 1]);
            } else {
                for (int i = 0; i < D; ++i) value[i] = load_elements<T>(values, element + i * 16);
            }
            for (int q = 0; q < Q; ++q) {
                const Lanes weight = set1(weights[q * piece_positions + begin]);
                for (int i = 0; i < D; ++i) acc[q][i] = fma(weight, value[i], acc[q][i]);
            }
        }
    }
    for (int q = 0; q < Q; ++q)
        for (int i = 0; i < D; ++i) store(out + q * ld_out + d + i * 16, acc[q][i]);
}

// The same for the dimensions [from, to).
template <CacheType T, int Q>
inline void add_all_values(const AttentionTask& task, int first, int begin, int end, const float* weights,
                           int from, int to, float* out, std::ptrdiff_t ld_out) {
    if (begin >= end) return;
    constexpr int wide = attention_tile / Q < 1 ? 1 : attention_tile / Q > 8 ? 8 : attention_tile / Q;
    int d = from;
    if constexpr (T == CacheType::int4) {
        for (; d < to; d += 32) add_values<T, Q, 2>(task, first, begin, end, weights, d, out, ld_out);
    } else {
        for (; d + wide * 16 <= to; d += wide * 16)
            add_values<T, Q, wide>(task, first, begin, end, weights, d, out, ld_out);
        if constexpr (wide > 2)
            for (; d + 32 <= to; d += 32)
                add_values<T, Q, 2>(task, first, begin, end, weights, d, out, ld_out);
        for (; d < to; d += 16) add_values<T, Q, 1>(task, first, begin, end, weights, d, out, ld_out);
    }
}

template <int N>
struct Number {
    static constexpr int value = N;
};

// One piece: for query q that sees a position of it, results + q * attention_state() becomes its state.
template <CacheType T, int Q>
inline void attention_piece(const AttentionTask& task, int piece, const float* interleaved, float* scores,
                            float* weights, float* results) {
    const CacheLayout& layout = *task.layout;
    const int first = piece * piece_positions, width = layout.value_width;
    const std::ptrdiff_t ld = attention_state(width);
    int seen[Q], shared = piece_positions, longest = 0;
    for (int q = 0; q < Q; ++q) {
        const int left = task.length[q < task.queries ? q : task.queries - 1] - first;
        seen[q] = left < 0 ? 0 : left < piece_positions ? left : piece_positions;
        shared = seen[q] < shared ? seen[q] : shared;
        longest = seen[q] > longest ? seen[q] : longest;
    }
    // A group's sums wait beside the total when there are scales, so half as many blocks go side by side.
    constexpr int at_once = (has_scales(T) ? attention_tile / 2 : attention_tile) / Q;
    constexpr int side = at_once < 1 ? 1 : at_once > 4 ? 4 : at_once;
    constexpr int page_blocks = page_positions / 16;
    const int blocks = (longest + 15) / 16;
    for (int block = 0; block < blocks;) {
        const char* region = region_of(task, first + block * 16);
        const int in_page = block % page_blocks;
        const int left = page_blocks - in_page < blocks - block ? page_blocks - in_page : blocks - block;
        const auto run = [&](auto count) {
            constexpr int B = decltype(count)::value;
            const std::ptrdiff_t values = std::ptrdiff_t{in_page} * layout.value_width * vector_bytes(T);
            const int next = block + B < blocks ? block + B : block;
            const char* keys = region_of(task, first + next * 16) +
                               std::ptrdiff_t{next % page_blocks} * layout.head_dim * vector_bytes(T);
            block_scores<T, Q, B>(task, region, in_page, interleaved, scores + block * 16, piece_positions,
                                  {task.few ? keys : nullptr, region + layout.values + values});
            block += B;
        };
        if (left >= side) run(Number<side>{});
        else run(Number<1>{});
    }
    for (int q = 0; q < Q; ++q) {
        float* result = results + q * ld;
        for (int d = 0; d < width; d += 16) store(result + 16 + d, set1(0.0f));
        if (seen[q]) exponentials(scores + q * piece_positions, seen[q], result, result + 1);
    }
    // What all queries see together, then each one's rest: positions stay in order for every query.
    const int step = T == CacheType::int4 ? int4_group : width;
    for (int from = 0, group = 0; from < width; from += step, ++group) {
        const float* w = scores;
        if constexpr (has_scales(T)) {
            for (int block = 0; block < blocks; ++block) {
                const char* region = region_of(task, first + block * 16);
                const Lanes scales = load_scales<T>(region + layout.value_scales,
                                                    block % page_blocks * layout.groups + group);
                for (int q = 0; q < Q; ++q) {
                    const std::ptrdiff_t at = std::ptrdiff_t{q} * piece_positions + block * 16;
                    store(weights + at, load(scores + at) * scales);
                }
            }
            w = weights;
        }
        add_all_values<T, Q>(task, first, 0, shared, w, from, from + step, results + 16, ld);
        for (int q = 0; q < task.queries && q < Q; ++q)
            add_all_values<T, 1>(task, first, shared, seen[q], w + q * piece_positions, from, from + step,
                                 results + 16 + q * ld, ld);
    }
}

// state and piece, both scaled to the larger of their maxima, added up in state.
inline void merge_states(float* state, const float* piece, int width) {
    const float top = state[0] > piece[0] ? state[0] : piece[0];
    const Lanes a = exp(set1(state[0] - top)), b = exp(set1(piece[0] - top));
    float total[16];
    store(total, fma(set1(state[1]), a, set1(piece[1]) * b));
    state[0] = top;
    state[1] = total[0];
    for (int d = 16; d < attention_state(width); d += 16)
        store(state + d, fma(load(state + d), a, load(piece + d) * b));
}

inline void finish_state(const CacheLayout& layout, float* state, float* out) {
    const Lanes inverse = set1(1.0f / state[1]);
    for (int d = 0; d < layout.value_width; d += 16) store(state + 16 + d, load(state + 16 + d) * inverse);
    for (int d = 0; d < layout.head_dim; ++d) out[d] = state[16 + d];
}

inline void merge_attention(const CacheLayout& layout, float* states, int pieces, float* out) {
    for (int piece = 1; piece < pieces; ++piece)
        merge_states(states, states + static_cast<std::ptrdiff_t>(piece) * attention_state(layout.value_width),
                     layout.value_width);
    finish_state(layout, states, out);
}

template <CacheType T, int Q>
inline void attention_tiles(const AttentionTask& task) {
    // Fewer queries than Q: the last one stands in for those that lack, and their results are dropped.
    const CacheLayout& layout = *task.layout;
    const int dims = layout.head_dim, state_floats = attention_state(layout.value_width);
    float* interleaved = task.scratch;
    float* scores = interleaved + Q * layout.value_width;
    float* weights = scores + Q * piece_positions;
    float* results = weights + Q * piece_positions;
    float* states = results + Q * state_floats;
    int longest = 0;
    for (int q = 0; q < Q; ++q) {
        const float* query = task.query[q < task.queries ? q : task.queries - 1];
        for (int d = 0; d < dims; ++d) interleaved[d * Q + q] = query[d];
        if (q < task.queries) longest = task.length[q] > longest ? task.length[q] : longest;
    }
    const auto copy = [&](float* to, const float* from) {
        for (int d = 0; d < state_floats; d += 16) store(to + d, load(from + d));
    };
    if (task.state[0]) {
        attention_piece<T, Q>(task, task.piece, interleaved, scores, weights, results);
        for (int q = 0; q < task.queries && q < Q; ++q) copy(task.state[q], results + q * state_floats);
        return;
    }
    attention_piece<T, Q>(task, 0, interleaved, scores, weights, states);
    for (int piece = 1; piece * piece_positions < longest; ++piece) {
        attention_piece<T, Q>(task, piece, interleaved, scores, weights, results);
        for (int q = 0; q < task.queries && q < Q; ++q)
            if (task.length[q] > piece * piece_positions)
                merge_states(states + q * state_floats, results + q * state_floats, layout.value_width);
    }
    for (int q = 0; q < task.queries && q < Q; ++q)
        finish_state(layout, states + q * state_floats, task.out[q]);
}

template <CacheType T>
inline void attention_of_type(const AttentionTask& task) {
    if (task.queries == 1) return attention_tiles<T, 1>(task);
    if (task.queries == 2) return attention_tiles<T, 2>(task);
    if (task.queries <= 4) return attention_tiles<T, 4>(task);
    if constexpr (query_tile > 4) attention_tiles<T, 8>(task);
}

inline void attention(const AttentionTask& task) {
    switch (task.layout->type) {
        case CacheType::f32: return attention_of_type<CacheType::f32>(task);
        case CacheType::f16: return attention_of_type<CacheType::f16>(task);
        case CacheType::int8: return attention_of_type<CacheType::int8>(task);
        case CacheType::int4: return attention_of_type<CacheType::int4>(task);
    }
}

}  // namespace tritwise::TRITWISE_ISA
