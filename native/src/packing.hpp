// From the layouts of files to the layouts that the kernels read (native/README.md draws them).
#pragma once

#include <cstdint>

#include "kernels.hpp"

namespace tritwise {

inline std::int64_t packed_stripes(std::int64_t rows) {
    return (rows + 3) / 4;
}  // R, the rows of a packed array

// Whether any 2-bit field among `bytes` bytes holds 3, which no code has.
bool has_field_three(const std::uint8_t* packed, std::int64_t bytes);

// Whether field `field` (0 to 3) of any of the bytes stands for the code 0.
bool has_code_zero(const std::uint8_t* packed, std::int64_t bytes, int field);

// Bytes of a TernaryMatrix in groups.
inline std::int64_t ternary_bytes(std::int64_t rows, std::int64_t k, TernaryPacking packing) {
    return rows / group_rows * (k / block_inputs(packing)) * block_bytes(packing);
}
inline std::int64_t ternary_bytes(const TernaryMatrix& w, TernaryPacking packing) {
    return w.by_input ? w.k * input_bytes(w.rows) : ternary_bytes(w.rows, w.k, packing);
}

// Rows of a Hugging Face packed array [stripes, k] to the groups of a TernaryMatrix whose K is `padded_k`.
// Row `first + i` of the matrix becomes row i of the source, for i in [begin, end). Fields beyond k are zero.
void repack_ternary(const std::uint8_t* source, std::int64_t stripes, std::int64_t k, TernaryPacking packing,
                    std::uint8_t* groups, std::int64_t padded_k, std::int64_t first, std::int64_t begin,
                    std::int64_t end);

// The same to a TernaryMatrix by input whose K is `padded_k`, slabs [begin, end) of `rows` rows. Fields of rows that do
// not exist are zero.
void repack_by_input(const std::uint8_t* source, std::int64_t rows, std::int64_t k, std::uint8_t* packed,
                     std::int64_t padded_k, std::int64_t begin, std::int64_t end);

// The codes of one token into column `column` of a quad layout. k is a multiple of 4; null codes store zeros.
void store_quad_column(const std::int8_t* codes, std::int64_t k, std::int8_t* quads, std::int64_t column);

}  // namespace tritwise
