// Sampling's passes over a row of logits, of one table against the scalar one, and the ids that are drawn.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "checks.hpp"
#include "sampling.hpp"

namespace tritwise::checks {

constexpr float none = -std::numeric_limits<float>::infinity();

// Logits with ties, and some at minus infinity as a mask leaves them.
static void fill_logits(const Array<float>& row, Random& random) {
    for (std::size_t i = 0; i < row.size(); ++i) {
        const int kind = random.integer(0, 19);
        row[i] = kind == 0 ? none : kind < 5 ? static_cast<float>(random.integer(-4, 4)) : 12 * random.real();
    }
    row[row.size() / 2] = 3.0f;
}

static long check_row(const Kernels& kernels, int n, Random& random) {
    const std::string where = std::string(kernels.name) + " sampling, " + std::to_string(n) + " logits";
    const SamplingKernels &scalar = kernels_scalar().sampling, &fast = kernels.sampling;
    const Array<float> row(n), masked(n), expected_masked(n);
    fill_logits(row, random);

    float top = 0, expected_top = 0;
    CHECK(scalar.maximum(row.data(), n, &expected_top) && fast.maximum(row.data(), n, &top), where);
    CHECK(top == expected_top, where + ": maximum");
    for (float bad : {std::numeric_limits<float>::quiet_NaN(), -none}) {
        const auto at = static_cast<std::size_t>(random.integer(0, n - 1));
        const float kept = row[at];
        row[at] = bad;
        float ignored;
        CHECK(!scalar.maximum(row.data(), n, &ignored) && !fast.maximum(row.data(), n, &ignored),
              where + ": not a finite row");
        row[at] = kept;
    }

    const auto blocks = static_cast<std::size_t>((n + sampling_block - 1) / sampling_block);
    const Array<double> weights(n), expected_weights(n), sums(blocks), expected_sums(blocks);
    const double inverse_temperature = 1.0 / (0.25 + std::abs(random.real()));
    double expected = scalar.weights(row.data(), n, top, inverse_temperature, expected_weights.data(),
                                     expected_sums.data());
    double found = fast.weights(row.data(), n, top, inverse_temperature, weights.data(), sums.data());
    CHECK(found == expected && weights.same_bits(expected_weights) && sums.same_bits(expected_sums),
          where + ": weights");

    const Array<std::int32_t> index(n), expected_index(n);
    scalar.buckets(row.data(), n, top, 64.0f, expected_index.data());
    fast.buckets(row.data(), n, top, 64.0f, index.data());
    CHECK(index.same_bits(expected_index), where + ": buckets");

    const std::int32_t id = random.integer(0, n - 1);
    expected = scalar.cut(row.data(), n, 1.0f, id, 1e-3, expected_weights.data(), expected_sums.data());
    found = fast.cut(row.data(), n, 1.0f, id, 1e-3, weights.data(), sums.data());
    CHECK(found == expected && weights.same_bits(expected_weights) && sums.same_bits(expected_sums),
          where + ": cut");

    const Array<std::uint32_t> mask((static_cast<std::size_t>(n) + 31) / 32);
    for (std::size_t i = 0; i < mask.size(); ++i)
        mask[i] = i % 3 ? static_cast<std::uint32_t>(random.bits()) : i % 2 ? 0u : ~0u;
    std::copy_n(row.data(), n, masked.data());
    std::copy_n(row.data(), n, expected_masked.data());
    scalar.mask(expected_masked.data(), n, mask.data());
    fast.mask(masked.data(), n, mask.data());
    CHECK(masked.same_bits(expected_masked), where + ": mask");
    return 7;
}

static long check_draws(const Kernels& kernels, int n, int draws, Random& random) {
    const Array<float> row(n);
    fill_logits(row, random);
    std::vector<std::int32_t> history;
    for (int i = 0; i < 20; ++i) history.push_back(random.integer(0, n - 1));
    for (int draw = 0; draw < draws; ++draw) {
        SamplingSettings settings;
        settings.temperature = 0.25 * random.integer(0, 8);
        settings.top_k = random.integer(0, 1) * random.integer(1, n);
        settings.top_p = random.integer(0, 1) ? 1.0 : 0.9;
        settings.min_p = random.integer(0, 1) ? 0.0 : 0.01;
        settings.repetition_penalty = random.integer(0, 1) ? 1.0f : 1.25f;
        settings.seed = random.bits();
        SamplingContext context;
        context.position = static_cast<std::uint64_t>(draw);
        context.history = history.data();
        context.length = static_cast<std::int64_t>(history.size());
        context.prompt = 10;
        settings.kernels = &kernels_scalar().sampling;
        const std::int32_t expected = sample(settings, context, row.data(), n);
        settings.kernels = &kernels.sampling;
        CHECK(sample(settings, context, row.data(), n) == expected,
              std::string(kernels.name) + " sample, draw " + std::to_string(draw) + " of " +
                  std::to_string(n) + " logits");
    }
    return draws;
}

long check_sampling(const Kernels& kernels, bool quick) {
    Random random(4);
    long checks = 0;
    for (int n : {1, 15, 16, 31, 32, 63, 64, 65, 101, 255, 256, 257, 1000, 5000}) {
        checks += check_row(kernels, n, random);
        checks += check_draws(kernels, n, quick ? 5 : 50, random);
    }
    return checks;
}

}  // namespace tritwise::checks
