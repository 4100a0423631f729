// Sketches of texts on bytes of every kind, in buffers without slack: tokens against a machine that reads
// byte by byte, sketches against the sum of their parts.
#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "minhash.hpp"
#include "tokens.hpp"

namespace tritwise::checks {

using Tokens = std::vector<std::pair<std::size_t, std::size_t>>;

// The expression of minhash.hpp, one token at a time.
static Tokens expected_tokens(const Array<std::uint8_t>& text) {
    Tokens tokens;
    for (std::size_t i = 0; i < text.size();) {
        const std::size_t begin = i;
        if (text[i] >= 0xE0) {
            for (++i; i < text.size() && text[i] >= 0x80 && text[i] < 0xC0; ++i) {
            }
        } else {
            for (; i < text.size() && is_word_byte(text[i]); ++i) {
            }
        }
        if (i == begin) ++i;
        else tokens.emplace_back(begin, i);
    }
    return tokens;
}

static Tokens found_tokens(const Array<std::uint8_t>& text) {
    Tokens tokens;
    each_token(text.data(), text.size(),
               [&](std::size_t begin, std::size_t end) { tokens.emplace_back(begin, end); });
    return tokens;
}

static void fill(const Array<std::uint8_t>& text, int kind, Random& random) {
    static const std::uint8_t some[] = {'a',  'Z',  '0',  '_',  ' ',  '\n', '(',
                                        0x80, 0xBF, 0xC3, 0xDF, 0xE0, 0xF0, 0xFF};
    for (std::size_t i = 0; i < text.size(); ++i) {
        const int any = random.integer(0, 255);
        text[i] = kind == 0   ? static_cast<std::uint8_t>(any)
                  : kind == 1 ? some[any % 14]
                  : kind == 2 ? some[any % 7]  // ASCII
                  : kind == 3 ? 'x'
                              : (i % 2 ? ' ' : 'x');
    }
}

static long check_text(std::size_t size, int kind, Random& random) {
    const std::string where = std::to_string(size) + " bytes of kind " + std::to_string(kind);
    const Array<std::uint8_t> text(size);
    fill(text, kind, random);
    const Tokens tokens = found_tokens(text);
    CHECK(tokens == expected_tokens(text), where + ": tokens");

    const int bins = random.integer(1, 64), shingle = random.integer(1, 6);
    MinHash sketcher(bins, shingle, random.bits());
    std::vector<std::uint64_t> whole(bins), again(bins), parts(bins, empty_bin);
    const std::int64_t count = sketcher.sketch(text.data(), size, whole.data());
    CHECK(count == static_cast<std::int64_t>(tokens.size()), where + ": number of tokens");
    CHECK((count >= shingle) == (whole[0] != empty_bin), where + ": only short texts have no sketch");
    CHECK(std::count(whole.begin(), whole.end(), empty_bin) == (count < shingle ? bins : 0),
          where + ": all bins");

    // The text from its first to its middle shingle and from there to its last one hold the same shingles.
    if (count >= shingle) {
        const std::size_t middle = tokens.size() / 2, last = std::min(tokens.size(), middle + shingle - 1);
        const std::size_t end = tokens[last ? last - 1 : 0].second, begin = tokens[middle].first;
        for (const auto& [from, to] : {std::pair{std::size_t{0}, end}, std::pair{begin, size}}) {
            const Array<std::uint8_t> piece(to - from);
            std::copy(text.data() + from, text.data() + to, piece.data());
            sketcher.sketch(piece.data(), piece.size(), again.data());
            for (int i = 0; i < bins; ++i) parts[i] = std::min(parts[i], again[i]);
        }
        CHECK(parts == whole, where + ": the minimum of the parts' sketches");
    }
    const std::vector<std::uint64_t> hashes = sketcher.shingles(text.data(), size);
    CHECK(std::adjacent_find(hashes.begin(), hashes.end(), std::greater_equal<>()) == hashes.end(), where);
    return 6;
}

long check_minhash(bool quick) {
    Random random(7);
    long comparisons = 0;
    for (int kind = 0; kind < 5; ++kind) {
        for (std::size_t size = 0; size < (quick ? 150 : 400); ++size)
            comparisons += check_text(size, kind, random);
        for (const std::size_t size : {5000, 70000}) comparisons += check_text(size, kind, random);
    }
    if (!quick) {
        comparisons += check_text(100 << 20, 3, random);  // one token
        comparisons += check_text(8 << 20, 4, random);    // one token, again and again
    }
    return comparisons;
}

}  // namespace tritwise::checks
