// Selection without sorting the vocabulary. Every cut keeps the first tokens of one order (falling logit,
// then rising id), so a cut is a threshold (logit, id).
//
//   top-k   a heap of k while the row is read once (a histogram of logits for a large k); the rest works on k
//           tokens
//   top-p   one pass for weights e^((l - max) / T); one for the mass of each of 2048 buckets of logits; then
//           a quickselect by mass inside the bucket that holds the boundary. Masses are whole numbers, so
//           their sums are exact and what is kept does not depend on an order
//   draw    tokens in rising id; sums of 256 ids' weights find the block, a walk through it finds the token
#include "sampling.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>

namespace tritwise {
namespace {

constexpr std::int64_t block = sampling_block;
constexpr int buckets = sampling_buckets;
constexpr std::int64_t heap_limit = 256;  // from here on a histogram is faster than a heap
constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

// A place in the order of tokens: all of a higher logit, and those of this logit up to this id, are before
// it.
struct Threshold {
    float logit = minus_infinity;
    std::int32_t id = std::numeric_limits<std::int32_t>::max();
};

struct Candidate {
    float logit;
    std::int32_t id;
    double weight;
};

bool before(const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// What a thread needs for one row; kept between calls, because a vocabulary takes a megabyte.
struct Scratch {
    std::vector<float> row;
    std::vector<double> weights, sums;
    std::vector<std::int32_t> bucket_of;
    std::vector<std::int64_t> mass;
    std::vector<std::uint32_t> counts;
    std::vector<std::int32_t> ids;
    std::vector<Candidate> candidates;
};
thread_local Scratch scratch;

// ln x for a normal x > 0: x = 2^e m with m in [sqrt(1/2), sqrt(2)), ln m = 2 atanh(s) with s = (m - 1) / (m
// + 1), |s| <= 0.1716, whose series ends at s^21 with a remainder below 2^-58.
double log_of(double x) {
    int exponent;
    double m = std::frexp(x, &exponent);
    if (m < 0.70710678118654752) {
        m *= 2;
        --exponent;
    }
    const double s = (m - 1) / (m + 1), square = s * s;
    double series = 0;
    for (int k = 21; k >= 1; k -= 2) series = series * square + 1.0 / k;
    return exponent * 1.90821492927058770002e-10 + 2 * s * series + exponent * 6.93147180369123816490e-01;
}

float largest_of(const SamplingKernels& kernels, const float* row, std::int64_t vocab) {
    float largest;
    if (!kernels.maximum(row, vocab, &largest)) throw std::domain_error("a logit is NaN or infinite");
    if (largest == minus_infinity) throw std::domain_error("no token is allowed");
    return largest;
}

// A temperature so small that its inverse overflows: 0 * the largest double is 0, everything else goes to
// -infinity.
double inverse_of(double temperature) {
    return std::min(1.0 / temperature, std::numeric_limits<double>::max());
}

double fill_weights(const SamplingKernels& kernels, const float* row, std::int64_t n, float largest,
                    double temperature, Scratch& s) {
    s.weights.resize(n);
    s.sums.resize((n + block - 1) / block);
    return kernels.weights(row, n, largest, inverse_of(temperature), s.weights.data(), s.sums.data());
}

// Repetition: Keskar et al. 2019 (CTRL), section 4.1, as transformers applies it: once for each token of
// prompt and continuation, a positive logit divided and a negative one multiplied. Frequency and presence:
// OpenAI's l - count * frequency - (count > 0) * presence, where count is over the drawn tokens.
void penalise(float* row, std::int64_t vocab, const SamplingSettings& settings,
              const SamplingContext& context, Scratch& s) {
    const bool counted = settings.frequency_penalty != 0 || settings.presence_penalty != 0;
    if (settings.repetition_penalty == 1 && !counted) return;
    s.counts.assign(vocab, 0);
    s.ids.clear();
    // Bit 31: seen; below it the count of draws.
    constexpr std::uint32_t seen = std::uint32_t{1} << 31;
    for (std::int64_t i = 0; i < context.length; ++i) {
        const std::int32_t id = context.history[i];
        if (id < 0 || id >= vocab)
            throw std::invalid_argument("history: id " + std::to_string(id) + " is outside the vocabulary");
        if (!s.counts[id]) s.ids.push_back(id);
        s.counts[id] = (s.counts[id] | seen) + (i >= context.prompt ? 1 : 0);
    }
    for (const std::int32_t id : s.ids) {
        float l = row[id];
        if (settings.repetition_penalty != 1)
            l = l < 0 ? l * settings.repetition_penalty : l / settings.repetition_penalty;
        const std::uint32_t count = s.counts[id] & ~seen;
        if (count) l = l - static_cast<float>(count) * settings.frequency_penalty - settings.presence_penalty;
        row[id] = l;
    }
}

// The row that is drawn from: the model's own, or a changed copy in the scratch.
const float* adjusted(const SamplingSettings& settings, const SamplingContext& context, const float* logits,
                      std::int64_t vocab, Scratch& s) {
    if (context.prompt < 0 || context.prompt > context.length)
        throw std::invalid_argument("the prompt is longer than the history");
    const bool penalties =
        settings.repetition_penalty != 1 || settings.frequency_penalty != 0 || settings.presence_penalty != 0;
    if (!context.mask && settings.bias_ids.empty() && !(penalties && context.length)) return logits;
    largest_of(*settings.kernels, logits, vocab);  // a NaN must not hide behind the mask
    s.row.assign(logits, logits + vocab);
    if (context.mask) settings.kernels->mask(s.row.data(), vocab, context.mask);
    for (std::size_t i = 0; i < settings.bias_ids.size(); ++i) {
        const std::int32_t id = settings.bias_ids[i];
        if (id < 0 || id >= vocab)
            throw std::invalid_argument("logit_bias: id " + std::to_string(id) +
                                        " is outside the vocabulary");
        s.row[id] += settings.bias_values[i];
    }
    penalise(s.row.data(), vocab, settings, context, s);
    return s.row.data();
}

// Rising with the logit: the bits of a float as a number, the upper twelve of them.
inline std::uint32_t coarse(float logit) {
    const auto bits = std::bit_cast<std::uint32_t>(logit);
    return (bits >> 31 ? ~bits : bits | std::uint32_t{1} << 31) >> 20;
}

void heap_of_first(const float* row, std::int64_t n, std::int64_t k, std::vector<Candidate>& heap) {
    std::int64_t i = 0;
    for (; i < n && static_cast<std::int64_t>(heap.size()) < k; ++i)
        if (row[i] > minus_infinity) heap.push_back({row[i], static_cast<std::int32_t>(i), 0});
    // The root is the last of the kept tokens; a later id must have a larger logit to come before it.
    std::make_heap(heap.begin(), heap.end(), before);
    for (float least = heap.empty() ? 0 : heap.front().logit; i < n; ++i) {
        if (row[i] > least) {
            std::pop_heap(heap.begin(), heap.end(), before);
            heap.back() = {row[i], static_cast<std::int32_t>(i), 0};
            std::push_heap(heap.begin(), heap.end(), before);
            least = heap.front().logit;
        }
    }
}

// The k first tokens in the order, sorted; fewer when fewer are allowed.
void first_tokens(const float* row, std::int64_t n, std::int64_t k, Scratch& s) {
    std::vector<Candidate>& first = s.candidates;
    first.clear();
    k = std::min(k, n);
    if (k <= heap_limit) {
        if (k > 0) heap_of_first(row, n, k, first);
    } else {
        s.counts.assign(4096, 0);
        for (std::int64_t i = 0; i < n; ++i) ++s.counts[coarse(row[i])];
        std::uint32_t least = 4095;
        for (std::int64_t count = s.counts[least]; count < k && least > 0; count += s.counts[least]) --least;
        if (least == coarse(0.0f)) --least;  // -0 equals 0, and its bits are below
        for (std::int64_t i = 0; i < n; ++i)
            if (coarse(row[i]) >= least && row[i] > minus_infinity)
                first.push_back({row[i], static_cast<std::int32_t>(i), 0});
        if (static_cast<std::int64_t>(first.size()) > k) {
            std::nth_element(first.begin(), first.begin() + k, first.end(), before);
            first.resize(k);
        }
    }
    std::sort(first.begin(), first.end(), before);
}

// A weight as a whole number, in units of 2^-44 (larger ones beyond 2^18 tokens, so that the sum of n is at
// most 2^62): the nearest, the even one of two.
class Masses {
public:
    explicit Masses(std::int64_t n)
        : scale_(std::ldexp(1.0, std::min(44, 62 - bits_of(n - 1)))) {}

    std::int64_t of(double weight) const {
        // 1.5 * 2^52: adding it leaves the nearest integer in the low bits.
        constexpr double magic = 6755399441055744.0;
        return std::bit_cast<std::int64_t>(weight * scale_ + magic) - std::bit_cast<std::int64_t>(magic);
    }

private:
    static int bits_of(std::int64_t x) {
        return static_cast<int>(std::bit_width(static_cast<std::uint64_t>(x)));
    }

    double scale_;
};

// What the first tokens have to hold: share * total as a double product, rounded up, at most the total. The
// likeliest token's mass alone is 2^44, so the target is at least 1.
std::int64_t target_of(double share, std::int64_t total) {
    return std::min(total, static_cast<std::int64_t>(std::ceil(share * static_cast<double>(total))));
}

// The first place in the order where `mass` (before these candidates) and theirs reach `target`.
Threshold boundary(std::vector<Candidate>& list, std::int64_t mass, std::int64_t target,
                   const Masses& masses) {
    std::vector<Candidate> above, equal, below;
    Threshold last;
    while (!list.empty()) {
        const float a = list.front().logit, b = list[list.size() / 2].logit, c = list.back().logit;
        const float pivot = std::max(std::min(a, b), std::min(std::max(a, b), c));
        above.clear(), equal.clear(), below.clear();
        std::int64_t above_mass = 0;
        for (const Candidate& x : list) {
            if (x.logit > pivot) {
                above.push_back(x);
                above_mass += masses.of(x.weight);
            } else {
                (x.logit == pivot ? equal : below).push_back(x);
            }
        }
        if (mass + above_mass >= target && !above.empty()) {
            list.swap(above);
            last = {list.back().logit, list.back().id};
            continue;
        }
        mass += above_mass;
        for (const Candidate& x : equal) {  // by rising id, as the row was read
            mass += masses.of(x.weight);
            last = {x.logit, x.id};
            if (mass >= target) return last;
        }
        list.swap(below);
    }
    return last;
}

// The threshold of top-p over the whole row, from its weights.
Threshold top_p_threshold(const float* row, std::int64_t n, float top, const SamplingSettings& settings,
                          Scratch& s) {
    // Tokens whose weight is below (1 - p) / n hold together less than 1 - p of the total, which is at least
    // 1, so the boundary is not among them but where masses were rounded up; they share the buckets behind
    // the last, one for each lane.
    const double range = log_of(static_cast<double>(n) / (1 - settings.top_p)) + 0.01;
    const auto scale = static_cast<float>(std::min(buckets / (range * settings.temperature), 1e30));
    s.bucket_of.resize(n);
    settings.kernels->buckets(row, n, top, scale, s.bucket_of.data());
    s.mass.assign(buckets + 16, 0);
    const Masses masses(n);
    std::int64_t* mass_of = s.mass.data();
    const std::int32_t* bucket_of = s.bucket_of.data();
    const double* weights = s.weights.data();
    for (std::int64_t i = 0; i < n; ++i) mass_of[bucket_of[i]] += masses.of(weights[i]);
    std::int64_t total = 0;
    for (const std::int64_t each : s.mass) total += each;
    const std::int64_t target = target_of(settings.top_p, total);
    std::int64_t mass = 0;
    int found = 0;
    while (found < buckets && mass + mass_of[found] < target) mass += mass_of[found++];
    s.candidates.clear();
    const auto collect = [&](auto wanted) {
        for (std::int64_t begin = 0; begin < n; begin += block) {
            const std::int64_t end = std::min(begin + block, n);
            int hits = 0;
            for (std::int64_t i = begin; i < end; ++i) hits += wanted(bucket_of[i]);
            for (std::int64_t i = begin; hits && i < end; ++i)
                if (wanted(bucket_of[i]))
                    s.candidates.push_back({row[i], static_cast<std::int32_t>(i), weights[i]});
        }
    };
    if (found < buckets)
        collect([found](int bucket) { return bucket == found; });
    else
        collect([](int bucket) { return bucket >= buckets; });
    return boundary(s.candidates, mass, target, masses);
}

// The weights of what may be drawn: of token ids[i], or of token i when `ids` is empty.
struct Kept {
    std::span<const double> weights;
    std::span<const std::int32_t> ids;
    double total;
};

// The sums of kept weights by blocks of ids, each as SamplingKernels::weights adds up a block of which only
// these are not 0; returns their total.
double sums_of(const std::vector<double>& weights, const std::vector<std::int32_t>& ids, std::int64_t vocab,
               std::vector<double>& sums) {
    sums.assign((vocab + block - 1) / block, 0.0);
    for (std::size_t i = 0; i < ids.size();) {
        const std::int64_t at = ids[i] / block;
        double lanes[16] = {};
        for (; i < ids.size() && ids[i] / block == at; ++i) lanes[ids[i] % 16] += weights[i];
        for (int half = 8; half; half /= 2)
            for (int j = 0; j < half; ++j) lanes[j] += lanes[j + half];
        sums[at] = lanes[0];
    }
    double total = 0;
    for (const double sum : sums) total += sum;
    return total;
}

// Of k sorted tokens; a cut is a count.
Kept keep_first(const SamplingSettings& settings, float largest, std::int64_t vocab, Scratch& s) {
    std::vector<Candidate>& first = s.candidates;
    const std::size_t size = first.size();
    s.row.resize(size);
    for (std::size_t i = 0; i < size; ++i) s.row[i] = first[i].logit;
    fill_weights(*settings.kernels, s.row.data(), static_cast<std::int64_t>(size), largest,
                 settings.temperature, s);
    std::size_t count = size;
    if (settings.top_p < 1) {
        const Masses masses(vocab);
        std::int64_t total = 0, mass = 0;
        for (const double weight : s.weights) total += masses.of(weight);
        const std::int64_t target = target_of(settings.top_p, total);
        for (count = 0; count < size && mass < target;) mass += masses.of(s.weights[count++]);
    }
    while (count > 1 && s.weights[count - 1] < settings.min_p) --count;
    for (std::size_t i = 0; i < count; ++i) first[i].weight = s.weights[i];
    first.resize(count);
    std::sort(first.begin(), first.end(), [](auto& a, auto& b) { return a.id < b.id; });
    s.ids.resize(count), s.weights.resize(count);
    for (std::size_t i = 0; i < count; ++i) {
        s.ids[i] = first[i].id;
        s.weights[i] = first[i].weight;
    }
    const double total = sums_of(s.weights, s.ids, vocab, s.sums);
    return {s.weights, s.ids, total};
}

// At a temperature above 0.
Kept keep(const SamplingSettings& settings, const float* row, std::int64_t vocab, Scratch& s) {
    const float largest = largest_of(*settings.kernels, row, vocab);
    if (settings.top_k > 0 && settings.top_k < vocab) {
        first_tokens(row, vocab, settings.top_k, s);
        return keep_first(settings, largest, vocab, s);
    }
    const double total = fill_weights(*settings.kernels, row, vocab, largest, settings.temperature, s);
    if (settings.top_p == 1 && settings.min_p == 0) return {s.weights, {}, total};
    const Threshold cut =
        settings.top_p < 1 ? top_p_threshold(row, vocab, largest, settings, s) : Threshold{};
    // min-p compares with the likeliest token, whose weight is 1.
    return {s.weights,
            {},
            settings.kernels->cut(row, vocab, cut.logit, cut.id, settings.min_p, s.weights.data(),
                                  s.sums.data())};
}

std::int32_t draw(const Kept& kept, const std::vector<double>& sums, double share) {
    const double target = share * kept.total;
    const auto n = static_cast<std::int64_t>(kept.weights.size());
    const auto id_of = [&](std::int64_t i) {
        return kept.ids.empty() ? static_cast<std::int32_t>(i) : kept.ids[i];
    };
    double mass = 0;
    std::size_t at = 0;
    while (at + 1 < sums.size() && mass + sums[at] <= target) mass += sums[at++];
    const std::int64_t begin = static_cast<std::int64_t>(at) * block;
    // A sum may be rounded up beyond the last token of its block, or of the row: then that token is the one.
    std::int64_t last = -1;
    std::int64_t i = begin;
    if (!kept.ids.empty()) i = std::lower_bound(kept.ids.begin(), kept.ids.end(), begin) - kept.ids.begin();
    for (; i < n; ++i) {
        if (kept.weights[i] == 0) continue;
        if (id_of(i) >= begin + block && last >= 0) break;
        last = i;
        mass += kept.weights[i];
        if (mass > target) break;
    }
    for (i = n - 1; last < 0; --i)
        if (kept.weights[i] > 0) last = i;
    return id_of(last);
}

}  // namespace

double uniform(std::uint64_t seed, std::uint64_t position) {
    std::array<std::uint64_t, 4> c{1, 0, 0, 0};
    std::uint64_t key0 = seed, key1 = position;
    const auto multiply = [](std::uint64_t a, std::uint64_t b, std::uint64_t& high) {
        const std::uint64_t a0 = a & 0xFFFFFFFF, a1 = a >> 32, b0 = b & 0xFFFFFFFF, b1 = b >> 32;
        const std::uint64_t low = a0 * b0, middle = a1 * b0 + (low >> 32);
        const std::uint64_t cross = a0 * b1 + (middle & 0xFFFFFFFF);
        high = a1 * b1 + (middle >> 32) + (cross >> 32);
        return a * b;
    };
    for (int round = 0; round < 10; ++round) {
        std::uint64_t high0, high1;
        const std::uint64_t low0 = multiply(0xD2E7470EE14C6C93u, c[0], high0);
        const std::uint64_t low1 = multiply(0xCA5A826395121157u, c[2], high1);
        c = {high1 ^ c[1] ^ key0, low1, high0 ^ c[3] ^ key1, low0};
        key0 += 0x9E3779B97F4A7C15u;
        key1 += 0xBB67AE8584CAA73Bu;
    }
    return static_cast<double>(c[0] >> 11) * 0x1p-53;
}

std::int32_t sample(const SamplingSettings& settings, const SamplingContext& context, const float* logits,
                    std::int64_t vocab) {
    Scratch& s = scratch;
    const float* row = adjusted(settings, context, logits, vocab, s);
    if (settings.temperature == 0)
        return static_cast<std::int32_t>(
            std::find(row, row + vocab, largest_of(*settings.kernels, row, vocab)) - row);
    const Kept kept = keep(settings, row, vocab, s);
    return draw(kept, s.sums, uniform(settings.seed, context.position));
}

Distribution distribution(const SamplingSettings& settings, const SamplingContext& context,
                          const float* logits, std::int64_t vocab) {
    Scratch& s = scratch;
    const float* row = adjusted(settings, context, logits, vocab, s);
    const Kept kept = keep(settings, row, vocab, s);
    Distribution result;
    for (std::size_t i = 0; i < kept.weights.size(); ++i) {
        if (kept.weights[i] == 0) continue;
        result.ids.push_back(kept.ids.empty() ? static_cast<std::int32_t>(i) : kept.ids[i]);
        result.probabilities.push_back(kept.weights[i] / kept.total);
    }
    return result;
}

LogProbabilities log_probabilities(const SamplingKernels& kernels, const float* logits, std::int64_t vocab,
                                   std::int32_t chosen, std::int64_t top) {
    if (chosen < 0 || chosen >= vocab)
        throw std::invalid_argument("id " + std::to_string(chosen) + " is outside the vocabulary");
    Scratch& s = scratch;
    const float largest = largest_of(kernels, logits, vocab);
    const double log_total = log_of(fill_weights(kernels, logits, vocab, largest, 1.0, s));
    const auto of = [&](float l) { return (static_cast<double>(l) - largest) - log_total; };
    first_tokens(logits, vocab, top, s);
    LogProbabilities result{of(logits[chosen]), {}, {}};
    for (const Candidate& x : s.candidates) {
        result.ids.push_back(x.id);
        result.values.push_back(of(x.logit));
    }
    return result;
}

}  // namespace tritwise
