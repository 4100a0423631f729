// Python's view of sampling.hpp.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <cstring>
#include <optional>
#include <stdexcept>

#include "sampling.hpp"

namespace nb = nanobind;
using namespace tritwise;

template <class T>
using Input = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Logits = Input<float>;
using History = std::optional<Input<std::int32_t>>;
using Mask = std::optional<Input<std::uint32_t>>;

template <class T>
static nb::object new_array(const std::vector<T>& values) {
    T* data = new T[values.size() + 1];
    std::memcpy(data, values.data(), values.size() * sizeof(T));
    const nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
    return nb::cast(nb::ndarray<nb::numpy, T>(data, {values.size()}, owner));
}

static std::int64_t vocabulary(const Logits& logits) {
    if (logits.shape(0) < 1 || logits.shape(0) > std::size_t{1} << 30)
        throw std::invalid_argument("logits: at least one is needed, and at most 2^30");
    return static_cast<std::int64_t>(logits.shape(0));
}

static SamplingContext context_of(const Logits& logits, std::uint64_t position, const History& history,
                                  std::int64_t prompt, const Mask& mask) {
    SamplingContext context;
    context.position = position;
    context.prompt = prompt;
    if (history) {
        context.history = history->data();
        context.length = static_cast<std::int64_t>(history->shape(0));
    }
    if (mask) {
        if (mask->shape(0) != (logits.shape(0) + 31) / 32)
            throw std::invalid_argument("mask: a vocabulary of " + std::to_string(logits.shape(0)) +
                                        " needs " + std::to_string((logits.shape(0) + 31) / 32) +
                                        " words, these are " + std::to_string(mask->shape(0)));
        context.mask = mask->data();
    }
    return context;
}

static const SamplingKernels& kernels_of(const std::string& name) {
    return (name.empty() ? *available_kernels().front() : kernels_named(name)).sampling;
}

static void new_settings(SamplingSettings* self, double temperature, std::int64_t top_k, double top_p,
                         double min_p, float repetition_penalty, float frequency_penalty,
                         float presence_penalty, std::vector<std::int32_t> bias_ids,
                         std::vector<float> bias_values, std::uint64_t seed, const std::string& kernel) {
    const auto check = [](bool good, const char* what) {
        if (!good) throw std::invalid_argument(what);
    };
    check(temperature >= 0 && std::isfinite(temperature), "temperature: a number from 0 up is needed");
    check(top_k >= 0, "top_k: a number from 0 up is needed");
    check(top_p > 0 && top_p <= 1, "top_p: a number above 0 and at most 1 is needed");
    check(min_p >= 0 && min_p <= 1, "min_p: a number from 0 to 1 is needed");
    check(repetition_penalty > 0 && std::isfinite(repetition_penalty),
          "repetition_penalty: a number above 0 is needed");
    check(std::isfinite(frequency_penalty) && std::isfinite(presence_penalty),
          "frequency_penalty and presence_penalty: numbers are needed");
    check(bias_ids.size() == bias_values.size(), "logit_bias: as many values as ids are needed");
    for (const float value : bias_values)
        check(value < INFINITY, "logit_bias: numbers, or -infinity, are needed");
    new (self) SamplingSettings{temperature,
                                top_k,
                                top_p,
                                min_p,
                                repetition_penalty,
                                frequency_penalty,
                                presence_penalty,
                                std::move(bias_ids),
                                std::move(bias_values),
                                seed,
                                &kernels_of(kernel)};
}

void bind_sampling(nb::module_& m) {
    using namespace nb::literals;
    nb::class_<SamplingSettings>(m, "SamplingSettings",
                                 "How tokens are drawn; sampling.hpp states the steps.")
        .def("__init__", &new_settings, nb::kw_only(), "temperature"_a, "top_k"_a, "top_p"_a, "min_p"_a,
             "repetition_penalty"_a, "frequency_penalty"_a, "presence_penalty"_a, "bias_ids"_a,
             "bias_values"_a, "seed"_a, "kernel"_a = "");
    m.def("uniform", &uniform, "seed"_a, "position"_a, "The number in [0, 1) that decides a draw.");
    m.def(
        "sample",
        [](const SamplingSettings& settings, Logits logits, std::uint64_t position, const History& history,
           std::int64_t prompt, const Mask& mask) {
            const std::int64_t vocab = vocabulary(logits);
            const SamplingContext context = context_of(logits, position, history, prompt, mask);
            const nb::gil_scoped_release released;
            return sample(settings, context, logits.data(), vocab);
        },
        "settings"_a, "logits"_a, "position"_a, "history"_a = nb::none(), "prompt"_a = 0,
        "mask"_a = nb::none(),
        "The token for a position. ValueError: a NaN, an infinity or no allowed token.");
    m.def(
        "distribution",
        [](const SamplingSettings& settings, Logits logits, const History& history, std::int64_t prompt,
           const Mask& mask) {
            if (settings.temperature == 0) throw std::invalid_argument("a temperature above 0 is needed");
            const SamplingContext context = context_of(logits, 0, history, prompt, mask);
            const Distribution result = distribution(settings, context, logits.data(), vocabulary(logits));
            return nb::make_tuple(new_array(result.ids), new_array(result.probabilities));
        },
        "settings"_a, "logits"_a, "history"_a = nb::none(), "prompt"_a = 0, "mask"_a = nb::none(),
        "Ids that may be drawn, rising, and their probabilities.");
    m.def(
        "log_probabilities",
        [](Logits logits, std::int32_t token, std::int64_t top) {
            if (top < 0) throw std::invalid_argument("top: a number from 0 up is needed");
            const LogProbabilities result =
                log_probabilities(kernels_of({}), logits.data(), vocabulary(logits), token, top);
            return nb::make_tuple(result.chosen, new_array(result.ids), new_array(result.values));
        },
        "logits"_a, "token"_a, "top"_a = 0, "Of a token, and the likeliest ids with theirs.");
}
