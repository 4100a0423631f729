// Python's view of the core: arrays in, arrays out. native/README.md is its contract.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>

#include "cpu.hpp"
#include "gguf.hpp"
#include "kernels.hpp"
#include "limits.hpp"
#include "memory.hpp"
#include "model.hpp"
#include "packing.hpp"

namespace nb = nanobind;
using namespace tritwise;

template <class T, int Dims>
using Input = nb::ndarray<const T, nb::ndim<Dims>, nb::c_contig, nb::device::cpu>;
template <class T>
using Output = nb::ndarray<nb::numpy, T>;

// A numpy array that owns new memory of this shape.
template <class T>
static Output<T> new_array(std::initializer_list<std::size_t> shape) {
    std::size_t count = 1;
    for (std::size_t size : shape) count *= size;
    T* data = new T[count ? count : 1];
    return Output<T>(data, shape, nb::capsule(data, [](void* p) noexcept { delete[] static_cast<T*>(p); }));
}

static void check_threads(int threads) {
    if (threads < 1 || threads > 1024)
        throw std::invalid_argument("threads is " + std::to_string(threads) + ", 1 to 1024 are possible");
}

static std::vector<std::string> kernel_names() {
    std::vector<std::string> names;
    for (const Kernels* kernels : available_kernels()) names.emplace_back(kernels->name);
    return names;
}

static nb::dict cpu_info_dict() {
    const CpuInfo info = cpu_info();
    nb::dict result;
    result["brand"] = info.brand;
    result["features"] = info.features;
    result["logical_cores"] = info.logical_cores;
    if (info.l1d_bytes) result["l1d_bytes"] = info.l1d_bytes;
    if (info.l2_bytes) result["l2_bytes"] = info.l2_bytes;
    if (info.l3_bytes) result["l3_bytes"] = info.l3_bytes;
    return result;
}

static Output<std::uint8_t> unpack_gguf_matrix(const std::string& type, Input<std::uint8_t, 1> data, int rows, int k,
                                               int head_dim, int threads) {
    const GgufType kind = gguf_type(type);
    check_threads(threads);
    if (gguf_bytes(kind, rows, k) != static_cast<std::int64_t>(data.shape(0)))
        throw std::invalid_argument("data has not the length of a matrix of " + type + " with these rows and k");
    if (head_dim < 0 || head_dim % 2 || (head_dim && rows % head_dim))
        throw std::invalid_argument("head_dim must be 0, or even and a divisor of rows");
    auto result = new_array<std::uint8_t>(
        {static_cast<std::size_t>(packed_stripes(rows)), static_cast<std::size_t>(k)});
    bool valid;
    {
        const nb::gil_scoped_release released;
        valid = unpack_gguf(kind, data.data(), rows, k, head_dim, result.data(), threads);
    }
    if (!valid) throw std::invalid_argument("data: not ternary, a field holds 3; codes + 1 are 0, 1, 2");
    return result;
}

