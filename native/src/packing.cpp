#include "packing.hpp"

#include <cstring>

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

void repack_ternary(const std::uint8_t* source, std::int64_t stripes, std::int64_t k, std::uint8_t* groups,
                    std::int64_t padded_k, std::int64_t first, std::int64_t begin, std::int64_t end) {
    const std::int64_t blocks = padded_k / block_k;
    for (std::int64_t i = begin; i < end; ++i) {
        const std::uint8_t* from = source + i % stripes * k;
        const int shift = static_cast<int>(i / stripes) * 2;
        const std::int64_t row = first + i;
        std::uint8_t* to = groups + row / group_rows * blocks * 128 + row % group_rows * 4;
        for (std::int64_t block = 0; block < blocks; ++block, to += 128) {
            std::uint32_t codes[4] = {};  // sixteen source bytes, four inputs a word
            const std::int64_t left = k - block * block_k;
            if (left >= block_k) {
                std::memcpy(codes, from + block * block_k, block_k);
            } else if (left > 0) {
                std::memcpy(codes, from + block * block_k, static_cast<std::size_t>(left));
            }
            std::uint32_t word = 0;
            for (int field = 0; field < 4; ++field)
                word |= (codes[field] >> shift & 0x03030303u) << 2 * field;
            std::memcpy(to, &word, 4);
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
