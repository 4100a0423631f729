// Sketches of texts as sets of token n-grams, for finding near-duplicates.
//
//     bytes -> tokens -> a 64-bit hash each -> rolling hash of n tokens (a shingle) -> bins
//
// Tokens are the matches of the bytes expression  [0-9A-Za-z_\x80-\xDF]+|[\xE0-\xFF][\x80-\xBF]*  : words of
// ASCII and of alphabets whose letters take two bytes in UTF-8 (accented Latin, Greek, Cyrillic, Hebrew,
// Arabic); every longer character (Chinese, Japanese, Korean, symbols) is a token of its own, because such
// text has no spaces. Bytes that are no UTF-8 follow the same expression.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tritwise {

inline constexpr int most_permutations = 1024, most_shingle = 64;
inline constexpr std::uint64_t empty_bin = ~std::uint64_t{0};  // of a text with fewer tokens than a shingle

// Fast similarity sketching (Dahlgaard, Langhede, Houen and Thorup, arXiv 1704.04370, algorithm 1): in round
// 0 each shingle falls into one bin, which keeps the smallest value. While bins are empty, a round with new
// hashes follows; round `permutations` + b puts every shingle into bin b. A value holds its round above its
// hash, so values of earlier rounds win. P(two texts have the same value in a bin) is their Jaccard
// similarity, as in MinHash with a permutation a bin, and one pass over the shingles suffices for all bins
// unless the text is short.
class MinHash {
public:
    MinHash(int permutations, int shingle, std::uint64_t seed);

    // values uint64 [permutations]; returns the number of tokens. The elementwise minimum of two texts'
    // values is the sketch of the union of their shingles.
    std::int64_t sketch(const std::uint8_t* text, std::size_t size, std::uint64_t* values);

    // The hashes of the text's distinct shingles, rising.
    std::vector<std::uint64_t> shingles(const std::uint8_t* text, std::size_t size);

private:
    template <class Take>
    std::int64_t each_shingles(const std::uint8_t* text, std::size_t size, Take&& take);

    int permutations_, shingle_;
    std::uint64_t token_seed_, shingle_seed_, last_power_;
    std::vector<std::uint64_t> rounds_;  // two numbers for each of the 2 * permutations rounds
    std::vector<std::uint64_t> seen_;    // shingles, for the rounds after the first
    std::vector<std::uint64_t> tokens_, hashes_;
};

}  // namespace tritwise