static Output<std::int32_t> ternary_product(Input<std::int8_t, 2> x_codes, Input<std::uint8_t, 2> packed,
                                            int rows, const std::string& kernel, int threads) {
    const Kernels& kernels = kernels_named(kernel);
    check_threads(threads);
    const auto m = static_cast<std::int64_t>(x_codes.shape(0)),
               k = static_cast<std::int64_t>(x_codes.shape(1));
    const auto stripes = static_cast<std::int64_t>(packed.shape(0));
    if (rows < 1 || stripes != packed_stripes(rows) || static_cast<std::int64_t>(packed.shape(1)) != k)
        throw std::invalid_argument("packed must be uint8 [ceil(rows / 4), K] with the K of x_codes");
    if (k < 1 || k >= 1 << 19) throw std::invalid_argument("K must be at least 1 and below 2^19");
    if (has_field_three(packed.data(), stripes * k))
        throw std::invalid_argument("packed: not ternary, a 2-bit field holds 3; codes + 1 are 0, 1, 2");
    auto result = new_array<std::int32_t>({static_cast<std::size_t>(m), static_cast<std::size_t>(rows)});
    const nb::gil_scoped_release released;

    ThreadPool pool(threads);
    const std::int64_t padded_k = round_up(k, block_inputs(kernels.packing)),
                       padded_rows = round_up(rows, group_rows);
    const Buffer weights(ternary_bytes(padded_rows, padded_k, kernels.packing), Pages::huge), codes(m * padded_k, Pages::huge),
        quads(round_up(m, quad) * padded_k, Pages::huge), acc(m * padded_rows * 4, Pages::huge),
        scratch(threads * round_up(ternary_scratch(padded_k, m), 64), Pages::huge), row_scale(padded_rows * 4, Pages::huge);
    repack_ternary(packed.data(), stripes, k, kernels.packing, weights.as<std::uint8_t>(), padded_k, 0, 0, rows);
    std::vector<std::int32_t> sums(m, 0);
    const std::vector<float> scales(m, 1.0f);
    for (std::int64_t i = 0; i < m; ++i) {
        std::int8_t* row = codes.as<std::int8_t>() + i * padded_k;
        std::memcpy(row, x_codes.data() + i * k, static_cast<std::size_t>(k));
        store_quad_column(row, padded_k, quads.as<std::int8_t>(), i);
        for (std::int64_t j = 0; j < k; ++j) sums[i] += row[j];
    }
    const TernaryMatrix w{static_cast<int>(padded_rows), static_cast<int>(padded_k),
                          weights.as<std::uint8_t>(), row_scale.as<float>()};
    const QuantisedRows x{static_cast<int>(m),     w.k,           codes.as<std::int8_t>(),
                          quads.as<std::int8_t>(), scales.data(), sums.data()};
    const ProductOutput out{nullptr, acc.as<std::int32_t>(), padded_rows};
    if (m > 0) {
        pool.for_ranges(padded_rows / group_rows, [&](std::int64_t begin, std::int64_t end, int thread) {
            kernels.ternary(w, static_cast<int>(begin), static_cast<int>(end), x, out,
                            scratch.as<std::uint8_t>() + thread * round_up(ternary_scratch(padded_k, m), 64));
        });
    }
    for (std::int64_t i = 0; i < m; ++i)
        std::memcpy(result.data() + i * rows, acc.as<std::int32_t>() + i * padded_rows,
                    sizeof(std::int32_t) * rows);
    return result;
}

static double read_bandwidth(int threads, std::int64_t size_bytes, int repeats) {
    check_threads(threads);
    if (size_bytes < 4096 || repeats < 1)
        throw std::invalid_argument("size_bytes must be at least 4096 and repeats at least 1");
    const nb::gil_scoped_release released;
    return measure_read_bandwidth(threads, size_bytes, repeats);
}

static double products(int threads, const std::string& kernel, int repeats) {
    check_threads(threads);
    if (repeats < 1) throw std::invalid_argument("repeats must be at least 1");
    const nb::gil_scoped_release released;
    return measure_products(threads, kernel, repeats);
}

