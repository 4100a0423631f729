// Cutting bytes into the tokens that minhash.hpp describes, 64 bytes a step.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace tritwise {

static_assert(std::endian::native == std::endian::little, "masks and hashes read words of eight bytes");

inline bool is_word_byte(std::uint8_t c) {
    return static_cast<std::uint8_t>((c | 0x20) - 'a') < 26 || static_cast<std::uint8_t>(c - '0') < 10 ||
           c == '_' || (c >= 0x80 && c < 0xE0);
}

// Bit i of `words` is set when byte i can stand in a word; `any_long`: some byte begins a character of three
// or more.
struct ByteMask {
    std::uint64_t words;
    bool any_long;
};

// The first loop has no branch, so that compilers write it with whatever vectors the target has.
inline ByteMask byte_mask(const std::uint8_t* block) {
    std::uint8_t is_word[64];
    std::uint8_t largest = 0;
    for (int i = 0; i < 64; ++i) {
        const std::uint8_t c = block[i];
        const std::uint8_t letter = static_cast<std::uint8_t>((c | 0x20) - 'a') < 26;
        const std::uint8_t digit = static_cast<std::uint8_t>(c - '0') < 10;
        const std::uint8_t other = static_cast<std::uint8_t>(c - 0x80) < 0x60;
        is_word[i] = letter | digit | other | static_cast<std::uint8_t>(c == '_');
        largest = largest < c ? c : largest;
    }
    std::uint64_t words = 0;
    for (int i = 0; i < 8;
         ++i) {  // the multiplication gathers the lowest bits of eight bytes in the highest byte
        std::uint64_t eight;
        std::memcpy(&eight, is_word + 8 * i, 8);
        words |= (eight * 0x0102040810204080u >> 56) << (8 * i);
    }
    return {words, largest >= 0xE0};
}

// Calls visit(begin, end) for every token of the text, in order.
template <class Visit>
void each_token(const std::uint8_t* text, std::size_t size, Visit&& visit) {
    enum { outside, in_word, in_character } state = outside;
    std::size_t open = 0;
    for (std::size_t base = 0; base < size; base += 64) {
        const std::size_t count = size - base < 64 ? size - base : 64;
        std::uint8_t padded[64] = {};
        const std::uint8_t* block = text + base;
        if (count < 64) {
            std::memcpy(padded, block, count);
            block = padded;
        }
        const ByteMask mask = byte_mask(block);
        if (mask.any_long || state == in_character) {
            for (std::size_t i = 0; i < count; ++i) {
                const std::uint8_t c = block[i];
                const bool continues = c >= 0x80 && c < 0xC0;
                if (state == in_word ? is_word_byte(c) : state == in_character && continues) continue;
                if (state != outside) visit(open, base + i);
                open = base + i;
                state = c >= 0xE0 ? in_character : is_word_byte(c) ? in_word : outside;
            }
            continue;
        }
        // Bits where words begin and end, in turn.
        std::uint64_t edges = mask.words ^ (mask.words << 1 | static_cast<std::uint64_t>(state == in_word));
        if (state == in_word && edges) {
            visit(open, base + static_cast<std::size_t>(std::countr_zero(edges)));
            edges &= edges - 1;
            state = outside;
        }
        while (edges) {
            open = base + static_cast<std::size_t>(std::countr_zero(edges));
            edges &= edges - 1;
            if (!edges) {
                state = in_word;
                break;
            }
            visit(open, base + static_cast<std::size_t>(std::countr_zero(edges)));
            edges &= edges - 1;
        }
    }
    if (state != outside) visit(open, size);
}

}  // namespace tritwise
