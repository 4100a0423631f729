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

static std::uint64_t load_bytes(const std::uint8_t* p) {
    std::uint64_t word;
    std::memcpy(&word, p, sizeof(word));  // little-endian on every processor that this runs on
    return word;
}

// One row of codes + 1 [padded_k] into its five bytes of each block. Triple i holds inputs i, 8 + i and 16 +
// i of a block as v = w0 + 3 w1 + 9 w2, -13..13: bit 7 - i of the first byte is set where v < 0, and a nibble
// of the others is |v|, the lower one first. Eight triples at a time in the bytes of a word; none carries
// into the next.
static void pack_three(const std::uint8_t* fields, std::int64_t padded_k, std::uint8_t* to) {
    constexpr std::uint64_t ones = 0x0101010101010101;
    for (std::int64_t i = 0; i < padded_k; i += 24, to += block_bytes(TernaryPacking::three_in_five_bits)) {
        std::uint64_t f[3];
        for (int j = 0; j < 3; ++j) f[j] = load_bytes(fields + i + 8 * j);
        const std::uint64_t moved = f[0] + 3 * f[1] + 9 * f[2] + ones * 115;  // v + 128
        const std::uint64_t negative = ~moved >> 7 & ones;
        // The lower seven bits hold v, or 128 + v below zero: the complement of that is |v| - 1.
        const std::uint64_t size = ((moved ^ negative * 0x7F) & ones * 0x7F) + negative;
        const std::uint64_t pairs = size | size >> 4;  // bytes 0, 2, 4, 6: two triples each
        // Byte i of `negative` to bit 7 - i of the uppermost byte: 2^(8 i) times 2^(63 - 9 i).
        to[0] = static_cast<std::uint8_t>(negative * 0x8040201008040201 >> 56);
        for (int j = 0; j < 4; ++j) to[group_rows * (1 + j)] = static_cast<std::uint8_t>(pairs >> 16 * j);
    }
}

void repack_ternary(const std::uint8_t* source, std::int64_t stripes, std::int64_t k, TernaryPacking packing,
                    std::uint8_t* groups, std::int64_t padded_k, std::int64_t first, std::int64_t begin,
                    std::int64_t end) {
    const std::int64_t blocks = padded_k / block_inputs(packing), size = block_bytes(packing);
    std::vector<std::uint8_t> fields(padded_k, 0), bytes(blocks * 4);
    for (std::int64_t i = begin; i < end; ++i) {
        const std::uint8_t* from = source + i % stripes * k;
        const int shift = static_cast<int>(i / stripes) * 2;
        for (std::int64_t j = 0; j < k; ++j) fields[j] = from[j] >> shift & 3;
        const std::int64_t row = first + i, lane = row % group_rows;
        std::uint8_t* to = groups + row / group_rows * blocks * size;
        if (packing == TernaryPacking::three_in_five_bits) {
            pack_three(fields.data(), padded_k, to + lane);
        } else {
            (packing == TernaryPacking::four_a_byte ? pack_four : pack_five)(fields.data(), padded_k,
                                                                             bytes.data());
            for (std::int64_t block = 0; block < blocks; ++block, to += size)
                std::memcpy(to + lane * 4, bytes.data() + block * 4, 4);
        }
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