static ModelConfig parse_config(const nb::dict& config, const Input<float, 1>& inverse_frequencies,
                                float rope_factor) {
    const auto number = [&](const char* key) {
        const int value = nb::cast<int>(config[key]);
        if (value < 1) throw std::invalid_argument(std::string(key) + " is " + std::to_string(value));
        return value;
    };
    const auto choice = [&](const char* key, const char* one, const char* other) {
        const auto value = nb::cast<std::string>(config[key]);
        if (value != one && value != other)
            throw std::invalid_argument(std::string(key) + " is '" + value + "', '" + one + "' or '" + other +
                                        "' is known");
        return value == one;
    };
    const auto linear_type = nb::cast<std::string>(config["linear_type"]);
    if (linear_type != "ternary" && linear_type != "binary" && linear_type != "dense")
        throw std::invalid_argument("linear_type is '" + linear_type +
                                    "', ternary, binary and dense are known");
    ModelConfig result{};
    result.vocab = number("vocab_size");
    result.hidden = number("hidden_size");
    const auto optional = [&](const char* key) {  // 0 where it is left out or None
        return config.contains(key) && !config[key].is_none() ? nb::cast<int>(config[key]) : 0;
    };
    result.experts = optional("num_experts");
    if (result.experts) {
        result.experts_per_token = number("num_experts_per_tok");
        result.expert_ffn = number("moe_intermediate_size");
        result.shared_ffn = optional("shared_expert_intermediate_size");
        result.normalise_experts = nb::cast<bool>(config["norm_topk_prob"]);
        if (result.experts < 0 || result.experts > 65536 || result.experts_per_token > result.experts ||
            result.shared_ffn < 0)
            throw std::invalid_argument(
                "num_experts must be 0 to 65536 and not below num_experts_per_tok, and "
                "shared_expert_intermediate_size not negative");
    }
    result.ffn =
        result.experts ? std::max(result.expert_ffn, result.shared_ffn) : number("intermediate_size");
    result.layers = number("num_hidden_layers");
    result.heads = number("num_attention_heads");
    result.kv_heads = number("num_key_value_heads");
    result.head_dim = number("head_dim");
    result.eps = static_cast<float>(nb::cast<double>(config["rms_norm_eps"]));
    result.tied = nb::cast<bool>(config["tie_word_embeddings"]);
    const auto model_type = nb::cast<std::string>(config["model_type"]);
    if (model_type != "bitnet" && model_type != "llama" && model_type != "qwen3")
        throw std::invalid_argument("model_type is '" + model_type + "', bitnet, llama and qwen3 are known");
    result.sub_norms = model_type == "bitnet";
    result.head_norms = model_type == "qwen3";
    result.relu2 = choice("hidden_act", "relu2", "silu");
    result.ternary = linear_type != "dense";
    if (config.contains("linear_rms_norm_eps") && !config["linear_rms_norm_eps"].is_none()) {
        result.linear_norms = true;
        result.linear_eps = static_cast<float>(nb::cast<double>(config["linear_rms_norm_eps"]));
        if (!result.ternary || result.experts)
            throw std::invalid_argument("linear_rms_norm_eps is for ternary and binary models without experts");
    }
    if (result.heads % result.kv_heads || result.head_dim % 2)
        throw std::invalid_argument(
            "num_attention_heads must be a multiple of num_key_value_heads, and head_dim even");
    if (result.sub_norms && result.heads * result.head_dim != result.hidden)
        throw std::invalid_argument("model_type bitnet needs num_attention_heads * head_dim = hidden_size");
    // Integer sums of 16-bit products (8-bit head) and the float sums of codes are exact up to here.
    if (result.hidden > 65536 || result.ffn > 1 << 18 || result.heads * result.head_dim > 1 << 18)
        throw std::invalid_argument("hidden_size above 65536 or a linear with more than 262144 inputs");
    const auto frequencies = static_cast<std::int64_t>(inverse_frequencies.shape(0));
    if (frequencies != result.head_dim / 2)
        throw std::invalid_argument("inverse_frequencies has " + std::to_string(frequencies) + " values, " +
                                    std::to_string(result.head_dim / 2) + " are needed, half of head_dim");
    result.inverse_frequencies.assign(inverse_frequencies.data(), inverse_frequencies.data() + frequencies);
    result.rope_factor = rope_factor;
    return result;
}

static std::unique_ptr<Model> new_model(const nb::dict& config, int threads, const std::string& kernel,
                                        const std::string& head, const std::string& head_pass, int slots,
                                        int context, const Input<float, 1>& inverse_frequencies,
                                        float rope_factor, const std::string& cache_type, int pages) {
    check_threads(threads);
    const HeadKind kind = head_kind_named(head);
    if (head_pass != "one" && head_pass != "two")
        throw std::invalid_argument("head_pass is '" + head_pass + "', 'one' or 'two' is needed");
    if (slots < 1 || slots > 65536)
        throw std::invalid_argument("slots is " + std::to_string(slots) + ", at least 1 is needed");
    if (context < 1)
        throw std::invalid_argument("context is " + std::to_string(context) + ", at least 1 is needed");
    CacheType type;
    if (cache_type == "f32") type = CacheType::f32;
    else if (cache_type == "f16") type = CacheType::f16;
    else if (cache_type == "int8") type = CacheType::int8;
    else if (cache_type == "int4") type = CacheType::int4;
    else throw std::invalid_argument("cache_type is '" + cache_type + "', f32, f16, int8 and int4 are known");
    const std::int64_t all = std::int64_t{slots} * (round_up(context, page_positions) / page_positions);
    if (pages < 0 || (pages == 0 && all > std::numeric_limits<int>::max()))
        throw std::invalid_argument("pages is " + std::to_string(pages) + ", at least 1 is needed here");
    const ModelConfig parsed = parse_config(config, inverse_frequencies, rope_factor);
    const nb::gil_scoped_release released;
    return std::make_unique<Model>(parsed, threads, kernel, kind, head_pass == "two", slots, context, type,
                                   pages ? pages : static_cast<int>(all));
}

