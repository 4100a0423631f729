#include "gguf.hpp"

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "packing.hpp"

namespace tritwise {

namespace {

struct Layout {
    std::int64_t inputs, block_bytes, row_bytes, tensor_bytes, rows;
};

Layout layout(GgufType type) {
    switch (type) {
        case GgufType::tq1_0: return {256, 54, 0, 0, 1};
        case GgufType::tq2_0: return {256, 66, 0, 0, 1};
        case GgufType::i2_s: return {128, 32, 0, 32, 1};
        case GgufType::iq1_bn: return {64, 13, 2, 0, 1};
        case GgufType::iq2_bn: return {64, 16, 4, 0, 1};
        case GgufType::iq2_bn_r4: return {64, 16, 4, 0, 4};
    }
    throw std::invalid_argument("no such type");
}

// Digit `place` (0 is the first) of a byte that is a fraction of 256 in base 3.
inline std::uint8_t trit(std::uint8_t byte, std::uint8_t power) {
    return static_cast<std::uint8_t>(static_cast<std::uint8_t>(byte * power) * 3 >> 8);
}

constexpr std::uint8_t powers[5] = {1, 3, 9, 27, 81};

// `count` bytes of `digits` digits each: all first digits, then all second ones.
inline std::uint8_t* trits(const std::uint8_t* bytes, int count, int digits, std::uint8_t* fields) {
    for (int digit = 0; digit < digits; ++digit)
        for (int i = 0; i < count; ++i) *fields++ = trit(bytes[i], powers[digit]);
    return fields;
}

// `count` bytes of four fields each: all lowest fields first, or all highest ones.
inline std::uint8_t* crumbs(const std::uint8_t* bytes, int count, bool lowest_first, std::uint8_t* fields) {
    for (int field = 0; field < 4; ++field) {
        const int shift = lowest_first ? 2 * field : 6 - 2 * field;
        for (int i = 0; i < count; ++i) fields[i] = static_cast<std::uint8_t>(bytes[i] >> shift & 3);
        fields += count;
    }
    return fields;
}

void decode_row(GgufType type, const std::uint8_t* data, std::int64_t row, std::int64_t k, std::uint8_t* fields) {
    const Layout of = layout(type);
    const std::int64_t blocks = k / of.inputs, row_bytes = blocks * of.block_bytes + of.row_bytes;
    if (type == GgufType::iq2_bn_r4) {
        // Four rows: four scales, then for 16 inputs four bytes a row; byte i has inputs i, 4 + i, 8 + i, 12 + i.
        const std::uint8_t* group = data + row / 4 * 4 * row_bytes + 16 + row % 4 * 4;
        for (std::int64_t part = 0; part < k / 16; ++part) fields = crumbs(group + part * 16, 4, true, fields);
        return;
    }
    const std::uint8_t* block = data + row * row_bytes + of.row_bytes;
    for (std::int64_t i = 0; i < blocks; ++i, block += of.block_bytes) {
        switch (type) {
            case GgufType::tq1_0:
                fields = trits(block, 32, 5, fields);
                fields = trits(block + 32, 16, 5, fields);
                fields = trits(block + 48, 4, 4, fields);
                break;
            case GgufType::tq2_0:
                fields = crumbs(block, 32, true, fields);
                fields = crumbs(block + 32, 32, true, fields);
                break;
            case GgufType::i2_s: fields = crumbs(block, 32, false, fields); break;
            case GgufType::iq1_bn:
                // Twelve bytes of five digits, the last one first; the last byte has those behind each fifteen.
                for (int quarter = 0; quarter < 4; ++quarter) {
                    for (int byte = 0; byte < 3; ++byte)
                        for (int digit = 4; digit >= 0; --digit)
                            *fields++ = trit(block[quarter * 3 + byte], powers[digit]);
                    *fields++ = trit(block[12], powers[4 - quarter]);
                }
                break;
            default: fields = crumbs(block, 16, true, fields);
        }
    }
}

// Where row `row` of a matrix lies in the file.
std::int64_t source_row(std::int64_t row, std::int64_t head_dim) {
    if (head_dim == 0) return row;
    const std::int64_t place = row % head_dim, half = head_dim / 2;
    return row - place + place % half * 2 + place / half;
}

}  // namespace

GgufType gguf_type(const std::string& name) {
    const char* names[] = {"TQ1_0", "TQ2_0", "I2_S", "IQ1_BN", "IQ2_BN", "IQ2_BN_R4"};
    for (int i = 0; i < 6; ++i)
        if (name == names[i]) return static_cast<GgufType>(i);
    throw std::invalid_argument("type is '" + name + "', which is no ternary type of GGUF");
}

std::int64_t gguf_bytes(GgufType type, std::int64_t rows, std::int64_t k) {
    const Layout of = layout(type);
    if (rows < 1 || k < 1 || k % of.inputs || rows % of.rows) return -1;
    return rows * (k / of.inputs * of.block_bytes + of.row_bytes) + of.tensor_bytes;
}

bool unpack_gguf(GgufType type, const std::uint8_t* data, std::int64_t rows, std::int64_t k, std::int64_t head_dim,
                 std::uint8_t* packed, int threads) {
    const std::int64_t stripes = packed_stripes(rows);
    std::atomic<bool> valid{true};
    const auto work = [&](std::int64_t begin, std::int64_t end) {
        std::vector<std::uint8_t> fields(static_cast<std::size_t>(k));
        for (std::int64_t stripe = begin; stripe < end; ++stripe) {
            std::uint8_t* const to = packed + stripe * k;
            std::fill_n(to, k, std::uint8_t{0});
            std::uint8_t threes = 0;
            for (int part = 0; part < 4; ++part) {
                const std::int64_t row = part * stripes + stripe;
                if (row >= rows) break;
                decode_row(type, data, source_row(row, head_dim), k, fields.data());
                for (std::int64_t i = 0; i < k; ++i) {
                    threes |= static_cast<std::uint8_t>(fields[i] & fields[i] >> 1);
                    to[i] = static_cast<std::uint8_t>(to[i] | fields[i] << 2 * part);
                }
            }
            if (threes) valid = false;
        }
    };
    std::vector<std::thread> others;
    const std::int64_t share = (stripes + threads - 1) / threads;
    for (std::int64_t begin = share; begin < stripes; begin += share)
        others.emplace_back(work, begin, std::min(begin + share, stripes));
    work(0, std::min(share, stripes));
    for (std::thread& other : others) other.join();
    return valid;
}

}  // namespace tritwise
