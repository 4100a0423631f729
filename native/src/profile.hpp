// Where the time of forward passes goes. Off unless it is asked for; on, it reads a clock twice a part.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>

namespace tritwise {

enum class Part {
    embedding,   // rows of the embedding, rotary angles, the first norm
    norms,       // residual, norm and quantising, between products
    qkv,
    rotary,      // rotary embedding and the cache
    attention,
    o,
    gate_up,
    activation,  // of the gate, its norm, quantising
    router,
    down,
    head_norm,   // the last norm and quantising
    head,        // all logits, or the pass that looks for the largest
    rescoring,   // of the rows that this pass left
};
constexpr int parts = 13;
constexpr const char* part_names[parts] = {"embedding", "norms",  "qkv",  "rotary",    "attention", "o",        "gate_up",
                                           "activation", "router", "down", "head_norm", "head",      "rescoring"};

class Profile {
public:
    struct Entry {
        double seconds = 0;
        std::int64_t calls = 0;
        std::int64_t bytes = 0;     // of weights that were read, each once a chunk of tokens
        std::int64_t products = 0;  // of a weight and an activation
    };

    // From its making to its end; the clock of a part that holds another one goes on.
    class Timer {
    public:
        Timer(Profile& profile, Part part) : entry_(profile.on ? &profile.entries[static_cast<int>(part)] : nullptr) {
            if (entry_) begin_ = std::chrono::steady_clock::now();
        }
        ~Timer() {
            if (!entry_) return;
            entry_->seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
            ++entry_->calls;
        }
        Timer(const Timer&) = delete;
        Timer& operator=(const Timer&) = delete;
        void add(std::int64_t bytes, std::int64_t products) {
            if (!entry_) return;
            entry_->bytes += bytes;
            entry_->products += products;
        }

    private:
        Entry* entry_;
        std::chrono::steady_clock::time_point begin_;
    };

    bool on = false;
    std::array<Entry, parts> entries{};
};

}  // namespace tritwise