static void set_ternary(Model& model, const std::string& name, Input<std::uint8_t, 2> packed,
                        std::int64_t out, Input<float, 1> scale) {
    const nb::gil_scoped_release released;
    const std::lock_guard lock(model.mutex);
    model.weights().set_ternary(name, packed.data(), packed.shape(0), packed.shape(1), out, scale.data(),
                                scale.shape(0));
}

static DType type_named(const std::string& name, const std::string& dtype) {
    if (dtype == "float32") return DType::f32;
    if (dtype == "float16") return DType::f16;
    if (dtype == "bfloat16") return DType::bf16;
    throw std::invalid_argument(name + ": dtype is '" + dtype + "', float32, float16 and bfloat16 are known");
}

static void check_place(const std::string& name, std::int64_t offset, const std::vector<std::int64_t>& shape) {
    bool good = offset >= 0 && (shape.size() == 1 || shape.size() == 2);
    for (std::int64_t size : shape) good &= size > 0;
    if (!good) throw std::invalid_argument(name + ": a byte offset from 0 on and a shape of one or two sizes are needed");
}

using FileEntry =
    std::tuple<std::string, int, std::int64_t, std::string, std::vector<std::int64_t>, float, bool>;

static void set_files(Model& model, const std::vector<FileEntry>& entries) {
    const nb::gil_scoped_release released;
    const std::lock_guard lock(model.mutex);
    for (const auto& [name, descriptor, offset, dtype, shape, scale, binary] : entries) {
        check_place(name, offset, shape);
        if (dtype != "uint8") {
            model.weights().set_dense_file(name, descriptor, offset, type_named(name, dtype), shape);
            continue;
        }
        if (shape.size() != 2) throw std::invalid_argument(name + ": codes need a shape of two sizes");
        model.weights().set_ternary_file(name, descriptor, offset, shape[0], shape[1], scale, binary);
    }
}

static void set_dense(Model& model, const std::string& name,
                      nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu> array, const std::string& dtype) {
    const nb::dlpack::dtype given = array.dtype();
    const bool is_float =
        given.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float) && given.lanes == 1;
    const bool is_u16 = given == nb::dtype<std::uint16_t>();
    DType type;
    if (is_float && given.bits == 32 && (dtype.empty() || dtype == "float32")) type = DType::f32;
    else if (is_float && given.bits == 16 && (dtype.empty() || dtype == "float16")) type = DType::f16;
    else if (is_u16 && dtype == "float16") type = DType::f16;
    else if (is_u16 && dtype == "bfloat16") type = DType::bf16;
    else
        throw std::invalid_argument(
            name +
            ": needed is a float32 or float16 array, or uint16 with dtype='bfloat16' or "
            "'float16'");
    std::vector<std::int64_t> shape;
    for (std::size_t i = 0; i < array.ndim(); ++i) shape.push_back(static_cast<std::int64_t>(array.shape(i)));
    const nb::gil_scoped_release released;
    const std::lock_guard lock(model.mutex);
    model.weights().set_dense(name, array.data(), type, shape);
}

