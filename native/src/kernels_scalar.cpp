// Plain C++ for any processor: reads like the formulas, and is the oracle of the other kernels.
#define TRITWISE_ISA scalar
#include "kernels.hpp"

namespace tritwise::TRITWISE_ISA {
constexpr int query_tile = 4;
constexpr int attention_tile = 4;  // vectors of values or scores in work
constexpr int dense_row_tile = 2;
constexpr int dense_token_tile = 2;
constexpr int sum_place(int row) { return row; }
constexpr int sum_shift(int) { return 0; }
}  // namespace tritwise::TRITWISE_ISA

#include "attention_kernels.hpp"
#include "by_input_groups.hpp"
#include "by_input_list.hpp"
#include "cache_kernels.hpp"
#include "dense_kernels.hpp"
#include "float_kernels.hpp"
#include "head_products_scalar.hpp"
// Needs the products above.
#include "head_kernels.hpp"
#include "sampling_kernels.hpp"

namespace tritwise::TRITWISE_ISA {

// acc[row] = sum over k of bytes[k/4][row][k%4] * x[k], where the codes of four k stand `step` bytes apart.
static void product_of_group(const std::uint8_t* bytes, std::int64_t k4, const std::int8_t* x,
                             std::int64_t step, std::int32_t* acc) {
    for (int row = 0; row < group_rows; ++row) acc[row] = 0;
    for (std::int64_t i = 0; i < k4; ++i, bytes += 4 * group_rows, x += step)
        for (int row = 0; row < group_rows; ++row)
            for (int j = 0; j < 4; ++j) acc[row] += std::int32_t{bytes[4 * row + j]} * x[j];
}

// The fields of one input of a matrix that lies by input: row n.
static int field_by_input(const std::uint8_t* input, std::int64_t n) {
    const std::uint8_t* slab = input + n / slab_rows * slab_bytes;
    const std::int64_t row = n % group_rows;
    return slab[row / 8 * 4 + row % 8 / 4 * 16 + row % 4] >> 2 * (n % slab_rows / group_rows) & 3;
}

static void add_inputs(const TernaryMatrix& w, const std::int32_t* inputs, int count, const std::int8_t* codes,
                       std::int32_t* sums) {
    for (int i = 0; i < count; ++i) {
        const std::uint8_t* input = w.packed + inputs[i] * input_bytes(w.rows);
        for (std::int64_t at = 0; at < input_bytes(w.rows); ++at)
            for (int f = 0; f < 4; ++f)
                sums[at / slab_bytes * slab_rows + f * group_rows + slab_row(at % slab_bytes)] +=
                    (input[at] >> 2 * f & 3) * codes[inputs[i]];
    }
}

static void ternary(const TernaryMatrix& w, int begin, int end, const QuantisedRows& x,
                    const ProductOutput& out, std::uint8_t* panel) {
    const std::int64_t blocks = w.k / block_inputs(TernaryPacking::four_a_byte);
    for (int group = begin; group < end; ++group) {
        const std::uint8_t* p = w.packed + group * blocks * 128;
        for (std::int64_t block = 0; block < blocks && !w.by_input; ++block)
            for (int field = 0; field < 4; ++field)
                for (int i = 0; i < 128; ++i)
                    panel[(block * 4 + field) * 128 + i] = p[block * 128 + i] >> 2 * field & 3;
        for (std::int64_t i = 0; i < w.k && w.by_input; ++i)
            for (int row = 0; row < group_rows; ++row)
                panel[i / 4 * 128 + row * 4 + i % 4] = static_cast<std::uint8_t>(
                    field_by_input(w.packed + i * input_bytes(w.rows), std::int64_t{group} * group_rows + row));
        for (int m = 0; m < x.m; ++m) {
            std::int32_t acc[group_rows];
            const std::int8_t* column = x.quads + std::int64_t{m / quad} * quad * x.k + m % quad * 4;
            product_of_group(panel, w.k / 4, x.m == 1 ? x.codes : column, x.m == 1 ? 4 : 16, acc);
            for (int i = 0; i < group_rows; ++i) {
                const int row = group * group_rows + i;
                // Stored fields are value + 1: sum x (w + 1) - sum x = sum x w.
                const std::int32_t result = acc[i] - x.sum[m];
                if (out.acc) out.acc[out.at(m, row)] = result;
                if (out.y)
                    out.y[out.at(m, row)] =
                        static_cast<float>(result) * (x.scale[m] * w.row_scale[row]);
            }
        }
    }
}

static std::int64_t multiply(std::int64_t rounds, std::uint64_t* sink) {
    constexpr std::int64_t k4 = 8;
    std::uint8_t bytes[k4 * 4 * group_rows] = {};
    std::int8_t x[k4 * 4] = {};
    std::int32_t acc[group_rows];
    for (std::int64_t round = 0; round < rounds; round += 24) {
        bytes[round % sizeof bytes] = static_cast<std::uint8_t>(*sink & 3);
        x[round % sizeof x] = static_cast<std::int8_t>(round);
        product_of_group(bytes, k4, x, 4, acc);
        for (const std::int32_t sum : acc) *sink ^= static_cast<std::uint64_t>(sum);
    }
    return (rounds + 23) / 24 * k4 * 4 * group_rows;
}

static std::uint64_t read(const void* data, std::size_t size) {
    const auto* p = static_cast<const char*>(data);
    std::uint64_t result = 0, word;
    for (std::size_t i = 0; i + 8 <= size; i += 8) {
        std::memcpy(&word, p + i, 8);
        result ^= word;
    }
    return result;
}

}  // namespace tritwise::TRITWISE_ISA

namespace tritwise {

const Kernels& kernels_scalar() {
    using namespace scalar;
    static constexpr Kernels table = {
        .name = "scalar",
        .packing = TernaryPacking::four_a_byte,
        .query_tile = query_tile,
        .ternary = ternary,
        .list_inputs = list_inputs,
        .add_inputs = add_inputs,
        .collect_inputs = collect_inputs,
        .dense = dense,
        .rms_norm = rms_norm,
        .quantise = quantise,
        .quantise_planes = quantise_planes,
        .silu_gate = silu_gate,
        .relu2_gate = relu2_gate,
        .add = add,
        .rotate = rotate,
        .load_row = load_row,
        .attention = attention,
        .merge_attention = merge_attention,
        .cache_position = cache_position,
        .sampling = sampling_kernels,
        .head8 = head8,
        .coarse = coarse,
        .exact_sums = exact_sums,
        .head4 = head4,
        .best_of = best_of,
        .split_row = split_row,
        .chunk_row = chunk_row,
        .half_row = half_row,
        .all_finite = all_finite,
        .read = read,
        .multiply = multiply,
    };
    return table;
}

}  // namespace tritwise
