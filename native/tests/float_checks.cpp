// Float operations of one table against the scalar one: equal to the bit, since all follow one order.
#include <algorithm>
#include <cmath>
#include <vector>

#include "checks.hpp"
#include "memory.hpp"

namespace tritwise::checks {

enum class Values { usual, zero, tiny, huge, ties, spread };
static const std::vector<Values> all_values = {Values::usual, Values::zero, Values::tiny,
                                               Values::huge,  Values::ties, Values::spread};

// `count` values, then zeros up to a multiple of 16.
static void fill(const Array<float>& x, int count, Values values, Random& random) {
    for (int i = 0; i < count; ++i) {
        const float u = random.real();
        switch (values) {
            case Values::usual: x[i] = 4 * u; break;
            case Values::zero: x[i] = i % 2 ? 0.0f : -0.0f; break;
            case Values::tiny: x[i] = u * 0x1p-130f; break;  // subnormal
            case Values::huge: x[i] = u * 0x1p60f; break;
            // With a largest value of 127 the steps are one, and halves are ties.
            case Values::ties:
                x[i] = i == 0 ? 127.0f : static_cast<float>(random.integer(-254, 254)) * 0.5f;
                break;
            case Values::spread: x[i] = std::ldexp(u, random.integer(-30, 30)); break;
        }
    }
}

static long check_rows(const Kernels& kernels, int count, Values values, Random& random) {
    const Kernels& scalar = kernels_scalar();
    const std::string where = std::string(kernels.name) + ", " + std::to_string(count) + " values of kind " +
                              std::to_string(static_cast<int>(values));
    const int n = static_cast<int>(round_up(count, 16));
    const Array<float> x(n), weight(n), out(n), expected(n);
    fill(x, count, values, random);
    fill(weight, count, Values::usual, random);

    scalar.rms_norm(x.data(), weight.data(), n, count, 1e-5f, expected.data());
    kernels.rms_norm(x.data(), weight.data(), n, count, 1e-5f, out.data());
    CHECK(out.same_bits(expected), where + ": rms_norm");

    const Array<std::int8_t> codes(n), expected_codes(n), low(n), expected_low(n);
    float scale = 0, expected_scale = 0;
    std::int32_t sums[2] = {}, expected_sums[2] = {};
    scalar.quantise(x.data(), n, expected_codes.data(), &expected_scale, expected_sums);
    kernels.quantise(x.data(), n, codes.data(), &scale, sums);
    CHECK(codes.same_bits(expected_codes), where + ": quantise");
    CHECK(scale == expected_scale && sums[0] == expected_sums[0], where + ": quantise");

    scalar.quantise_planes(x.data(), n, expected_codes.data(), expected_low.data(), &expected_scale,
                           expected_sums);
    kernels.quantise_planes(x.data(), n, codes.data(), low.data(), &scale, sums);
    CHECK(codes.same_bits(expected_codes) && low.same_bits(expected_low), where + ": quantise_planes");
    CHECK(scale == expected_scale && sums[0] == expected_sums[0] && sums[1] == expected_sums[1],
          where + ": quantise_planes");

    scalar.silu_gate(x.data(), weight.data(), n, expected.data());
    kernels.silu_gate(x.data(), weight.data(), n, out.data());
    CHECK(out.same_bits(expected), where + ": silu_gate");
    scalar.relu2_gate(x.data(), weight.data(), n, expected.data());
    kernels.relu2_gate(x.data(), weight.data(), n, out.data());
    CHECK(out.same_bits(expected), where + ": relu2_gate");
    scalar.add(expected.data(), x.data(), n);
    kernels.add(out.data(), x.data(), n);
    CHECK(out.same_bits(expected), where + ": add");
    scalar.rotate(expected.data(), weight.data(), x.data(), count / 2);
    kernels.rotate(out.data(), weight.data(), x.data(), count / 2);
    CHECK(out.same_bits(expected), where + ": rotate");
    return 7;
}

// Random bits of a type, without infinities and NaN: subnormals of float16 among them.
static void fill_dense(const Array<unsigned char>& data, DType type, Random& random) {
    for (std::size_t i = 0; i < data.size() / size_of(type); ++i) {
        if (type == DType::f32) {
            const float value = random.real();
            std::memcpy(data.data() + 4 * i, &value, 4);
        } else {
            auto bits = static_cast<std::uint16_t>(random.bits());
            if (type == DType::f16 && (bits >> 10 & 31) == 31) bits &= 0xBFFF;
            if (type == DType::bf16)  // exponents from 2^-20 to 2^10
                bits = static_cast<std::uint16_t>((bits & 0x807F) | random.integer(107, 137) << 7);
            std::memcpy(data.data() + 2 * i, &bits, 2);
        }
    }
}

static long check_dense(const Kernels& kernels, DType type, int k, int m, Random& random) {
    const int rows = 48, begin = 8, end = random.integer(9, 48);
    const std::string where = std::string(kernels.name) + " dense of type " +
                              std::to_string(static_cast<int>(type)) + ", rows " + std::to_string(begin) +
                              " to " + std::to_string(end) + ", K " + std::to_string(k) + ", M " +
                              std::to_string(m);
    const Array<unsigned char> data(static_cast<std::size_t>(rows) * k * size_of(type));
    fill_dense(data, type, random);
    const DenseMatrix w{rows, k, type, data.data()};
    const int x_stride = k + 16, stride = rows + 1;
    const Array<float> x(static_cast<std::size_t>(m - 1) * x_stride + k),
        y(static_cast<std::size_t>(m) * stride), expected(y.size()), row(k), expected_row(k);
    fill(x, static_cast<int>(x.size()), Values::usual, random);
    y.fill(-7.0f);
    expected.fill(-7.0f);
    kernels_scalar().dense(w, begin, end, x.data(), x_stride, m, expected.data(), stride);
    kernels.dense(w, begin, end, x.data(), x_stride, m, y.data(), stride);
    CHECK(y.same_bits(expected), where);
    kernels_scalar().load_row(w, rows - 1, expected_row.data());
    kernels.load_row(w, rows - 1, row.data());
    CHECK(row.same_bits(expected_row), where + ": load_row");
    return 2;
}

// Keys and values into pages that lie in any order, then queries at neighbouring positions of one sequence:
// together, in pieces, and, in the scalar table, each alone.
static long check_attention(const Kernels& kernels, CacheType type, int head_dim, int queries, int shortest,
                            float scale, Random& random) {
    const std::string where = std::string(kernels.name) + " attention, type " +
                              std::to_string(static_cast<int>(type)) + ", head_dim " +
                              std::to_string(head_dim) + ", " + std::to_string(queries) +
                              " queries, length " + std::to_string(shortest);
    const CacheLayout layout(type, head_dim);
    const int longest = shortest + queries - 1, count = (longest + page_positions - 1) / page_positions;
    const auto page_floats = static_cast<std::size_t>(layout.region_bytes / 4);
    const Array<float> pages(count * page_floats), same_pages(count * page_floats);
    std::vector<std::int32_t> table;
    for (int i = 0; i < count; ++i) table.push_back((i + 1) % count);
    const Array<float> vectors(static_cast<std::size_t>(2) * head_dim);
    for (int p = 0; p < longest; ++p) {
        for (std::size_t i = 0; i < vectors.size(); ++i) vectors[i] = random.real();
        const auto region = [&](const Array<float>& to) {
            return reinterpret_cast<char*>(to.data() + table[p / page_positions] * page_floats);
        };
        kernels.cache_position(layout, region(pages), p % page_positions, vectors.data(),
                               vectors.data() + head_dim);
        kernels_scalar().cache_position(layout, region(same_pages), p % page_positions, vectors.data(),
                                        vectors.data() + head_dim);
    }
    CHECK(pages.same_bits(same_pages), where);
    const Array<float> query(static_cast<std::size_t>(queries) * head_dim), out(query.size()),
        merged(query.size()), expected(query.size());
    fill(query, static_cast<int>(query.size()), Values::usual, random);
    const Array<float> scratch(static_cast<std::size_t>(attention_scratch(layout)));

    AttentionTask task{};
    task.layout = &layout;
    task.base = reinterpret_cast<const char*>(pages.data());
    task.page_bytes = layout.region_bytes;
    task.pages = table.data();
    task.scale = scale;
    task.scratch = scratch.data();
    for (int q = 0; q < queries; ++q) {
        task.queries = 1;
        task.query[0] = query.data() + q * head_dim;
        task.out[0] = expected.data() + q * head_dim;
        task.length[0] = shortest + q;
        kernels_scalar().attention(task);
    }
    task.queries = queries;
    for (int q = 0; q < queries; ++q) {
        task.query[q] = query.data() + q * head_dim;
        task.out[q] = out.data() + q * head_dim;
        task.length[q] = shortest + q;
    }
    kernels.attention(task);
    CHECK(out.same_bits(expected), where);

    const int pieces = (longest + piece_positions - 1) / piece_positions,
              state = attention_state(layout.value_width);
    const Array<float> states(static_cast<std::size_t>(queries) * pieces * state);
    for (task.piece = pieces - 1; task.piece >= 0; --task.piece) {
        for (int q = 0; q < queries; ++q) task.state[q] = states.data() + (q * pieces + task.piece) * state;
        kernels.attention(task);
    }
    for (int q = 0; q < queries; ++q)
        kernels.merge_attention(layout, states.data() + q * pieces * state,
                                (shortest + q + piece_positions - 1) / piece_positions,
                                merged.data() + q * head_dim);
    CHECK(merged.same_bits(expected), where + ", in pieces");
    return 1;
}

long check_float_kernels(const Kernels& kernels, bool quick) {
    Random random(2);
    long checks = 0;
    for (int round = 0; round < (quick ? 2 : 20); ++round)
        for (int count : {1, 15, 16, 17, 60, 131, 2560})
            for (Values values : all_values) checks += check_rows(kernels, count, values, random);
    for (DType type : {DType::f32, DType::f16, DType::bf16})
        for (int m : {1, 2, 3, 5, 6, 7, 12, 13})
            for (int k : {16, 48, 208}) checks += check_dense(kernels, type, k, m, random);
    for (int head_dim : {2, 6, 12, 34, 64, 80, 128})
        for (int queries = 1; queries <= kernels.query_tile; ++queries)
            for (int length : {1, 2, 15, 16, 17, 33, 70, 255, 513})
                for (CacheType type : {CacheType::f32, CacheType::f16, CacheType::int8, CacheType::int4})
                    checks += check_attention(kernels, type, head_dim, queries, length,
                                              length % 2 ? 0.125f : 8.0f, random);
    return checks;
}

}  // namespace tritwise::checks
