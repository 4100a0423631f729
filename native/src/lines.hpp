// Lines of a text, for rules and heuristics that judge files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace tritwise {

// Lines as Python's `str.splitlines` cuts UTF-8 (surrogates may be in it); lengths in characters, without the end.
struct LineLengths {
    std::int64_t lines = 0, longest = 0, characters = 0;
};

LineLengths line_lengths(const std::uint8_t* text, std::size_t size);

std::int64_t ascii_letters(const std::uint8_t* text, std::size_t size);

// Lines between line feeds, without white space (ASCII) at their ends; empty ones do not count.
struct CodeLines {
    std::int64_t lines = 0, comments = 0;
    std::int64_t long_bytes = 0, first_bytes = 0;  // of lines of `shortest` bytes and more; of the first of equal ones
};

// A comment begins with one of `comment_starts`, or is "*".
CodeLines code_lines(const std::uint8_t* text, std::size_t size, const std::vector<std::string>& comment_starts,
                     std::size_t shortest);

// Lengths of the longest runs of base64's characters and line feeds ([a-zA-Z0-9+/\n=]) of 64 bytes and more.
std::vector<std::int64_t> base64_runs(const std::uint8_t* text, std::size_t size);

}  // namespace tritwise
