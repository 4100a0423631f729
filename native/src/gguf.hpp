// Ternary types of GGUF files to Hugging Face's row stripes. src/tritwise/formats/gguf_types.py draws the layouts.
#pragma once

#include <cstdint>
#include <string>

namespace tritwise {

enum class GgufType { tq1_0, tq2_0, i2_s, iq1_bn, iq2_bn, iq2_bn_r4 };

// Throws std::invalid_argument for another name.
GgufType gguf_type(const std::string& name);

// Bytes of a matrix [rows, k]; -1 where k or rows do not fill whole blocks.
std::int64_t gguf_bytes(GgufType type, std::int64_t rows, std::int64_t k);

// Codes + 1 of a matrix [rows, k] to packed [ceil(rows / 4), k], on `threads` threads; scales are not looked at.
// `head_dim` > 0: rows lie as llama.cpp turns them, both halves of a head of so many rows by turns, and are put back in
// order. Whether every field was 0, 1 or 2.
bool unpack_gguf(GgufType type, const std::uint8_t* data, std::int64_t rows, std::int64_t k, std::int64_t head_dim,
                 std::uint8_t* packed, int threads);

}  // namespace tritwise
