// A product with a matrix that lies by input: inputs that are zero are not read.
#include <algorithm>

#include "chunk.hpp"
#include "packing.hpp"

namespace tritwise {

// More tokens than this together leave few inputs at zero in all of them, and their sums fill the caches.
constexpr std::int64_t most_tokens = 16;
// A token's input costs about a quarter of an input that is unpacked for all tokens.
constexpr std::int64_t worth = 4;
// Inputs of an item when there is one token; a multiple of what the kernels take at once.
constexpr std::int64_t inputs_an_item = 32;
// Neighbouring inputs of an item when there are several tokens: they pass over the same part of the matrix in turn.
constexpr std::int64_t range = 128;

bool Model::product_by_input(Profile::Timer& timer, const Linear& matrix, const Chunk& chunk, float* y) {
    const TernaryMatrix& w = matrix.ternary;
    const std::int64_t m = chunk.n, ranges = (w.k + range - 1) / range, width = input_bytes(w.rows) * 4;
    if (m > most_tokens) return false;
    const std::int64_t list = w.k + list_room;
    inputs_.resize(m * list);
    input_ends_.resize(m * (ranges + 1));
    const auto codes_of = [&](std::int64_t row) { return codes_.as<std::int8_t>() + row * code_stride_; };
    for_rows(chunk, [&](std::int64_t row) {
        std::int32_t* inputs = inputs_.data() + row * list;
        std::int32_t* ends = input_ends_.data() + row * (ranges + 1);
        std::int32_t* const end = inputs + kernels_.list_inputs(codes_of(row), w.k, inputs);
        for (std::int64_t i = 0; i < ranges && m > 1; ++i)
            ends[i] = static_cast<std::int32_t>(std::lower_bound(inputs, end, i * range) - inputs);
        ends[ranges] = static_cast<std::int32_t>(end - inputs);
    });
    std::int64_t inputs = 0;
    for (std::int64_t row = 0; row < m; ++row) inputs += input_ends_[row * (ranges + 1) + ranges];
    if (m > 1 && inputs > worth * w.k) return false;
    timer.add(inputs * input_bytes(w.rows), inputs * w.rows);
    weight_bytes_skipped_ += (m * w.k - inputs) * input_bytes(w.rows);

    const std::int64_t sums = m * width;  // of a thread
    if (input_sums_.bytes() < floats(pool_.size() * sums))
        input_sums_ = Buffer(floats(pool_.size() * sums), Pages::lazy);  // zeros, and again after each product
    const auto add = [&](std::int64_t row, std::int64_t begin, std::int64_t end, int thread) {
        if (begin < end)
            kernels_.add_inputs(w, inputs_.data() + row * list + begin, static_cast<int>(end - begin), codes_of(row),
                                input_sums_.as<std::int32_t>() + thread * sums + row * width);
    };
    if (m == 1) {
        pool_.for_ranges((inputs + inputs_an_item - 1) / inputs_an_item,
                         [&](std::int64_t begin, std::int64_t end, int thread) {
                             add(0, begin * inputs_an_item, std::min(end * inputs_an_item, inputs), thread);
                         });
    } else {
        pool_.for_ranges(ranges, [&](std::int64_t begin, std::int64_t end, int thread) {
            for (std::int64_t i = begin; i < end; ++i) {
                for (std::int64_t row = 0; row < m; ++row) {
                    const std::int32_t* ends = input_ends_.data() + row * (ranges + 1) + i;
                    add(row, ends[0], ends[1], thread);
                }
            }
        });
    }
    std::int32_t* accumulators = chunk.trace ? accumulators_.as<std::int32_t>() : nullptr;
    for_rows(chunk, [&](std::int64_t row) {
        kernels_.collect_inputs(w, input_sums_.as<std::int32_t>() + row * width, pool_.size(), sums,
                                scales_.as<float>()[row], sums_.as<std::int32_t>()[row], y + row * w.rows,
                                accumulators ? accumulators + row * w.rows : nullptr);
    });
    return true;
}

}  // namespace tritwise