static nb::tuple forward(Model& model, Input<std::int32_t, 1> tokens, Input<std::int32_t, 1> slots,
                         Input<std::int32_t, 1> positions, Input<std::int32_t, 1> logits_for,
                         const std::optional<Input<std::int32_t, 1>>& best_for) {
    if (slots.shape(0) != tokens.shape(0) || positions.shape(0) != tokens.shape(0))
        throw std::invalid_argument("tokens, slots and positions must have one length");
    auto logits = new_array<float>({logits_for.shape(0), static_cast<std::size_t>(model.config().vocab)});
    const std::size_t best_rows = best_for ? best_for->shape(0) : 0;
    auto best = new_array<std::int32_t>({best_rows});
    {
        const nb::gil_scoped_release released;
        const std::lock_guard lock(model.mutex);
        model.forward(tokens.data(), slots.data(), positions.data(),
                      static_cast<std::int64_t>(tokens.shape(0)), logits_for.data(),
                      static_cast<std::int64_t>(logits_for.shape(0)), logits.data(),
                      best_rows ? best_for->data() : nullptr, static_cast<std::int64_t>(best_rows),
                      best.data());
    }
    return nb::make_tuple(logits, best);
}

static nb::dict head_search(const Model& model) {
    const HeadSearch& search = model.head_search();
    nb::dict result;
    result["tokens"] = search.tokens;
    result["candidates"] = search.candidates;
    result["groups"] = search.groups;
    result["largest_error"] = search.largest_error;
    return result;
}

static nb::dict profile(const Model& model) {
    nb::dict result;
    for (int i = 0; i < parts; ++i) {
        const Profile::Entry& entry = model.profile().entries[i];
        nb::dict part;
        part["seconds"] = entry.seconds;
        part["calls"] = entry.calls;
        part["bytes"] = entry.bytes;
        part["products"] = entry.products;
        result[part_names[i]] = part;
    }
    return result;
}

template <class T>
static nb::object trace_array(const TraceArray& array) {
    const std::size_t count = array.data.size() / sizeof(T);
    const auto width = static_cast<std::size_t>(array.width);
    auto result = width ? new_array<T>({count / width, width}) : new_array<T>({count});
    std::memcpy(result.data(), array.data.data(), array.data.size());
    return nb::cast(result);
}

static nb::dict trace(Model& model, Input<std::int32_t, 1> tokens) {
    Trace found;
    {
        const nb::gil_scoped_release released;
        const std::lock_guard lock(model.mutex);
        found = model.trace(tokens.data(), static_cast<std::int64_t>(tokens.shape(0)));
    }
    nb::dict result;
    for (const auto& [name, array] : found) {
        const nb::str key(name.c_str());
        if (array.type == TraceArray::i8) result[key] = trace_array<std::int8_t>(array);
        else if (array.type == TraceArray::i32) result[key] = trace_array<std::int32_t>(array);
        else result[key] = trace_array<float>(array);
    }
    return result;
}

// Runs `work` on the locked model without holding Python's lock, which a running forward pass does not hold
// either.
template <class Work>
static auto locked(Model& model, Work&& work) {
    const nb::gil_scoped_release released;
    const std::lock_guard lock(model.mutex);
    return work();
}

void bind_sampling(nb::module_& m);  // sampling_bindings.cpp
void bind_data(nb::module_& m);      // data_bindings.cpp

