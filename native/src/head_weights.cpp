#include "head_weights.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "packing.hpp"

namespace tritwise {

static constexpr struct {
    HeadKind kind;
    const char* name;
} head_names[] = {{HeadKind::stored, "stored"}, {HeadKind::f16, "f16"}, {HeadKind::int8, "int8"},
                  {HeadKind::int4, "int4"}};

HeadKind head_kind_named(const std::string& name) {
    std::string names;
    for (const auto& each : head_names) {
        if (name == each.name) return each.kind;
        names += (names.empty() ? "'" : ", '") + std::string(each.name) + "'";
    }
    throw std::invalid_argument("head is '" + name + "', one of " + names + " is needed");
}

const char* name_of(HeadKind kind) {
    for (const auto& each : head_names)
        if (each.kind == kind) return each.name;
    return "";
}

// What went wrong on any thread.
struct Problems {
    std::atomic<bool> unreadable{false}, not_finite{false}, beyond{false};

    void raise(const std::string& name, const char* form) const {
        if (unreadable) throw std::invalid_argument(name + ": its file ended before its last byte");
        if (not_finite) throw std::invalid_argument(name + ": it holds NaN or infinite values");
        if (beyond) throw std::invalid_argument(name + ": its values are beyond the range of a head in " + form);
    }
};

void read_rows(const std::string& name, const RowSource& source, char* to, std::int64_t padded_k,
               const Kernels& kernels, ThreadPool& pool) {
    Problems problems;
    const std::int64_t bytes = source.row_bytes(),
                       stride = padded_k * static_cast<std::int64_t>(size_of(source.type));
    // Blocks that stay in the cache between reading and checking.
    const std::int64_t block = std::max<std::int64_t>(1, (1 << 18) / bytes);
    pool.for_ranges((source.rows + block - 1) / block, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t row = begin * block; row < std::min(end * block, source.rows);) {
            const std::int64_t count = stride == bytes ? std::min(block, source.rows - row) : 1;
            char* at = to + row * stride;
            if (!source.read(row, count, at)) problems.unreadable = true;
            else if (!kernels.all_finite(at, source.type, count * source.k)) problems.not_finite = true;
            row += count;
        }
    });
    problems.raise(name, "");
}

void check_rows(const std::string& name, const RowSource& source, const Kernels& kernels, ThreadPool& pool) {
    Problems problems;
    const std::int64_t bytes = source.row_bytes(), block = std::max<std::int64_t>(1, (1 << 18) / bytes);
    pool.for_ranges((source.rows + block - 1) / block, [&](std::int64_t begin, std::int64_t end, int) {
        std::vector<char> raw(block * bytes);
        for (std::int64_t row = begin * block; row < std::min(end * block, source.rows); row += block) {
            const std::int64_t count = std::min(block, source.rows - row);
            if (!source.read(row, count, raw.data())) problems.unreadable = true;
            else if (!kernels.all_finite(raw.data(), source.type, count * source.k)) problems.not_finite = true;
        }
    });
    problems.raise(name, "");
}

void HeadWeights::make(const std::string& name, const RowSource& source, const Kernels& kernels, ThreadPool& pool) {
    const std::int64_t rows = source.rows, k = source.k, padded = round_up(k, 16),
                       groups = round_up(rows, group_rows) / group_rows, stored = groups * group_rows;
    storage_ = Buffer();
    low_ = Buffer();
    row_values_ = Buffer();
    if (kind == HeadKind::stored) {
        storage_ = Buffer(rows * padded * size_of(source.type), Pages::huge);
        read_rows(name, source, storage_.as<char>(), padded, kernels, pool);
        dense = {static_cast<int>(rows), static_cast<int>(padded), source.type, storage_.as<void>()};
        return;
    }
    float* row_values[6] = {};  // scale, slope, offset, spread, mean, code_spread
    if (kind == HeadKind::f16) {
        storage_ = Buffer(rows * padded * 2, Pages::huge);
        dense = {static_cast<int>(rows), static_cast<int>(padded), DType::f16, storage_.as<void>()};
    } else if (kind == HeadKind::int8) {
        storage_ = Buffer(stored * padded / 2, Pages::huge);
        low_ = Buffer(stored * padded / 2, Pages::huge);
        row_values_ = Buffer(6 * stored * sizeof(float), Pages::huge);
        for (int i = 0; i < 6; ++i) row_values[i] = row_values_.as<float>() + i * stored;
        split = {static_cast<int>(rows),
                 static_cast<int>(padded),
                 storage_.as<std::uint8_t>(),
                 low_.as<std::uint8_t>(),
                 row_values[0],
                 row_values[1],
                 row_values[2],
                 row_values[3],
                 row_values[4],
                 row_values[5]};
    } else {
        chunks = {static_cast<int>(rows), static_cast<int>(padded), nullptr};
        storage_ = Buffer(groups * chunks.group_bytes(), Pages::huge);
        chunks.groups = storage_.as<std::uint8_t>();
    }
    Problems problems;
    const auto size = static_cast<std::int64_t>(size_of(source.type));
    pool.for_ranges(groups, [&](std::int64_t begin, std::int64_t end, int) {
        std::vector<char> block(group_rows * k * size), raw(padded * size, 0);
        std::vector<float> values(padded);
        std::vector<std::int8_t> codes(padded);
        const DenseMatrix one{1, static_cast<int>(padded), source.type, raw.data()};
        for (std::int64_t group = begin; group < end; ++group) {
            const std::int64_t first = group * group_rows, count = std::min<std::int64_t>(group_rows, rows - first);
            if (!source.read(first, count, block.data())) problems.unreadable = true;
            else if (!kernels.all_finite(block.data(), source.type, count * k)) problems.not_finite = true;
            for (std::int64_t i = 0; i < count; ++i) {
                const std::int64_t row = first + i;
                std::memcpy(raw.data(), block.data() + i * k * size, static_cast<std::size_t>(k * size));
                kernels.load_row(one, 0, values.data());
                if (kind == HeadKind::f16) {
                    std::uint16_t* to = storage_.as<std::uint16_t>() + row * padded;
                    kernels.half_row(values.data(), static_cast<int>(padded), to);
                    if (!kernels.all_finite(to, DType::f16, padded)) problems.beyond = true;
                } else if (kind == HeadKind::int8) {
                    std::int32_t ignored;
                    kernels.quantise(values.data(), static_cast<int>(padded), codes.data(), row_values[0] + row,
                                     &ignored);
                    const std::int64_t at = group * group_rows / 2 * padded + i * 4;
                    kernels.split_row(codes.data(), static_cast<int>(padded), static_cast<int>(k),
                                      storage_.as<std::uint8_t>() + at, low_.as<std::uint8_t>() + at,
                                      row_values[1] + row, row_values[2] + row, row_values[3] + row,
                                      row_values[4] + row, row_values[5] + row);
                } else {
                    std::uint8_t* to = storage_.as<std::uint8_t>() + group * chunks.group_bytes();
                    kernels.chunk_row(values.data(), static_cast<int>(padded), to, static_cast<int>(i));
                    for (std::int64_t at = 0; at < chunks.group_bytes(); at += chunk_bytes)
                        if (!kernels.all_finite(to + at + 2 * i, DType::f16, 1)) problems.beyond = true;
                }
            }
        }
    });
    problems.raise(name, name_of(kind));
}

std::int64_t HeadWeights::bytes() const {
    return static_cast<std::int64_t>(storage_.bytes() + low_.bytes() + row_values_.bytes());
}

}  // namespace tritwise
