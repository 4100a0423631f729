// Integer products of one table against the scalar one: every result exactly, nothing written beside it.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "checks.hpp"
#include "memory.hpp"
#include "packing.hpp"

namespace tritwise::checks {

static const std::vector<int> token_counts = {1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 33};

enum class Fill { random, largest, smallest, opposed };

// Codes and fields at their bounds make the sums largest; what an int16 between cannot hold shows here.
static int code_of(Fill fill, Random& random, std::int64_t k) {
    switch (fill) {
        case Fill::random: return random.integer(-128, 127);
        case Fill::largest: return 127;
        case Fill::smallest: return -128;
        case Fill::opposed: return k % 2 ? 127 : -128;
    }
    return 0;
}

static const char* name_of(Fill fill) {
    return fill == Fill::random     ? "random"
           : fill == Fill::largest  ? "largest"
           : fill == Fill::smallest ? "smallest"
                                    : "opposed";
}

// M tokens of `inputs` codes each, quantised, as a kernel wants them: K padded to whole blocks of its packing.
struct Tokens {
    Tokens(const std::vector<std::int8_t>& values, int m, int inputs, const Kernels& kernels)
        : k(static_cast<int>(round_up(inputs, block_inputs(kernels.packing)))),
          codes(k),
          quads(static_cast<std::size_t>(round_up(m, quad)) * k),
          sum(m) {
        for (int t = m; t-- > 0;) {  // the first token last: `codes` keeps it
            std::memcpy(codes.data(), values.data() + static_cast<std::size_t>(t) * inputs, inputs);
            for (int i = 0; i < inputs; ++i) sum[t] += codes[i];
            store_quad_column(codes.data(), k, quads.data(), t);
        }
    }
    int k;
    Array<std::int8_t> codes, quads;
    Array<std::int32_t> sum;
};

static long check_ternary(const Kernels& kernels, int groups, int inputs, int m, Fill fill, Random& random) {
    const std::string where = std::string(kernels.name) + " ternary, " + std::to_string(groups) +
                              " groups, K " + std::to_string(inputs) + ", M " + std::to_string(m) + ", " +
                              name_of(fill);
    const int rows = groups * group_rows;
    Array<std::uint8_t> stripes(static_cast<std::size_t>(packed_stripes(rows)) * inputs);
    for (std::size_t i = 0; i < stripes.size(); ++i) {
        int byte = 0;
        for (int field = 0; field < 4; ++field) {
            const int value = fill == Fill::random    ? random.integer(0, 2)
                              : i % 3                 ? 2
                              : fill == Fill::opposed ? 0
                                                      : 2;
            byte |= value << 2 * field;
        }
        stripes[i] = static_cast<std::uint8_t>(byte);
    }
    std::vector<std::int8_t> values(static_cast<std::size_t>(m) * inputs);
    for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = static_cast<std::int8_t>(code_of(fill, random, static_cast<int>(i % inputs)));
    Array<float> row_scale(rows), x_scale(m);
    for (int i = 0; i < rows; ++i) row_scale[i] = random.real();
    for (int i = 0; i < m; ++i) x_scale[i] = random.real();

    const int stride = rows + random.integer(0, 5);
    const int begin = groups > 1 ? 1 : 0;  // not the first group, so that what lies before it must stay
    Array<float> y(static_cast<std::size_t>(m) * stride), expected_y(y.size());
    Array<std::int32_t> acc(y.size()), expected_acc(y.size());
    const auto run = [&](const Kernels& table, Array<float>* floats, Array<std::int32_t>* sums) {
        const Tokens x(values, m, inputs, table);
        Array<std::uint8_t> packed(ternary_bytes(rows, x.k, table.packing));
        repack_ternary(stripes.data(), packed_stripes(rows), inputs, table.packing, packed.data(), x.k, 0, 0,
                       rows);
        Array<std::uint8_t> scratch(ternary_scratch(x.k, m));
        if (floats) floats->fill(-7.0f);
        if (sums) sums->fill(-7);
        table.ternary({rows, x.k, packed.data(), row_scale.data()}, begin, groups,
                      {m, x.k, x.codes.data(), x.quads.data(), x_scale.data(), x.sum.data()},
                      {floats ? floats->data() : nullptr, sums ? sums->data() : nullptr, stride}, scratch.data());
    };
    run(kernels_scalar(), &expected_y, &expected_acc);
    run(kernels, &y, &acc);
    CHECK(acc.same_bits(expected_acc), where);
    CHECK(y.same_bits(expected_y), where);
    run(kernels, &y, nullptr);
    CHECK(y.same_bits(expected_y), where + ", floats only");
    run(kernels, nullptr, &acc);
    CHECK(acc.same_bits(expected_acc), where + ", sums only");
    return 4;
}

// A matrix by input: some inputs of one token, and many tokens, against the same matrix in the scalar kernel's groups.
static long check_by_input(const Kernels& kernels, int rows, int inputs, int m, int listed, Fill fill, Random& random) {
    const std::string where = std::string(kernels.name) + " by input, " + std::to_string(rows) + " rows, K " +
                              std::to_string(inputs) + ", M " + std::to_string(m) + ", " + std::to_string(listed) +
                              " listed, " + name_of(fill);
    const int padded = static_cast<int>(round_up(rows, group_rows)), groups = padded / group_rows;
    Array<std::uint8_t> stripes(static_cast<std::size_t>(packed_stripes(rows)) * inputs);
    for (std::size_t i = 0; i < stripes.size(); ++i) {
        int byte = 0;
        for (int field = 0; field < 4; ++field) byte |= (fill == Fill::random ? random.integer(0, 2) : 2) << 2 * field;
        stripes[i] = static_cast<std::uint8_t>(byte);
    }
    std::vector<std::int8_t> values(static_cast<std::size_t>(m) * inputs);
    for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = static_cast<std::int8_t>(code_of(fill, random, static_cast<int>(i % inputs)));
    Array<float> row_scale(padded), x_scale(m);
    for (int i = 0; i < rows; ++i) row_scale[i] = random.real();
    for (int i = 0; i < m; ++i) x_scale[i] = random.real();

    // Many tokens.
    Array<float> y(static_cast<std::size_t>(m) * padded), expected(y.size());
    Array<std::int32_t> acc(y.size()), expected_acc(y.size());
    const auto run = [&](const Kernels& table, bool by_input, Array<float>& floats, Array<std::int32_t>& sums) {
        const Tokens x(values, m, inputs, table);
        Array<std::uint8_t> packed(by_input ? x.k * input_bytes(padded) : ternary_bytes(padded, x.k, table.packing));
        if (by_input)
            repack_by_input(stripes.data(), rows, inputs, packed.data(), x.k, 0, (rows + slab_rows - 1) / slab_rows);
        else
            repack_ternary(stripes.data(), packed_stripes(rows), inputs, table.packing, packed.data(), x.k, 0, 0, rows);
        Array<std::uint8_t> scratch(ternary_scratch(x.k, m));
        table.ternary({padded, x.k, packed.data(), row_scale.data(), by_input}, 0, groups,
                      {m, x.k, x.codes.data(), x.quads.data(), x_scale.data(), x.sum.data()},
                      {floats.data(), sums.data(), padded}, scratch.data());
        if (!by_input) return;
        // Some inputs of one token: two threads take parts of the list, one of them in two calls.
        std::vector<std::int32_t> list;
        for (int i = 0; i < inputs; ++i)
            if (static_cast<int>((i * 7919ll) % inputs) < listed) list.push_back(i);
        Array<std::int8_t> codes(x.k);
        std::memset(codes.data(), 0, codes.size());
        for (const int i : list) codes[i] = x.codes[i];
        std::erase_if(list, [&](int i) { return codes[i] == 0; });
        Array<std::int32_t> found(x.k + list_room);
        const int many = table.list_inputs(codes.data(), x.k, found.data());
        CHECK(many == static_cast<int>(list.size()) && std::equal(list.begin(), list.end(), found.data()), where);
        const TernaryMatrix w{padded, x.k, packed.data(), row_scale.data(), true};
        const std::int64_t stride = 4 * input_bytes(padded);
        Array<std::int32_t> total(2 * stride), some_acc(padded);
        Array<float> some(padded);
        std::memset(total.data(), 0, total.size() * 4);
        for (int round = 0; round < 2; ++round) {  // the sums are zero again after the first
            const int count = static_cast<int>(list.size()), parts[] = {0, count / 3, count / 2, count};
            for (int i = 0; i < 3; ++i)
                table.add_inputs(w, list.data() + parts[i], parts[i + 1] - parts[i], x.codes.data(),
                                 total.data() + i % 2 * stride);
            table.collect_inputs(w, total.data(), 2, stride, 0.75f, -100, some.data(), round ? some_acc.data() : nullptr);
        }
        for (int n = 0; n < rows; ++n) {
            std::int64_t sum = 100;
            for (const int i : list)
                sum += (stripes[n % packed_stripes(rows) * inputs + i] >> n / packed_stripes(rows) * 2 & 3) *
                       std::int64_t{x.codes[i]};
            CHECK(some_acc[n] == sum, where + ", row " + std::to_string(n));
            CHECK(some[n] == static_cast<float>(sum) * (0.75f * row_scale[n]), where + ", row " + std::to_string(n));
        }
        for (std::size_t i = 0; i < total.size(); ++i) CHECK(total[i] == 0, where);
    };
    run(kernels_scalar(), false, expected, expected_acc);
    run(kernels, true, y, acc);
    for (int t = 0; t < m; ++t) {
        CHECK(!std::memcmp(&acc[t * padded], &expected_acc[t * padded], rows * 4), where);
        CHECK(!std::memcmp(&y[t * padded], &expected[t * padded], rows * 4), where);
    }
    return 3;
}

// A kernel may keep in its scratch what it made of the inputs: other inputs of the same shape, another number
// of tokens in between, and runs of rows must not show it.
static long check_scratch(const Kernels& kernels, Random& random) {
    constexpr int groups = 3, rows = groups * group_rows, inputs = 131, most = 9;
    Array<std::uint8_t> stripes(static_cast<std::size_t>(packed_stripes(rows)) * inputs);
    for (std::size_t i = 0; i < stripes.size(); ++i)
        for (int field = 0; field < 4; ++field)
            stripes[i] |= static_cast<std::uint8_t>(random.integer(0, 2) << 2 * field);
    Array<float> row_scale(rows), x_scale(most);
    const auto packed_for = [&](const Kernels& table) {
        const auto k = round_up(inputs, block_inputs(table.packing));
        auto packed = std::make_unique<Array<std::uint8_t>>(ternary_bytes(rows, k, table.packing));
        repack_ternary(stripes.data(), packed_stripes(rows), inputs, table.packing, packed->data(), k, 0, 0,
                       rows);
        return packed;
    };
    const auto packed = packed_for(kernels), expected_packed = packed_for(kernels_scalar());
    const auto scratch_bytes = ternary_scratch(round_up(inputs, 48), most);
    Array<std::uint8_t> scratch(scratch_bytes), scalar_scratch(scratch_bytes);
    long checks = 0;
    const auto check = [&](const std::vector<std::int8_t>& values, int m) {
        Array<std::int32_t> acc(static_cast<std::size_t>(m) * rows), expected(acc.size());
        const auto run = [&](const Kernels& table, const Array<std::uint8_t>& weights, int begin, int end,
                             Array<std::int32_t>& to, std::uint8_t* work) {
            const Tokens x(values, m, inputs, table);
            table.ternary({rows, x.k, weights.data(), row_scale.data()}, begin, end,
                          {m, x.k, x.codes.data(), x.quads.data(), x_scale.data(), x.sum.data()},
                          {nullptr, to.data(), rows}, work);
        };
        run(kernels_scalar(), *expected_packed, 0, groups, expected, scalar_scratch.data());
        for (int group = 0; group < groups; ++group)
            run(kernels, *packed, group, group + 1, acc, scratch.data());
        CHECK(acc.same_bits(expected), std::string(kernels.name) + " scratch, M " + std::to_string(m));
        ++checks;
    };
    for (int m : {1, 2, 4, 5, 8, most, 1, 2, 4, 7}) {
        std::vector<std::int8_t> values(static_cast<std::size_t>(m) * inputs);
        for (std::int8_t& value : values) value = static_cast<std::int8_t>(random.integer(-128, 127));
        check(values, m);
        check(values, m);
        values.back() = static_cast<std::int8_t>(~values.back());
        check(values, m);
        check(std::vector<std::int8_t>(static_cast<std::size_t>(most) * inputs, 1), most);
        check(values, m);
    }
    return checks;
}

// A head of random codes and floats: both products, and the search's two parts, against the scalar kernel.
static long check_head(const Kernels& kernels, int rows, int k, int m, Fill fill, Random& random) {
    const std::string where = std::string(kernels.name) + " head, " + std::to_string(rows) + " rows, K " +
                              std::to_string(k) + ", M " + std::to_string(m) + ", " + name_of(fill);
    const int groups = (rows + group_rows - 1) / group_rows, stored = groups * group_rows;
    const int chunks = (k + chunk_k - 1) / chunk_k;
    Array<std::uint8_t> high(static_cast<std::size_t>(stored) * k / 2), low(high.size());
    Array<float> row_scale(stored), slope(stored), offset(stored), spread(stored), mean(stored),
        code_spread(stored), values(k);
    Array<std::uint8_t> nibbles(static_cast<std::size_t>(groups) * chunks * chunk_bytes);
    Array<std::int8_t> row(k);
    for (int i = 0; i < rows; ++i) {
        const std::size_t at = static_cast<std::size_t>(i / group_rows) * group_rows / 2 * k + i % group_rows * 4;
        for (int j = 0; j < k; ++j) {
            row[j] = static_cast<std::int8_t>(std::max(-127, code_of(fill, random, j)));
            values[j] = static_cast<float>(row[j]) * 0.125f;
        }
        kernels.split_row(row.data(), k, k, high.data() + at, low.data() + at, slope.data() + i,
                          offset.data() + i, spread.data() + i, mean.data() + i, code_spread.data() + i);
        kernels.chunk_row(values.data(), k,
                          nibbles.data() + static_cast<std::size_t>(i / group_rows) * chunks * chunk_bytes,
                          i % group_rows);
        row_scale[i] = 0.01f + std::fabs(random.real());
    }
    Array<float> scale(m);
    Array<std::int8_t> quads(static_cast<std::size_t>(round_up(2 * m, quad)) * k);
    Array<std::int8_t> high_codes(static_cast<std::size_t>(m == 1 ? 1 : round_up(m, quad)) * k);
    Array<std::int32_t> sum(2 * m), chunk_sum(2 * m * chunks);
    std::vector<float> width(2 * m);  // 8 |128 hi| and 8 |lo|
    for (int column = 0; column < 2 * m; ++column) {
        double squares = 0;
        for (int j = 0; j < k; ++j) {
            const int code = code_of(fill, random, j);
            row[j] = static_cast<std::int8_t>(column % 2 ? std::clamp(code, -64, 63) : std::max(-127, code));
            sum[column] += row[j];
            squares += row[j] * row[j];
            chunk_sum[column * chunks + j / chunk_k] += row[j];
        }
        width[column] = static_cast<float>((column % 2 ? 8 : 8 * 128) * std::sqrt(squares));
        store_quad_column(row.data(), k, quads.data(), column);
        if (m == 1 && !column) std::memcpy(high_codes.data(), row.data(), k);
        if (m > 1 && column % 2 == 0) store_quad_column(row.data(), k, high_codes.data(), column / 2);
        scale[column / 2] = random.real();
    }
    // clang-format off
    const SplitMatrix w{rows, k, high.data(), low.data(), row_scale.data(), slope.data(), offset.data(),
                        spread.data(), mean.data(), code_spread.data()};
    // clang-format on
    const ChunkMatrix w4{rows, k, nibbles.data()};
    const PlaneRows x{m, quads.data(), scale.data(), sum.data(), chunk_sum.data(), high_codes.data()};
    // The last token's row ends where the rows do: the padding of the last group must not be written.
    const int stride = rows + random.integer(0, 3);
    Array<float> y(static_cast<std::size_t>(m - 1) * stride + rows), expected(y.size());
    const int begin = groups > 2 ? 1 : 0;
    const auto both = [&](auto&& run) {
        y.fill(-7.0f);
        expected.fill(-7.0f);
        run(kernels_scalar(), expected.data());
        run(kernels, y.data());
        CHECK(y.same_bits(expected), where);
    };
    both([&](const Kernels& use, float* to) { use.head4(w4, begin, groups, x, to, stride); });
    both([&](const Kernels& use, float* to) { use.head8(w, begin, groups, x, to, stride); });
    // The same logits, sixteen rows and one token at a time.
    for (int block = 2 * begin; block * exact_rows < rows; ++block) {
        const int token = block % m;
        std::int32_t sums[2][group_rows];
        kernels.exact_sums(w, block, x, token, sums);
        for (int i = 0; i < exact_rows && block * exact_rows + i < rows; ++i) {
            const int at = block * exact_rows + i;
            const float both_planes =
                std::fma(static_cast<float>(sums[0][i]), 128.0f, static_cast<float>(sums[1][i]));
            CHECK(both_planes * (scale[token] * row_scale[at]) == y[token * stride + at],
                  where + ", exact rows");
        }
    }
    if (m > coarse_tokens) return 3;
    Array<CoarseRow> found(static_cast<std::size_t>(2 * m) * rows);
    std::vector<CoarseSearch> searches;
    for (int i = 0; i < 2 * m; ++i)
        searches.push_back({width[i % m * 2], width[i % m * 2 + 1], -1e30f, 0, &found[i * rows]});
    kernels_scalar().coarse(w, begin, groups, x, searches.data());
    kernels.coarse(w, begin, groups, x, searches.data() + m);
    for (int t = 0; t < m; ++t) {
        const CoarseSearch &a = searches[t], &b = searches[m + t];
        CHECK(a.count > 0 && a.count == b.count && a.bound == b.bound, where + ", search");
        CHECK(!std::memcmp(a.found, b.found, a.count * sizeof(CoarseRow)), where + ", candidates");
        // Codes of tokens that know nothing of the rows keep to their margins, and the best row is found.
        if (fill != Fill::random) continue;
        std::vector<bool> kept(rows);
        double best = -1e300;
        int best_row = -1;
        for (const CoarseRow* c = b.found; c != b.found + b.count; ++c) kept[c->row] = true;
        for (int row = begin * group_rows; row < rows; ++row) {
            std::int32_t sums[2][group_rows];
            kernels_scalar().exact_sums(w, row / exact_rows, x, t, sums);
            const double exact =
                (128.0 * sums[0][row % exact_rows] + sums[1][row % exact_rows]) * row_scale[row];
            if (exact > best) best = exact, best_row = row;
            for (const CoarseRow* c = b.found; c != b.found + b.count; ++c)
                CHECK(c->row != row || std::fabs(exact - c->estimate) <= c->upper - c->estimate,
                      where + ", margin");
        }
        CHECK(kept[best_row], where + ", best row");
    }
    return 5;
}

static long check_read(const Kernels& kernels, Random& random) {
    long checks = 0;
    for (std::size_t blocks : {0, 1, 2, 7}) {
        Array<std::uint64_t> words(blocks *
                                   32);  // whole pieces of 256 bytes, as the bandwidth test gives them
        std::uint64_t expected = 0;
        for (std::size_t i = 0; i < words.size(); ++i) expected ^= words[i] = random.bits();
        CHECK(kernels.read(words.data(), words.size() * 8) == expected, kernels.name);
        ++checks;
    }
    return checks;
}

long check_integer_kernels(const Kernels& kernels, bool quick) {
    Random random(1);
    long checks = 0;
    for (int m : token_counts)
        for (int k : {1, 16, 20, 24, 37, 112, 523, 1300})
            checks += check_ternary(kernels, 1 + m % 3, k, m, Fill::random, random);
    for (Fill fill : {Fill::largest, Fill::smallest, Fill::opposed}) {
        for (int m : {1, 2, 6, 11, 14}) checks += check_ternary(kernels, 1, 1040, m, fill, random);
        // The longest K that a model may have.
        if (!quick)
            for (int m : {1, 5, 13}) checks += check_ternary(kernels, 1, 1 << 18, m, fill, random);
    }
    for (int m : token_counts)
        for (int k : {16, 32, 48, 112, 528})
            checks += check_head(kernels, std::vector{1, 31, 32, 33, 63, 70, 96, 101}[(m + k) % 8], k, m,
                                  Fill::random, random);
    for (Fill fill : {Fill::largest, Fill::smallest, Fill::opposed})
        for (int m : {1, 2, 7, 9}) {
            checks += check_head(kernels, 33, 1040, m, fill, random);
            if (!quick) checks += check_head(kernels, 32, 65536, m, fill, random);
        }
    for (int m : token_counts)
        for (int k : {1, 16, 37, 130})
            checks += check_by_input(kernels, std::vector{1, 31, 32, 100, 128, 130, 256, 300}[(m + k) % 8], k, m,
                                     std::vector{0, 1, 3, k / 3, k}[(m + 3 * k) % 5], Fill::random, random);
    for (Fill fill : {Fill::largest, Fill::smallest, Fill::opposed})
        checks += check_by_input(kernels, 70, quick ? 300 : 1 << 18, 1, quick ? 300 : 1 << 18, fill, random);
    checks += check_scratch(kernels, random);
    return checks + check_read(kernels, random);
}

}  // namespace tritwise::checks
