// Mixture of experts: which experts a token goes to, and the tokens of a step grouped by expert.
#pragma once

#include <cstdint>
#include <vector>

#include "memory.hpp"
#include "weights.hpp"

namespace tritwise {

// The `k` experts of one token, in ascending order, and their weights, from its router's logits [experts].
// The largest logits win, the lowest id among equals. A weight is the softmax over all experts in float64,
// with `normalise` divided by the sum of the chosen ones, rounded once.
void choose_experts(const float* logits, int experts, int k, bool normalise, std::int32_t* chosen,
                    float* weights);

// What a layer of experts needs beside the activations of the chunk. A row is an entry: one token at one
// expert.
//
//   groups   | expert 2: tokens 0 3 5 | expert 7: 0 1 2 3 | expert 8: 4 | shared: all |
//   slots      0 . . 3                  4 . . . . . . . .   8 . . . 11    12 . . .
//
// Groups are in ascending order of experts, the shared one last, and begin at multiples of `quad`; an expert
// that no token chose has no group, and nothing of it is read.
struct ExpertWork {
    struct Group {
        const ExpertWeights* expert;
        int id;                // of the expert; the number of experts for the shared one
        int m;                 // tokens
        std::int64_t first;    // entry
        std::int64_t slot;     // of that entry: its row in the inputs and in `out`
        std::int64_t gate_up;  // where its row of gate and up begins
        std::int64_t task;     // its first item in a section
    };
    struct Entry {
        std::int32_t row, group;
    };

    ExpertWork() = default;
    ExpertWork(const ModelConfig& config, const Weights& weights, std::int64_t tokens);
    void group(const LayerWeights& layer, std::int64_t rows);  // by `chosen` of the first `rows` tokens

    int experts = 0, k = 0;
    bool has_shared = false;
    std::vector<std::int32_t> chosen;            // [tokens, k]
    std::vector<float> weights, shared_weights;  // [tokens, k]; [tokens]
    std::vector<Group> groups;
    std::vector<Entry> entries;       // of the groups, one behind the other
    std::vector<std::int64_t> slots;  // of each token's entries, [tokens, k + 1]
    std::vector<std::int32_t> next;   // [experts + 1], for sorting

    int stride = 0;  // of an entry in the inputs: the widest K
    Buffer router, codes, quads, inputs, scales, sums, gate_up, out, accumulators;
};

}  // namespace tritwise
