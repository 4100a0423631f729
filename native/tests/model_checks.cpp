// A tiny model through the core's own interface: logits equal to the bit on every kernel, thread count, batch
// and chunk, beside other sequences, after rewinds, and with callers in several threads.
#include <algorithm>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#include "checks.hpp"
#include "memory.hpp"
#include "model.hpp"
#include "packing.hpp"

namespace tritwise::checks {

constexpr int context = 80, slots = 4;

struct Variant {
    const char* name;
    ModelConfig config;
    HeadKind head;
    CacheType cache_type;
};

// Widths that are no multiple of 4, 16 or 32; 1, 2 and 10 query heads for a key-value head.
static std::vector<Variant> variants() {
    ModelConfig bitnet{};
    bitnet.vocab = 101, bitnet.hidden = 60, bitnet.ffn = 131, bitnet.layers = 2, bitnet.heads = 10,
    bitnet.kv_heads = 1, bitnet.head_dim = 6;
    bitnet.eps = 1e-5f, bitnet.rope_factor = 1.0f;
    bitnet.tied = bitnet.sub_norms = bitnet.relu2 = bitnet.ternary = true;
    ModelConfig llama = bitnet;
    llama.vocab = 70, llama.hidden = 50, llama.heads = 4, llama.kv_heads = 2, llama.head_dim = 34;
    llama.tied = llama.sub_norms = llama.relu2 = false;
    ModelConfig dense = llama;
    dense.head_dim = 18, dense.kv_heads = 4, dense.ternary = false;
    llama.rope_factor = 1.25f;
    ModelConfig qwen = llama;
    qwen.head_norms = true;
    ModelConfig experts = bitnet,
                dense_experts = dense;  // one expert narrower than the shared one, one wider
    experts.experts = 7, experts.experts_per_token = 3, experts.expert_ffn = 37, experts.shared_ffn = 45;
    experts.ffn = 45, experts.normalise_experts = true;
    dense_experts.experts = dense_experts.experts_per_token = 2, dense_experts.expert_ffn = 50;
    dense_experts.shared_ffn = 20, dense_experts.ffn = 50;
    ModelConfig normed = llama, normed_bitnet = bitnet;
    normed.linear_norms = normed_bitnet.linear_norms = true;
    normed.linear_eps = normed_bitnet.linear_eps = 1e-3f;
    for (ModelConfig* config :
         {&bitnet, &llama, &dense, &qwen, &experts, &dense_experts, &normed, &normed_bitnet}) {
        float frequency = 1.0f;
        for (int i = 0; i < config->head_dim / 2; ++i, frequency *= 0.5f)
            config->inverse_frequencies.push_back(frequency);
    }
    return {{"bitnet, 8-bit head", bitnet, HeadKind::int8, CacheType::f16},
            {"bitnet, head as stored", bitnet, HeadKind::stored, CacheType::int4},
            {"bitnet, 4-bit head", bitnet, HeadKind::int4, CacheType::int8},
            {"llama, 8-bit head", llama, HeadKind::int8, CacheType::int4},
            {"llama dense", dense, HeadKind::f16, CacheType::f32},
            {"qwen3", qwen, HeadKind::int8, CacheType::f16},
            {"bitnet with experts", experts, HeadKind::int8, CacheType::f16},
            {"llama with dense experts", dense_experts, HeadKind::stored, CacheType::f32},
            {"llama, norms in linears", normed, HeadKind::int8, CacheType::f16},
            {"bitnet, norms in linears", normed_bitnet, HeadKind::stored, CacheType::f32}};
}

static void set_floats(Weights& weights, const std::string& name, std::vector<std::int64_t> shape, DType type,
                       float middle, float width, Random& random) {
    std::int64_t count = 1;
    for (std::int64_t size : shape) count *= size;
    std::vector<float> values(static_cast<std::size_t>(count));
    std::vector<std::uint16_t> halves(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = middle + width * random.real();
        std::uint32_t bits;
        std::memcpy(&bits, &values[i], 4);
        halves[i] = static_cast<std::uint16_t>(bits >> 16);  // bfloat16, truncated
    }
    weights.set_dense(name, type == DType::f32 ? static_cast<const void*>(values.data()) : halves.data(),
                      type, shape);
}

static void set_linear(Weights& weights, const ModelConfig& config, const std::string& name, int rows, int k,
                       Random& random) {
    if (!config.ternary) return set_floats(weights, name, {rows, k}, DType::bf16, 0.0f, 0.25f, random);
    std::vector<std::uint8_t> packed(static_cast<std::size_t>(packed_stripes(rows)) * k);
    for (std::uint8_t& byte : packed)
        byte = static_cast<std::uint8_t>(random.integer(0, 2) | random.integer(0, 2) << 2 |
                                         random.integer(0, 2) << 4 | random.integer(0, 2) << 6);
    const float scale = 0.125f + 0.03125f * random.real();
    weights.set_ternary(name, packed.data(), packed_stripes(rows), k, rows, &scale, 1);
}

static std::unique_ptr<Model> make_model(const Variant& variant, int threads, const std::string& kernel) {
    const ModelConfig& c = variant.config;
    auto model = std::make_unique<Model>(c, threads, kernel, variant.head, true, slots, context,
                                         variant.cache_type, slots * 2);
    Weights& weights = model->weights();
    Random random(11);
    const int q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
    set_floats(weights, "model.embed_tokens.weight", {c.vocab, c.hidden}, DType::bf16, 0.0f, 1.0f, random);
    if (!c.tied) set_floats(weights, "lm_head.weight", {c.vocab, c.hidden}, DType::f32, 0.0f, 1.0f, random);
    for (int n = 0; n < c.layers; ++n) {
        const std::string prefix = "model.layers." + std::to_string(n) + ".";
        const auto norm = [&](const std::string& name, int size) {
            set_floats(weights, prefix + name + ".weight", {size}, DType::f32, 1.0f, 0.5f, random);
        };
        const auto linear = [&](const std::string& name, int rows, int k) {
            set_linear(weights, c, prefix + name + ".weight", rows, k, random);
            if (c.linear_norms) norm(name + ".rms_norm", k);
        };
        norm("input_layernorm", c.hidden);
        norm("post_attention_layernorm", c.hidden);
        if (c.sub_norms) norm("self_attn.attn_sub_norm", c.hidden);
        if (c.head_norms) norm("self_attn.q_norm", c.head_dim), norm("self_attn.k_norm", c.head_dim);
        linear("self_attn.q_proj", q, c.hidden);
        linear("self_attn.k_proj", kv, c.hidden);
        linear("self_attn.v_proj", kv, c.hidden);
        linear("self_attn.o_proj", c.hidden, q);
        const auto feed_forward = [&](const std::string& part, int ffn) {
            linear(part + ".gate_proj", ffn, c.hidden);
            linear(part + ".up_proj", ffn, c.hidden);
            linear(part + ".down_proj", c.hidden, ffn);
            if (c.sub_norms) norm(part + ".ffn_sub_norm", ffn);
        };
        if (!c.experts) feed_forward("mlp", c.ffn);
        for (int id = 0; id < c.experts; ++id)
            feed_forward("mlp.experts." + std::to_string(id), c.expert_ffn);
        if (c.shared_ffn) feed_forward("mlp.shared_expert", c.shared_ffn);
        for (const auto& [name, rows] :
             {std::pair{"mlp.gate", c.experts}, std::pair{"mlp.shared_expert_gate", 1}})
            if (c.experts)
                set_floats(weights, prefix + name + ".weight", {rows, c.hidden}, DType::bf16, 0.0f, 1.0f,
                           random);
    }
    set_floats(weights, "model.norm.weight", {c.hidden}, DType::f32, 1.0f, 0.5f, random);
    model->finish();
    return model;
}

// Three sequences; the last two agree in their first 32 tokens, so that a slot can go over from one to the
// other.
constexpr int streams = 3, shared_prefix = 32;
static std::int32_t token(const ModelConfig& config, int stream, int position) {
    const int from = stream == 2 && position < shared_prefix ? 1 : stream;
    return static_cast<std::int32_t>(Random(1000 * from + position).bits() % config.vocab);
}

// The tokens of one call and what is asked of it: logits of `rows`, and the most likely ids of `best_rows`.
struct Batch {
    std::vector<std::int32_t> tokens, slots, positions, rows, best_rows;
    std::vector<int> streams;
    void add(std::int32_t id, int slot, int position, int stream) {
        tokens.push_back(id);
        slots.push_back(slot);
        positions.push_back(position);
        streams.push_back(stream);
    }
    void ask_for_last() { rows.push_back(static_cast<std::int32_t>(tokens.size()) - 1); }
};

struct Result {
    std::vector<float> logits;
    std::vector<std::int32_t> best;
};

static Result forward(Model& model, const Batch& batch) {
    Result result{std::vector<float>(batch.rows.size() * model.config().vocab),
                  std::vector<std::int32_t>(batch.best_rows.size())};
    model.forward(batch.tokens.data(), batch.slots.data(), batch.positions.data(),
                  static_cast<std::int64_t>(batch.tokens.size()), batch.rows.data(),
                  static_cast<std::int64_t>(batch.rows.size()), result.logits.data(), batch.best_rows.data(),
                  static_cast<std::int64_t>(batch.best_rows.size()), result.best.data());
    return result;
}

// Logits of every position of every stream: the scalar kernel, one thread, one token at a time, alone.
struct Reference {
    explicit Reference(const Variant& variant) : vocab(variant.config.vocab) {
        const auto model = make_model(variant, 1, "scalar");
        for (int stream = 0; stream < streams; ++stream)
            for (int position = 0; position < context; ++position) {
                Batch batch;
                batch.add(token(variant.config, stream, position), stream, position, stream);
                batch.ask_for_last();
                const Result result = forward(*model, batch);
                logits.insert(logits.end(), result.logits.begin(), result.logits.end());
            }
    }
    const float* at(int stream, int position) const {
        return logits.data() + (static_cast<std::size_t>(stream) * context + position) * vocab;
    }
    std::int32_t best(int stream, int position) const {
        const float* row = at(stream, position);
        return static_cast<std::int32_t>(std::max_element(row, row + vocab) - row);
    }
    std::size_t vocab;
    std::vector<float> logits;
};

// Runs the batch and compares all that it asked for. Returns the number of comparisons.
static long check_batch(Model& model, const Reference& reference, const Batch& batch,
                        const std::string& where) {
    const Result result = forward(model, batch);
    for (std::size_t j = 0; j < batch.rows.size(); ++j) {
        const int row = batch.rows[j], stream = batch.streams[row], position = batch.positions[row];
        CHECK(std::memcmp(result.logits.data() + j * reference.vocab, reference.at(stream, position),
                          reference.vocab * sizeof(float)) == 0,
              where + ", position " + std::to_string(position) + " of stream " + std::to_string(stream));
    }
    for (std::size_t j = 0; j < batch.best_rows.size(); ++j) {
        const int row = batch.best_rows[j];
        CHECK(result.best[j] == reference.best(batch.streams[row], batch.positions[row]),
              where + ", most likely id");
    }
    return static_cast<long>(batch.rows.size() + batch.best_rows.size());
}

// Slots that prefill, decode, wait, are rewound, reset or given another stream, in one step as it comes.
static long check_steps(Model& model, const Reference& reference, int steps, const std::string& where) {
    const ModelConfig& config = model.config();
    Random random(5);
    int length[slots] = {}, stream[slots] = {};
    long checks = 0;
    for (int step = 0; step < steps; ++step) {
        Batch batch;
        for (int slot = 0; slot < slots; ++slot) {
            const int event = random.integer(0, 19);
            if (event == 0) {
                model.reset(slot);
                length[slot] = 0;
            } else if (event == 1 || length[slot] == context) {
                length[slot] = random.integer(0, length[slot] == context ? context - 1 : length[slot]);
            }
            if (length[slot] == 0) stream[slot] = random.integer(0, streams - 1);
            else if (length[slot] <= shared_prefix && stream[slot] > 0) stream[slot] = random.integer(1, 2);
            int count = event < 4 ? 0 : event < 14 ? 1 : random.integer(2, 40);
            for (; count > 0 && length[slot] < context; --count) {
                batch.add(token(config, stream[slot], length[slot]), slot, length[slot], stream[slot]);
                ++length[slot];
                if (random.integer(0, 2)) batch.ask_for_last();
                if (random.integer(0, 4) == 0)
                    batch.best_rows.push_back(static_cast<std::int32_t>(batch.tokens.size()) - 1);
            }
        }
        checks += check_batch(model, reference, batch, where + ", step " + std::to_string(step));
    }
    return checks;
}

// More tokens than a chunk of the forward pass takes: all slots prefilled in one call.
static long check_long_call(Model& model, const Reference& reference, const std::string& where) {
    Batch batch;
    for (int slot = 0; slot < slots; ++slot)
        for (int position = 0; position < context; ++position) {
            const int stream = slot % streams;
            batch.add(token(model.config(), stream, position), slot, position, stream);
            if (position % 7 == slot) batch.ask_for_last();
        }
    return check_batch(model, reference, batch, where + ", long call");
}

// A thread for each slot; the calls take turns by the model's mutex.
static long check_callers(Model& model, const Reference& reference, const std::string& where) {
    std::vector<std::thread> callers;
    std::vector<long> checks(slots, 0);
    for (int slot = 0; slot < slots; ++slot)
        callers.emplace_back([&, slot] {
            Random random(20 + slot);
            for (int position = 0; position < context;) {
                Batch batch;
                const int stream = slot % streams;
                for (int count = random.integer(1, 9); count > 0 && position < context; --count, ++position) {
                    batch.add(token(model.config(), stream, position), slot, position, stream);
                    batch.ask_for_last();
                }
                const std::lock_guard lock(model.mutex);
                checks[slot] += check_batch(model, reference, batch, where + ", callers");
            }
        });
    for (std::thread& caller : callers) caller.join();
    long total = 0;
    for (long count : checks) total += count;
    return total;
}

static bool same(const Trace& a, const Trace& b) {
    if (a.size() != b.size()) return false;
    for (const auto& [name, array] : a) {
        const auto found = b.find(name);
        if (found == b.end() || found->second.width != array.width || found->second.data != array.data)
            return false;
    }
    return true;
}

static Trace trace(Model& model) {
    std::vector<std::int32_t> tokens;
    for (int position = 0; position < context; ++position)
        tokens.push_back(token(model.config(), 0, position));
    return model.trace(tokens.data(), context);
}

// Calls that cannot be served change nothing: the sequence goes on as if they had not been.
static long check_refusals(Model& model, const Reference& reference, const std::string& where) {
    long refused = 0;
    const auto refuses = [&](std::int32_t id, int slot, int position) {
        Batch batch;
        batch.add(id, slot, position, 0);
        try {
            forward(model, batch);
        } catch (const std::out_of_range&) {
            ++refused;
        }
    };
    model.reset(1);
    for (int position = 0; position < 20; ++position) {
        refuses(-1, 1, position);
        refuses(model.config().vocab, 1, position);
        refuses(0, slots, position);
        refuses(0, 1, position + 1);
        refuses(0, 1, context);
        Batch batch;
        batch.add(token(model.config(), 0, position), 1, position, 0);
        batch.ask_for_last();
        check_batch(model, reference, batch, where + ", after refusals");
    }
    CHECK(refused == 100, where);
    return refused + 20;
}

long check_models(const std::vector<const Kernels*>& tables, bool quick) {
    long checks = 0;
    for (const Variant& variant : variants()) {
        const Reference reference(variant);
        const Trace expected = trace(*make_model(variant, 1, "scalar"));
        CHECK(std::memcmp(expected.at("logits").data.data(), reference.logits.data(),
                          context * reference.vocab * sizeof(float)) == 0,
              std::string(variant.name) + ": trace");
        for (const Kernels* kernels : tables)
            for (int threads : quick ? std::vector{3} : std::vector{1, 2, 5}) {
                const std::string where = std::string(variant.name) + ", " + kernels->name + ", " +
                                          std::to_string(threads) + " threads";
                const auto model = make_model(variant, threads, kernels->name);
                checks += check_steps(*model, reference, quick ? 30 : 150, where);
                CHECK(same(trace(*model), expected), where + ": trace");
                checks += check_long_call(*model, reference, where);
                checks += check_callers(*model, reference, where);
                checks += check_refusals(*model, reference, where) + 1;
            }
        Hash hash;
        hash.add(reference.logits.data(), reference.logits.size() * sizeof(float));
        std::printf("logits %016llx  %s\n", static_cast<unsigned long long>(hash.value()), variant.name);
    }
    return checks;
}

}  // namespace tritwise::checks
