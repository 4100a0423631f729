// The last norm of a chunk, and its logits or only the most likely ids.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "chunk.hpp"
#include "packing.hpp"

namespace tritwise {

// Rows whose logits exist at once when only their largest is asked for; a multiple of the tile of six.
constexpr int best_rows_at_once = coarse_tokens;

// How many standard deviations a row's estimate may be off (native/README.md, "The most likely id").
constexpr float coarse_deviations = 8.0f;

constexpr std::int32_t unknown = -2;

static bool all_finite(const float* x, int n) {
    bool finite = true;
    for (int i = 0; i < n; ++i) finite &= std::isfinite(x[i]);
    return finite;
}

void Model::norm_rows(const Chunk& chunk, const std::int32_t* rows, int m) {
    const Profile::Timer timer(profile_, Part::head_norm);
    const int k = static_cast<int>(round_up(config_.hidden, 16));
    for (int j = 0; j < m; ++j) {
        const std::int64_t row = rows[j] - chunk.first;
        kernels_.rms_norm(hidden_.as<float>() + row * hidden_stride_, weights_.norm, k, config_.hidden,
                          config_.eps, input_.as<float>() + std::int64_t{j} * k);
    }
}

// The first m rows of input_ as two planes.
PlaneRows Model::planes(int m) {
    const Profile::Timer timer(profile_, Part::head_norm);
    const int k = static_cast<int>(round_up(config_.hidden, 16)), chunks = (k + chunk_k - 1) / chunk_k;
    std::int8_t* codes = codes_.as<std::int8_t>();
    std::int8_t* quads = quads_.as<std::int8_t>();
    for (int j = 0; j < m; ++j) {
        const float* row = input_.as<float>() + std::int64_t{j} * k;
        kernels_.quantise_planes(row, k, codes, codes + k, scales_.as<float>() + j, sums_.as<std::int32_t>() + 2 * j);
        // Rounding to integers would hide what is not a number.
        if (!all_finite(row, k)) scales_.as<float>()[j] = std::numeric_limits<float>::quiet_NaN();
        for (int plane = 0; plane < 2; ++plane) {
            const std::int8_t* from = codes + plane * k;
            store_quad_column(from, k, quads, 2 * j + plane);
            if (weights_.head.kind != HeadKind::int4) continue;
            std::int32_t* sums = chunk_sums_.as<std::int32_t>() + std::int64_t{2 * j + plane} * chunks;
            for (int chunk = 0; chunk < chunks; ++chunk) {
                sums[chunk] = 0;
                for (int i = chunk * chunk_k; i < std::min(k, (chunk + 1) * chunk_k); ++i) sums[chunk] += from[i];
            }
        }
    }
    for (std::int64_t column = 2 * m; column % quad; ++column) store_quad_column(nullptr, k, quads, column);
    return {m, quads, scales_.as<float>(), sums_.as<std::int32_t>(), chunk_sums_.as<std::int32_t>(), nullptr};
}

void Model::head_logits(int m, float* y) {
    const int k = static_cast<int>(round_up(config_.hidden, 16));
    const HeadWeights& head = weights_.head;
    // A token of an integer head is two planes.
    const auto count = [&](Profile::Timer& timer, int planes) {
        timer.add(head.bytes(), std::int64_t{config_.vocab} * k * m * planes);
    };
    if (head.kind == HeadKind::stored || head.kind == HeadKind::f16) {
        Profile::Timer timer(profile_, Part::head);
        count(timer, 1);
        pool_.for_ranges(config_.vocab, [&](std::int64_t from, std::int64_t to, int) {
            kernels_.dense(head.dense, static_cast<int>(from), static_cast<int>(to), input_.as<float>(), k, m, y,
                           config_.vocab);
        });
        return;
    }
    const PlaneRows x = planes(m);
    Profile::Timer timer(profile_, Part::head);
    count(timer, 2);
    pool_.for_ranges(round_up(config_.vocab, group_rows) / group_rows,
                     [&](std::int64_t from, std::int64_t to, int) {
                         const int begin = static_cast<int>(from), end = static_cast<int>(to);
                         if (head.kind == HeadKind::int8) kernels_.head8(head.split, begin, end, x, y, config_.vocab);
                         else kernels_.head4(head.chunks, begin, end, x, y, config_.vocab);
                     });
}

// The most likely ids of the first m rows of input_.
void Model::head_best(int m, std::int32_t* best) {
    if (searches_with_one_plane()) {
        for (int begin = 0; begin < m; begin += coarse_tokens) {
            const int count = std::min(coarse_tokens, m - begin);
            const std::int64_t k = round_up(config_.hidden, 16);
            if (begin) std::memmove(input_.as<float>(), input_.as<float>() + begin * k, floats(count * k));
            search(planes(count), best + begin);
            // Estimates that overflow or miss decide nothing.
            if (std::count(best + begin, best + begin + count, unknown)) best_of_logits(count, best + begin);
        }
        return;
    }
    best_of_logits(m, best);
}

void Model::best_of_logits(int m, std::int32_t* best) {
    if (!best_logits_) best_logits_ = Buffer(floats(std::int64_t{best_rows_at_once} * config_.vocab), Pages::lazy);
    head_logits(m, best_logits_.as<float>());
    for (int j = 0; j < m; ++j)
        best[j] = kernels_.best_of(best_logits_.as<float>() + std::int64_t{j} * config_.vocab, config_.vocab);
}

// What the coarse pass reads of the tokens: hi apart from lo, and how wide each search has to be.
void Model::prepare_search(PlaneRows& x) {
    const int k = weights_.head.split.k;
    auto* high = high_.as<std::int8_t>();
    for (int token = 0; token < x.m; ++token) {
        const std::int8_t* from = x.quads + std::int64_t{token / 2} * k * quad + token % 2 * 8;
        std::int8_t* to = x.m == 1 ? high : high + std::int64_t{token / quad} * k * quad + token % quad * 4;
        const int stride = x.m == 1 ? 4 : 4 * quad;
        std::int32_t high_squares = 0, low_squares = 0;  // at most 2^14 * 65536
        for (int i = 0; i < k; i += 4, from += 4 * quad, to += stride) {
            std::memcpy(to, from, 4);
            for (int j = 0; j < 4; ++j) {
                high_squares += from[j] * from[j];
                low_squares += from[4 + j] * from[4 + j];
            }
        }
        // Stretched by what the margin itself rounds (head_kernels.hpp).
        const double deviations = coarse_deviations * (1 + 0x1p-19);
        for (int thread = 0; thread < pool_.size(); ++thread) {
            CoarseSearch& search = searches_[thread * coarse_tokens + token];
            search.high_width = static_cast<float>(deviations * 128 * std::sqrt(high_squares));
            search.low_width = static_cast<float>(deviations * std::sqrt(low_squares));
            search.bound = -std::numeric_limits<float>::infinity();
            search.count = 0;
        }
    }
    for (int column = x.m; x.m > 1 && column % quad; ++column) store_quad_column(nullptr, k, high, column);
    x.high = high;
}

// A pass over the high plane leaves each row's estimate and a margin; rows that could still win are computed
// exactly.
void Model::search(PlaneRows x, std::int32_t* best) {
    const SplitMatrix& w = weights_.head.split;
    const std::int64_t groups = round_up(w.rows, group_rows) / group_rows;
    if (!candidates_) {
        const std::int64_t lists = std::int64_t{pool_.size()} * coarse_tokens;
        candidates_ = Buffer(lists * w.rows * sizeof(CoarseRow), Pages::lazy);
        high_ = Buffer(std::int64_t{coarse_tokens} * w.k, Pages::lazy);
        searches_.resize(lists);
        for (std::int64_t i = 0; i < lists; ++i) searches_[i].found = candidates_.as<CoarseRow>() + i * w.rows;
    }
    {
        Profile::Timer timer(profile_, Part::head);
        timer.add(head_bytes_per_best(), std::int64_t{w.rows} * w.k * x.m);
        prepare_search(x);
        pool_.for_ranges(groups, [&](std::int64_t from, std::int64_t to, int thread) {
            kernels_.coarse(w, static_cast<int>(from), static_cast<int>(to), x, &searches_[thread * coarse_tokens]);
        });
    }
    const Profile::Timer timer(profile_, Part::rescoring);
    for (int token = 0; token < x.m; ++token) best[token] = rescore(x, token);
}

std::int32_t Model::rescore(const PlaneRows& x, int token) {
    const SplitMatrix& w = weights_.head.split;
    const float scale = x.scale[token];
    if (!std::isfinite(scale)) return -1;
    ++head_search_.tokens;
    // The logits, in units of the token's scale and the row's, of candidates that are computed together.
    const auto exact = [&](const CoarseRow* begin, const CoarseRow* end, auto&& use) {
        std::int32_t sums[2][group_rows];
        kernels_.exact_sums(w, begin->row / exact_rows, x, token, sums);
        for (const CoarseRow* c = begin; c != end; ++c) {
            const int i = c->row % exact_rows;
            use(*c, std::fma(static_cast<float>(sums[0][i]), 128.0f, static_cast<float>(sums[1][i])));
        }
    };
    const auto each_list = [&](auto&& use) {
        for (int thread = 0; thread < pool_.size(); ++thread) {
            const CoarseSearch& search = searches_[thread * coarse_tokens + token];
            for (int i = 0; i < search.count; ++i) use(search.found[i]);
        }
    };
    // One exact logit, of the row with the best estimate, throws out most of the others.
    CoarseRow top{-1, -std::numeric_limits<float>::infinity(), 0};
    bool finite = true;
    each_list([&](const CoarseRow& c) {
        finite &= std::isfinite(c.upper);
        if (c.estimate > top.estimate) top = c;
    });
    if (!finite || top.row < 0) return unknown;
    float reached = 0;
    exact(&top, &top + 1, [&](const CoarseRow& c, float both) { reached = both * w.row_scale[c.row]; });
    reached -= std::fabs(reached) * 0x1p-20f;
    kept_.clear();
    each_list([&](const CoarseRow& c) {
        if (c.upper >= reached || c.row == top.row) kept_.push_back(c);
    });
    std::sort(kept_.begin(), kept_.end(), [](const CoarseRow& a, const CoarseRow& b) { return a.row < b.row; });
    std::vector<std::int64_t> starts;
    for (std::size_t i = 0; i < kept_.size(); ++i)
        if (!i || kept_[i].row / exact_rows != kept_[i - 1].row / exact_rows)
            starts.push_back(std::int64_t(i));
    const auto groups = static_cast<std::int64_t>(starts.size());
    starts.push_back(static_cast<std::int64_t>(kept_.size()));
    const float high_deviation = searches_[token].high_width / coarse_deviations,
                low_deviation = searches_[token].low_width / coarse_deviations;
    // The exact logits take the place of the bounds.
    std::vector<float> errors(kept_.size());
    std::atomic<bool> misjudged{false};
    pool_.for_ranges(groups, [&](std::int64_t from, std::int64_t to, int) {
        for (std::int64_t g = from; g < to; ++g) {
            CoarseRow* begin = kept_.data() + starts[g];
            exact(begin, kept_.data() + starts[g + 1], [&](const CoarseRow& c, float both) {
                const std::int64_t at = &c - kept_.data();
                const float deviation =
                    (w.spread[c.row] * high_deviation + w.code_spread[c.row] * low_deviation) *
                    w.row_scale[c.row];
                const float error = std::fabs(both * w.row_scale[c.row] - c.estimate);
                if (deviation > 0) errors[at] = error / deviation;
                if (error > c.upper - c.estimate) misjudged = true;
                kept_[at].upper = both * (scale * w.row_scale[c.row]);
            });
        }
    });
    head_search_.candidates += static_cast<std::int64_t>(kept_.size());
    head_search_.groups += groups;
    for (float error : errors)
        head_search_.largest_error = std::max(head_search_.largest_error, double{error});
    // Where one margin did not hold, x is not what the margins take it for: others may not hold either.
    if (misjudged) return unknown;
    const CoarseRow* best = kept_.data();
    for (const CoarseRow& c : kept_) {
        if (c.upper > best->upper) best = &c;
    }
    return std::isfinite(best->upper) ? best->row : -1;
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
    each_run(chunk.best_for, chunk.best_rows, best_rows_at_once, [&](std::int64_t begin, int m) {
        norm_rows(chunk, chunk.best_for + begin, m);
        head_best(m, chunk.best + begin);
    });
}

}  // namespace tritwise
