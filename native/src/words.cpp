#include "words.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace tritwise {

namespace {

// Odd numbers without a pattern.
constexpr std::uint64_t base = 0x9E3779B97F4A7C15u, mix = 0xD6E8FEB86659FD93u, next_word = 0xC2B2AE3D27D4EB4Fu;

constexpr std::array<std::uint8_t, 256> make_codes() {
    std::array<std::uint8_t, 256> codes{};
    for (int byte = 0; byte < 256; ++byte) {
        const bool capital = byte >= 'A' && byte <= 'Z';
        const bool word = capital || (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte == '_' ||
                          byte > 0x7F;
        codes[static_cast<std::size_t>(byte)] =
            static_cast<std::uint8_t>(capital ? byte + ('a' - 'A') : word ? byte : 0);
    }
    return codes;
}

constexpr auto codes_of = make_codes();

constexpr std::size_t known_powers = 32;  // nearly all words are shorter
constexpr std::array<std::uint64_t, known_powers> make_powers() {
    std::array<std::uint64_t, known_powers> powers{};
    powers[0] = 1;
    for (std::size_t i = 1; i < known_powers; ++i) powers[i] = powers[i - 1] * base;
    return powers;
}

constexpr auto powers = make_powers();

// The sum of byte i times the i-th power of the base.
inline std::uint64_t polynomial(const std::uint8_t* word, std::size_t length) {
    std::uint64_t sum = 0;
    if (length <= known_powers) {  // products that do not wait for each other
        for (std::size_t i = 0; i < length; ++i) sum += word[i] * powers[i];
        return sum;
    }
    for (std::size_t i = length; i-- > 0;) sum = sum * base + word[i];
    return sum;
}

inline std::uint64_t mixed(std::uint64_t hash) {
    hash ^= hash >> 32;
    hash *= mix;
    return hash ^ hash >> 29;
}

// Calls take(first word, hash) for each n words.
template <class Take>
inline void each_ngram(const std::uint64_t* hashes, std::size_t count, std::size_t n, Take&& take) {
    if (count < n) return;
    std::uint64_t power = 1, value = 0;
    for (std::size_t i = 0; i < n; ++i) {
        value = value * next_word + hashes[i];
        power *= next_word;
    }
    take(std::size_t{0}, value);
    for (std::size_t i = n; i < count; ++i) {
        value = value * next_word + (hashes[i] - hashes[i - n] * power);
        take(i - n + 1, value);
    }
}

// A set of 64-bit numbers, at most half full; zero, the empty place, is counted beside it.
class Places {
public:
    explicit Places(std::size_t most)
        : bits_(std::bit_width(std::max<std::size_t>(2 * most, 16) - 1)), values_(std::size_t{1} << bits_) {}

    // The place of a value, and whether it is new there.
    std::pair<std::size_t, bool> add(std::uint64_t value) {
        std::size_t place = static_cast<std::size_t>(value >> (64 - bits_));
        for (;; place = (place + 1) & (values_.size() - 1)) {
            if (values_[place] == value) return {place, false};
            if (values_[place] == 0) {
                values_[place] = value;
                return {place, true};
            }
        }
    }
    std::size_t size() const { return values_.size(); }
    std::uint64_t operator[](std::size_t place) const { return values_[place]; }

private:
    int bits_;
    std::vector<std::uint64_t> values_;
};

// Whether a word begins with no digit.
inline bool begins_name(const WordSpan& words, std::size_t word) {
    const std::uint8_t first = words.codes[words.starts[word]];
    return first < '0' || first > '9';
}

}  // namespace

Words words_of(const std::uint8_t* text, std::size_t size) {
    Words words;
    words.codes.resize(size);
    auto* codes = reinterpret_cast<std::uint8_t*>(words.codes.data());
    for (std::size_t i = 0; i < size; ++i) codes[i] = codes_of[text[i]];
    const std::size_t guess = size / 6 + 8;
    words.hashes.reserve(guess);
    words.starts.reserve(guess);
    words.ends.reserve(guess);
    for (std::size_t i = 0; i < size;) {
        if (!codes[i]) {
            ++i;
            continue;
        }
        const std::size_t start = i;
        while (i < size && codes[i]) ++i;
        words.hashes.push_back(mixed(polynomial(codes + start, i - start)));
        words.starts.push_back(static_cast<std::int64_t>(start));
        words.ends.push_back(static_cast<std::int64_t>(i));
    }
    return words;
}

std::vector<std::uint64_t> ngrams(const std::uint64_t* hashes, std::size_t count, std::size_t n) {
    std::vector<std::uint64_t> result(count < n ? 0 : count - n + 1);
    each_ngram(hashes, count, n, [&](std::size_t i, std::uint64_t hash) { result[i] = hash; });
    return result;
}

void find_ngrams(const std::uint64_t* hashes, std::size_t count, std::size_t n, const HashTable& table,
                 std::vector<std::int64_t>& positions, std::vector<std::int64_t>& rows) {
    each_ngram(hashes, count, n, [&](std::size_t i, std::uint64_t hash) {
        const std::uint64_t bit = hash >> table.shift;
        if (!(table.bitmap[bit >> 3] >> (bit & 7) & 1)) return;
        const auto* end = table.hashes + table.size;
        for (const auto* at = std::lower_bound(table.hashes, end, hash); at != end && *at == hash; ++at) {
            positions.push_back(static_cast<std::int64_t>(i));
            rows.push_back(table.rows[at - table.hashes]);
        }
    });
}

std::vector<std::int64_t> occurrences(std::vector<std::uint64_t> values) {
    Places places(values.size());
    std::vector<std::int64_t> counts(places.size());
    std::int64_t zeros = 0;
    std::size_t different = 0;
    for (const std::uint64_t value : values) {
        if (!value) {
            ++zeros;
            continue;
        }
        const auto [place, is_new] = places.add(value);
        ++counts[place];
        if (is_new) values[different++] = place;  // never ahead of what is read
    }
    values.resize(different);
    std::sort(values.begin(), values.end(), [&](std::uint64_t a, std::uint64_t b) { return places[a] < places[b]; });
    std::vector<std::int64_t> result;
    result.reserve(different + 1);
    if (zeros) result.push_back(zeros);
    for (const std::uint64_t place : values) result.push_back(counts[place]);
    return result;
}

std::size_t distinct(const std::vector<std::uint64_t>& values) {
    Places places(values.size());
    std::size_t count = 0;
    bool zero = false;
    for (const std::uint64_t value : values) {
        if (value)
            count += places.add(value).second;
        else
            zero = true;
    }
    return count + zero;
}

WordMeasures measure_words(const WordSpan& words, std::int64_t longest) {
    WordMeasures measures;
    std::vector<std::uint64_t> names;
    names.reserve(words.count);
    for (std::size_t i = 0; i < words.count; ++i) {
        const std::int64_t length = words.ends[i] - words.starts[i];
        measures.bytes += length;
        if (length > longest) measures.long_bytes += length;
        if (!begins_name(words, i)) continue;
        measures.short_names += length == 1;
        names.push_back(words.hashes[i]);
    }
    measures.names = static_cast<std::int64_t>(names.size());
    measures.counts = occurrences(std::move(names));
    return measures;
}

std::vector<std::int64_t> distinct_names(const WordSpan& words, std::size_t n,
                                         const std::vector<std::uint64_t>& no_names) {
    if (words.count < n) return {};
    // The number, from 1 on, of the word before that has the same hash; 0 for none. All words where it is no name.
    std::vector<std::size_t> before(words.count);
    std::unordered_map<std::uint64_t, std::size_t> last;
    const std::unordered_set<std::uint64_t> others(no_names.begin(), no_names.end());
    for (std::size_t i = 0; i < words.count; ++i) {
        const bool is_name = words.ends[i] - words.starts[i] >= 2 && begins_name(words, i) &&
                             !others.count(words.hashes[i]);
        before[i] = is_name ? std::exchange(last[words.hashes[i]], i + 1) : words.count;
    }
    std::vector<std::int64_t> result(words.count - n + 1);
    for (std::size_t first = 0; first < result.size(); ++first)  // a name counts where it stands first
        for (std::size_t i = first; i < first + n; ++i) result[first] += before[i] <= first;
    return result;
}

}  // namespace tritwise
