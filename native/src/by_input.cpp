// A product with a matrix that lies by input: inputs that are zero are not read.
#include <algorithm>
#include <bit>
#include <cstring>

#include "chunk.hpp"
#include "packing.hpp"

namespace tritwise {

// More tokens than this together leave few inputs at zero in all of them, and their sums fill the caches.
constexpr std::int64_t most_tokens = 16;
// A token's input costs about a quarter of an input that is unpacked for all tokens.
constexpr std::int64_t worth = 4;
// Inputs of an item when there is one token; a multiple of what the kernels take at once.
constexpr std::int64_t inputs_an_item = 64;
// Neighbouring inputs of an item when there are several tokens: they pass over the same part of the matrix in turn.
constexpr std::int64_t range = 128;

// The places of codes that are not zero, k of them a multiple of 4; returns how many. Eight bytes at a time: a byte's
// bit 7 is set when it is not zero.
static std::int64_t list_inputs(const std::int8_t* codes, std::int64_t k, std::int32_t* inputs) {
    constexpr std::uint64_t low = 0x7F7F7F7F7F7F7F7Full;
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < k; i += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, codes + i, static_cast<std::size_t>(std::min<std::int64_t>(8, k - i)));
        for (std::uint64_t bits = (((word & low) + low) | word) & ~low; bits; bits &= bits - 1) {
            const int bit = std::endian::native == std::endian::little ? std::countr_zero(bits)
                                                                       : 63 - std::countl_zero(bits);
            inputs[count++] = static_cast<std::int32_t>(i + bit / 8);
        }
    }
    return count;
}

bool Model::product_by_input(Profile::Timer& timer, const Linear& matrix, const Chunk& chunk, float* y) {
    const TernaryMatrix& w = matrix.ternary;
    const std::int64_t m = chunk.n, ranges = (w.k + range - 1) / range, width = input_bytes(w.rows) * 4;
    if (m > most_tokens) return false;
    inputs_.resize(m * w.k);
    input_ends_.resize(m * (ranges + 1));
    const auto codes_of = [&](std::int64_t row) { return codes_.as<std::int8_t>() + row * code_stride_; };
    for_rows(chunk, [&](std::int64_t row) {
        std::int32_t* inputs = inputs_.data() + row * w.k;
        std::int32_t* ends = input_ends_.data() + row * (ranges + 1);
        std::int32_t* const end = inputs + list_inputs(codes_of(row), w.k, inputs);
        for (std::int64_t i = 0; i < ranges; ++i)
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
        input_sums_ = Buffer(floats(pool_.size() * sums), Pages::lazy);
    std::memset(input_sums_.as<char>(), 0, floats(pool_.size() * sums));
    const auto add = [&](std::int64_t row, std::int64_t begin, std::int64_t end, int thread) {
        if (begin < end)
            kernels_.add_inputs(w, inputs_.data() + row * w.k + begin, static_cast<int>(end - begin), codes_of(row),
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
        std::int32_t* total = input_sums_.as<std::int32_t>() + row * width;
        for (int thread = 1; thread < pool_.size(); ++thread)
            for (int n = 0; n < w.rows; ++n) total[n] += total[thread * sums + n];
        // Stored fields are value + 1: sum x (w + 1) - sum x = sum x w.
        const std::int32_t x_sum = sums_.as<std::int32_t>()[row];
        const float x_scale = scales_.as<float>()[row];
        float* out = y + row * w.rows;
        for (int n = 0; n < w.rows; ++n) out[n] = static_cast<float>(total[n] - x_sum) * (x_scale * w.row_scale[n]);
        for (int n = 0; accumulators && n < w.rows; ++n) accumulators[row * w.rows + n] = total[n] - x_sum;
    });
    return true;
}

}  // namespace tritwise
