// The listed inputs of a matrix that lies by input (kernels.hpp), some at a time. Included by every kernel file that
// interleaves a few inputs.
#pragma once

#include <cstring>

#include "kernels.hpp"

namespace tritwise::TRITWISE_ISA {

// At most `most` inputs. `together` neighbours are interleaved: what lacks of the last ones is there once more, times 0.
template <int most, int together>
struct InputRun {
    int n;
    const std::uint8_t* at[most];
    std::int32_t codes[most / together];  // a byte each, the first one lowest

    InputRun(const TernaryMatrix& w, const std::int32_t* inputs, int count, const std::int8_t* all) : n(count) {
        for (int i = 0; i < count; i += together) {
            std::int8_t bytes[4] = {};
            for (int j = 0; j < together; ++j) {
                const int input = inputs[i + j < count ? i + j : count - 1];
                at[i + j] = w.packed + input * input_bytes(w.rows);
                if (i + j < count) bytes[j] = all[input];
            }
            std::memcpy(&codes[i / together], bytes, 4);
        }
    }
};

// Calls work(run, fetch) for one run after the other; fetch(line) asks for 64 bytes of every input of the next run.
template <int most, int together, class Work>
inline void for_input_runs(const TernaryMatrix& w, const std::int32_t* inputs, int count, const std::int8_t* codes,
                           Work&& work) {
    const auto length = [&](int begin) { return count - begin < most ? count - begin : most; };
    for (int begin = 0; begin < count; begin += most) {
        const std::int32_t* next = inputs + begin + length(begin);
        const int left = length(begin + most) > 0 ? length(begin + most) : 0;
        const std::uint8_t* fetched[most];
        for (int i = 0; i < left; ++i) fetched[i] = w.packed + next[i] * input_bytes(w.rows);
        work(InputRun<most, together>(w, inputs + begin, length(begin), codes), [&](std::int64_t line) {
            for (int i = 0; i < left; ++i) __builtin_prefetch(fetched[i] + line);
        });
    }
}

}  // namespace tritwise::TRITWISE_ISA
