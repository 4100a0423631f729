#include "minhash.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "tokens.hpp"

namespace tritwise {

namespace {

__extension__ typedef unsigned __int128 Wide;

constexpr std::uint64_t power_base = 0x9E3779B97F4A7C17u;  // 3 modulo 4: see roll()
constexpr std::uint64_t multiply_word = 0xA0761D6478BD642Fu, multiply_length = 0xE7037ED1A0B428DBu,
                        multiply_shingle = 0x8EBC6AF09C88C6E3u;
constexpr std::size_t chunk_tokens = 1024;
constexpr int hash_bits = 53;  // of a bin's value, below its round

// Both halves of a 128-bit product, xored.
inline std::uint64_t fold(std::uint64_t a, std::uint64_t b) {
    const Wide product = static_cast<Wide>(a) * b;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

// splitmix64 (Steele, Lea and Flood 2014).
class Stream {
public:
    explicit Stream(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next() {
        std::uint64_t z = state_ += 0x9E3779B97F4A7C15u;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        return z ^ z >> 31;
    }

private:
    std::uint64_t state_;
};

// Words of eight bytes, the last one filled up with zeros, then the length. `end` is where the text ends.
inline std::uint64_t token_hash(const std::uint8_t* token, std::size_t length, const std::uint8_t* end,
                                std::uint64_t seed) {
    std::uint64_t hash = seed, word;
    std::size_t left = length;
    for (; left >= 8; left -= 8, token += 8) {
        std::memcpy(&word, token, 8);
        hash = fold(hash ^ word, multiply_word);
    }
    if (left) {
        if (end - token >= 8) {
            std::memcpy(&word, token, 8);
            word &= (std::uint64_t{1} << (8 * left)) - 1;
        } else {
            word = 0;
            std::memcpy(&word, token, left);
        }
        hash = fold(hash ^ word, multiply_word);
    }
    return fold(hash ^ length, multiply_length);
}

}  // namespace

MinHash::MinHash(int permutations, int shingle, std::uint64_t seed)
    : permutations_(permutations), shingle_(shingle), last_power_(1) {
    if (permutations < 1 || permutations > most_permutations)
        throw std::invalid_argument("permutations is " + std::to_string(permutations) + ", 1 to " +
                                    std::to_string(most_permutations) + " are possible");
    if (shingle < 1 || shingle > most_shingle)
        throw std::invalid_argument("shingle is " + std::to_string(shingle) + ", 1 to " +
                                    std::to_string(most_shingle) + " tokens are possible");
    for (int i = 0; i < shingle; ++i) last_power_ *= power_base;
    Stream stream(seed);
    token_seed_ = stream.next();
    shingle_seed_ = stream.next();
    rounds_.resize(4 * static_cast<std::size_t>(permutations));
    for (std::size_t i = 0; i < rounds_.size(); i += 2) {
        rounds_[i] = stream.next();
        rounds_[i + 1] = stream.next() | 1;
    }
    tokens_.resize(most_shingle + chunk_tokens);
    hashes_.resize(chunk_tokens);
}

// Calls take(hashes, count) with the hashes of the shingles, some at a time. A shingle is the polynomial of
// its tokens' hashes modulo 2^64, newest token times 1, folded with the seed. The base minus one has a single
// factor of two, so that exchanged tokens change 63 bits of the sum.
template <class Take>
std::int64_t MinHash::each_shingles(const std::uint8_t* text, std::size_t size, Take&& take) {
    const auto n = static_cast<std::size_t>(shingle_);
    std::uint64_t* const tokens = tokens_.data() + n;  // those before the chunk stand below
    std::fill_n(tokens_.data(), n, 0);
    std::uint64_t sum = 0;
    std::size_t filled = 0;
    std::int64_t seen = 0;
    const auto flush = [&] {
        for (std::size_t i = 0; i < filled; ++i) {
            sum = sum * power_base + tokens[i] - tokens_[i] * last_power_;
            hashes_[i] = fold(sum ^ shingle_seed_, multiply_shingle);
        }
        const std::size_t missing = seen < shingle_ - 1 ? static_cast<std::size_t>(shingle_ - 1 - seen) : 0;
        if (filled > missing) take(hashes_.data() + missing, filled - missing);
        seen += static_cast<std::int64_t>(filled);
        std::copy(tokens_.data() + filled, tokens_.data() + filled + n, tokens_.data());
        filled = 0;
    };
    each_token(text, size, [&](std::size_t begin, std::size_t end) {
        tokens[filled++] = token_hash(text + begin, end - begin, text + size, token_seed_);
        if (filled == chunk_tokens) flush();
    });
    flush();
    return seen;
}

std::int64_t MinHash::sketch(const std::uint8_t* text, std::size_t size, std::uint64_t* values) {
    const auto k = static_cast<std::uint64_t>(permutations_);
    std::fill_n(values, k, empty_bin);
    std::uint64_t empty = k;
    // The product's upper half is the bin, its lower half the hash inside it; its lowest bits, which the
    // factor could make zero, are shifted out.
    const auto put = [&](std::uint64_t bin, std::uint64_t value) {
        const std::uint64_t old = values[bin];
        empty -= old == empty_bin;
        values[bin] = value < old ? value : old;
    };
    const auto throw_at_bins = [&](std::uint64_t hash, std::uint64_t round) {
        const Wide product = static_cast<Wide>(hash) * k;
        put(static_cast<std::uint64_t>(product >> 64),
            round << hash_bits | static_cast<std::uint64_t>(product) >> (64 - hash_bits));
    };
    seen_.clear();
    std::size_t room = 32 * k;
    const std::int64_t tokens =
        each_shingles(text, size, [&](const std::uint64_t* hashes, std::size_t count) {
            for (std::size_t i = 0; i < count; ++i) throw_at_bins(hashes[i], 0);
            if (!empty) return;  // no other round will be needed
            seen_.insert(seen_.end(), hashes, hashes + count);
            if (seen_.size() >
                room) {  // a text that repeats itself, for so many different ones leave no bin empty
                std::sort(seen_.begin(), seen_.end());
                seen_.erase(std::unique(seen_.begin(), seen_.end()), seen_.end());
                room = std::max(room, 2 * seen_.size());
            }
        });
    if (tokens < shingle_) return tokens;
    for (std::uint64_t round = 1; empty && round < k; ++round)
        for (const std::uint64_t hash : seen_)
            throw_at_bins(fold(hash ^ rounds_[2 * round], rounds_[2 * round + 1]), round);
    for (std::uint64_t round = k; empty && round < 2 * k; ++round)
        for (const std::uint64_t hash : seen_)
            put(round - k, round << hash_bits |
                               fold(hash ^ rounds_[2 * round], rounds_[2 * round + 1]) >> (64 - hash_bits));
    return tokens;
}

std::vector<std::uint64_t> MinHash::shingles(const std::uint8_t* text, std::size_t size) {
    std::vector<std::uint64_t> result;
    each_shingles(text, size, [&](const std::uint64_t* hashes, std::size_t count) {
        result.insert(result.end(), hashes, hashes + count);
    });
    std::sort(result.begin(), result.end());
    result.erase(std::unique(result.begin(), result.end()), result.end());
    return result;
}

}  // namespace tritwise