NB_MODULE(_native, m) {
    using namespace nb::literals;
    m.doc() = "The CPU core of Tritwise; native/README.md describes it.";
    nb::exception<OutOfPages>(m, "OutOfPages");
    m.attr("page_positions") = page_positions;
    m.def("kernels", &kernel_names, "Kernels that run on this processor, fastest first.");
    m.def("cpu_info", &cpu_info_dict,
          "Brand, features, logical cores and cache sizes in bytes of this processor.");
    m.def("ternary_product", &ternary_product, "x_codes"_a, "packed"_a, "rows"_a, "kernel"_a, "threads"_a,
          "Exact accumulators int32 [M, N] of int8 codes [M, K] and packed ternary weights uint8 [ceil(N/4), "
          "K].");
    m.def("unpack_gguf", &unpack_gguf_matrix, "type"_a, "data"_a, "rows"_a, "k"_a, "head_dim"_a, "threads"_a,
          "Codes of a ternary GGUF tensor as uint8 [ceil(rows / 4), k] in Hugging Face's row stripes.");
    m.def("release_unused_memory", &release_unused_memory, nb::call_guard<nb::gil_scoped_release>(),
          "Gives memory that the C library keeps for later back to the system, where it can.");
    m.def("measure_read_bandwidth", &read_bandwidth, "threads"_a, "size_bytes"_a, "repeats"_a,
          "Best read bandwidth in bytes a second.");
    m.def("measure_products", &products, "threads"_a, "kernel"_a, "repeats"_a,
          "8-bit products a second that a kernel's instructions reach in registers.");
    bind_sampling(m);
    bind_data(m);

    nb::class_<Model>(m, "Model",
                      "A decoder on the CPU. Methods may be called from any thread, one at a time runs.")
        .def(nb::new_(&new_model), "config"_a, nb::kw_only(), "threads"_a, "kernel"_a, "head"_a,
             "head_pass"_a = "two", "slots"_a, "context"_a, "inverse_frequencies"_a, "rope_factor"_a,
             "cache_type"_a = "f16", "pages"_a = 0)
        .def("set_ternary", &set_ternary, "name"_a, "packed"_a, "out"_a, "scale"_a)
        .def("set_dense", &set_dense, "name"_a, "array"_a, "dtype"_a = "")
        .def("set_files", &set_files, "entries"_a)
        .def("finish", [](Model& self) { locked(self, [&] { self.finish(); }); })
        .def("forward", &forward, "tokens"_a, "slots"_a, "positions"_a, "logits_for"_a,
             "best_for"_a = nb::none())
        .def("trace", &trace, "tokens"_a)
        .def(
            "reset", [](Model& self, int slot) { locked(self, [&] { self.reset(slot); }); }, "slot"_a)
        .def(
            "length", [](Model& self, int slot) { return locked(self, [&] { return self.length(slot); }); },
            "slot"_a)
        .def(
            "share",
            [](Model& self, int source, int target, int positions) {
                locked(self, [&] { self.share(source, target, positions); });
            },
            "source"_a, "target"_a, "positions"_a)
        .def(
            "pages_needed",
            [](Model& self, int slot, int first, int end) {
                return locked(self, [&] { return self.pages_needed(slot, first, end); });
            },
            "slot"_a, "first"_a, "end"_a)
        .def(
            "pages_held",
            [](Model& self, const std::vector<int>& slots) {
                return locked(self, [&] { return self.pages_held(slots); });
            },
            "slots"_a)
        .def_prop_ro("pages_in_use",
                     [](Model& self) { return locked(self, [&] { return self.cache().pages_in_use(); }); })
        .def_prop_ro("pages_total", [](const Model& self) { return self.cache().pages_total(); })
        .def_prop_ro("page_bytes", [](const Model& self) { return self.cache().page_bytes(); })
        .def_prop_ro("cache_type",
                     [](const Model& self) {
                         constexpr const char* names[] = {"f32", "f16", "int8", "int4"};
                         return names[static_cast<int>(self.cache().layout().type)];
                     })
        .def_prop_ro("threads", &Model::threads)
        .def_prop_ro("kernel", [](const Model& self) { return self.kernels().name; })
        .def_prop_ro("head", [](const Model& self) { return name_of(self.weights().head.kind); })
        .def_prop_ro("weight_bytes", [](const Model& self) { return self.weights().bytes(); })
        .def_prop_ro("weight_bytes_per_token",
                     [](const Model& self) { return self.weights().bytes_per_token(); })
        .def_prop_ro("weight_bytes_per_best",
                     [](const Model& self) {
                         return self.weights().bytes_per_token() - self.weights().head.bytes() +
                                self.head_bytes_per_best();
                     })
        .def_prop_ro("head_search", &head_search)
        .def(
            "start_profile", [](Model& self, bool on) { locked(self, [&] { self.profile(on); }); }, "on"_a = true,
            "Begins to count from zero what forward passes spend on each of their parts, or stops counting.")
        .def_prop_ro("profile", &profile, "Of each part: seconds, calls, bytes of weights read, products.")
        .def_prop_ro("weight_bytes_skipped", &Model::weight_bytes_skipped)
        .def_prop_ro("experts_read", &Model::experts_read,
                     "Products of routed experts so far: one a layer, expert and chunk of 256 tokens.")
        .def_prop_ro("cache_bytes_per_token", &Model::cache_bytes_per_token);
}
