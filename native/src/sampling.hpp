// From a row of logits to a token. The steps and their order (native/README.md says why):
//
//   bit mask -> bias -> repetition, frequency and presence penalties -> temperature -> top-k -> top-p ->
//   min-p
//
// All functions are pure: the same arguments give the same result on every processor. Exponentials and sums
// are plain double arithmetic in one stated order; nothing comes from the C library's libm.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.hpp"

namespace tritwise {

struct SamplingSettings {
    double temperature = 0;  // 0: the largest logit
    std::int64_t top_k = 0;  // 0: all
    double top_p = 1;        // 1: all
    double min_p = 0;        // 0: all
    float repetition_penalty = 1;
    float frequency_penalty = 0;
    float presence_penalty = 0;
    std::vector<std::int32_t> bias_ids;
    std::vector<float> bias_values;
    std::uint64_t seed = 0;
    const SamplingKernels* kernels = nullptr;  // which of them never changes a result
};

// What one draw depends on beside the settings.
struct SamplingContext {
    std::uint64_t position = 0;             // of the token to draw
    const std::int32_t* history = nullptr;  // the ids before it
    std::int64_t length = 0;
    std::int64_t prompt = 0;              // so many of them were given, the others were drawn
    const std::uint32_t* mask = nullptr;  // bit i & 31 of word i >> 5: token i is allowed; null: all are
};

struct Distribution {
    std::vector<std::int32_t> ids;  // ascending
    std::vector<double> probabilities;
};

struct LogProbabilities {
    double chosen;
    std::vector<std::int32_t> ids;  // falling probability, among equal ones rising id
    std::vector<double> values;
};

// In [0, 1): the upper 53 bits of the first word of Philox-4x64-10 (Salmon et al. 2011) at counter 1, keyed
// by (seed, position).
double uniform(std::uint64_t seed, std::uint64_t position);

// Throws std::domain_error when a logit is NaN or +infinity, or when no token is allowed;
// std::invalid_argument for a history, bias or prompt length that does not fit the vocabulary.
std::int32_t sample(const SamplingSettings& settings, const SamplingContext& context, const float* logits,
                    std::int64_t vocab);

// The tokens that sample() may return at a temperature above 0, and their probabilities.
Distribution distribution(const SamplingSettings& settings, const SamplingContext& context,
                          const float* logits, std::int64_t vocab);

// Natural logarithms of the softmax of the logits as they are: of token `chosen`, and of the `top` likeliest.
LogProbabilities log_probabilities(const SamplingKernels& kernels, const float* logits, std::int64_t vocab,
                                   std::int32_t chosen, std::int64_t top);

}  // namespace tritwise
