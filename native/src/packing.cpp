#include "packing.hpp"

#include <cstring>
#include <vector>

namespace tritwise {

bool has_field_three(const std::uint8_t* packed, std::int64_t bytes) {
    std::uint8_t threes = 0;
    for (std::int64_t i = 0; i < bytes; ++i) threes |= packed[i] & packed[i] >> 1 & 0x55;
    return threes != 0;
}

bool has_code_zero(const std::uint8_t* packed, std::int64_t bytes, int field) {
    int zeros = 0;
    for (std::int64_t i = 0; i < bytes; ++i) zeros |= (packed[i] >> 2 * field & 3) == 1;
    return zeros != 0;
}

// One row of codes + 1 [padded_k] into its bytes [padded_k / 4]: byte j of block b holds inputs 16b + j, + 4, + 8
// and + 12.
static void pack_four(const std::uint8_t* fields, std::int64_t padded_k, std::uint8_t* bytes) {
    for (std::int64_t i = 0; i < padded_k; i += 16, bytes += 4) {
        std::uint32_t codes[4], word = 0;
        std::memcpy(codes, fields + i, sizeof(codes));
        for (int f = 0; f < 4; ++f) word |= codes[f] << 2 * f;
        std::memcpy(bytes, &word, sizeof(word));
    }
}

// One row of codes + 1 [padded_k] into its bytes [padded_k / 5]: byte i holds inputs i, i + K/5, ... i + 4K/5. With v
// the base-3 number of the first four and t the fifth: 64 t + v below 64, else 3 v + t, which is 192 and more.
static void pack_five(const std::uint8_t* fields, std::int64_t padded_k, std::uint8_t* bytes) {
    const std::int64_t step = padded_k / 5;
    for (std::int64_t i = 0; i < step; ++i) {
        const std::uint8_t* f = fields + i;
        const auto v = static_cast<std::uint8_t>(f[0] + 3 * f[step] + 9 * f[2 * step] + 27 * f[3 * step]);
        const std::uint8_t t = f[4 * step];
        bytes[i] = static_cast<std::uint8_t>(v < 64 ? 64 * t + v : 3 * v + t);
    }
}

void repack_ternary(const std::uint8_t* source, std::int64_t stripes, std::int64_t k, TernaryPacking packing,
                    std::uint8_t* groups, std::int64_t padded_k, std::int64_t first, std::int64_t begin,
                    std::int64_t end) {
    const std::int64_t blocks = padded_k / block_inputs(packing);
    std::vector<std::uint8_t> fields(padded_k, 0), bytes(blocks * 4);
    for (std::int64_t i = begin; i < end; ++i) {
        const std::uint8_t* from = source + i % stripes * k;
        const int shift = static_cast<int>(i / stripes) * 2;
        for (std::int64_t j = 0; j < k; ++j) fields[j] = from[j] >> shift & 3;
        (packing == TernaryPacking::four_a_byte ? pack_four : pack_five)(fields.data(), padded_k, bytes.data());
        const std::int64_t row = first + i;
        std::uint8_t* to = groups + row / group_rows * blocks * block_bytes + row % group_rows * 4;
        for (std::int64_t block = 0; block < blocks; ++block, to += block_bytes)
            std::memcpy(to, bytes.data() + block * 4, 4);
    }
}

void repack_by_input(const std::uint8_t* source, std::int64_t rows, std::int64_t k, std::uint8_t* packed,
                     std::int64_t padded_k, std::int64_t begin, std::int64_t end) {
    constexpr int tile = 64;  // inputs that are transposed at once
    constexpr int parts = slab_rows / group_rows;
    const std::int64_t stripes = packed_stripes(rows), stride = input_bytes(rows);
    std::uint8_t bytes[slab_bytes][tile];
    for (std::int64_t slab = begin; slab < end; ++slab) {
        std::uint8_t* to = packed + slab * slab_bytes;
        for (std::int64_t first = 0; first < padded_k; first += tile) {
            const auto width = static_cast<int>(padded_k - first < tile ? padded_k - first : tile);
            const auto known = static_cast<int>(k - first < width ? (k > first ? k - first : 0) : width);
            std::memset(bytes, 0, sizeof(bytes));
            for (int byte = 0; byte < slab_bytes; ++byte) {
                for (int part = 0; part < parts; ++part) {
                    const std::int64_t row = slab * slab_rows + part * group_rows + slab_row(byte);
                    if (row >= rows) continue;
                    const std::uint8_t* from = source + row % stripes * k + first;
                    const int right = static_cast<int>(row / stripes) * 2, left = part * 2;
                    for (int i = 0; i < known; ++i)
                        bytes[byte][i] |= static_cast<std::uint8_t>((from[i] >> right & 3) << left);
                }
            }
            for (int i = 0; i < width; ++i) {
                std::uint8_t* slab_of_input = to + (first + i) * stride;
                for (int byte = 0; byte < slab_bytes; ++byte) slab_of_input[byte] = bytes[byte][i];
            }
        }
    }
}

void store_quad_column(const std::int8_t* codes, std::int64_t k, std::int8_t* quads, std::int64_t column) {
    std::int8_t* to = quads + column / quad * k * quad + column % quad * 4;
    for (std::int64_t i = 0; i < k; i += 4, to += 16) {
        if (codes) std::memcpy(to, codes + i, 4);
        else std::memset(to, 0, 4);
    }
}

}  // namespace tritwise
