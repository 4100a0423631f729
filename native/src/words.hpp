// Words of a text, their hashes, runs of n of them, and lookups of many in a sorted table.
//
// A word is a longest run of ASCII letters, digits, underscores and bytes above 0x7F; capitals count as small letters.
// Its hash is a polynomial of its bytes modulo 2^64, mixed; that of n words the same of their hashes. They are part of
// the format of what is saved (quality models), so they never change.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace tritwise {

// Word i is codes[starts[i], ends[i]); codes has a zero for every byte that separates words.
struct Words {
    std::string codes;
    std::vector<std::uint64_t> hashes;
    std::vector<std::int64_t> starts, ends;
};

// The same, owned by others.
struct WordSpan {
    const std::uint8_t* codes;
    const std::uint64_t* hashes;
    const std::int64_t *starts, *ends;
    std::size_t count;
};

// The text is UTF-8; separators of other scripts are spaces in it already.
Words words_of(const std::uint8_t* text, std::size_t size);

// Hash of each n words that follow one another: [count - n + 1], empty for fewer than n words. n >= 1.
std::vector<std::uint64_t> ngrams(const std::uint64_t* hashes, std::size_t count, std::size_t n);

// `hashes` [size] rise, equal ones may follow one another; `rows` [size] are what they stand for; bit (hash >> shift)
// of `bitmap` is set for each of them, and most other hashes fail there.
struct HashTable {
    const std::uint64_t* hashes;
    const std::int64_t* rows;
    std::size_t size;
    const std::uint8_t* bitmap;
    int shift;
};

// (first word, row) of every n words that are in the table, by word, then by place in the table.
void find_ngrams(const std::uint64_t* hashes, std::size_t count, std::size_t n, const HashTable& table,
                 std::vector<std::int64_t>& positions, std::vector<std::int64_t>& rows);

// How often each different value occurs, in the order of the values.
std::vector<std::int64_t> occurrences(std::vector<std::uint64_t> values);

// How many different values there are.
std::size_t distinct(const std::vector<std::uint64_t>& values);

// What heuristics ask of words. A name is a word that begins with no digit.
struct WordMeasures {
    std::int64_t names = 0, short_names = 0;  // words; short names have one byte
    std::int64_t bytes = 0, long_bytes = 0;   // of all words and of those longer than `longest`
    std::vector<std::int64_t> counts;         // occurrences of names
};

WordMeasures measure_words(const WordSpan& words, std::int64_t longest);

// How many different names of two bytes and more every n words hold: [count - n + 1], empty for fewer than n words.
// What has one of the hashes `no_names` is none.
std::vector<std::int64_t> distinct_names(const WordSpan& words, std::size_t n,
                                         const std::vector<std::uint64_t>& no_names);

}  // namespace tritwise
