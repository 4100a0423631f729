#include "lines.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <unordered_set>

namespace tritwise {

namespace {

constexpr std::size_t base64_run = 64;

constexpr std::array<bool, 256> make_base64() {
    std::array<bool, 256> result{};
    for (std::size_t byte = 0; byte < 256; ++byte)
        result[byte] = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
                       byte == '+' || byte == '/' || byte == '\n' || byte == '=';
    return result;
}

constexpr auto is_base64 = make_base64();

inline bool is_space(std::uint8_t byte) { return byte == ' ' || (byte >= '\t' && byte <= '\r'); }

// Bytes of the line end that begins here; 0 when none does.
inline std::size_t line_end(const std::uint8_t* at, const std::uint8_t* end) {
    switch (*at) {
        case '\r':
            return end - at > 1 && at[1] == '\n' ? 2 : 1;
        case '\n': case '\v': case '\f': case 0x1C: case 0x1D: case 0x1E:
            return 1;
        case 0xC2:
            return end - at > 1 && at[1] == 0x85 ? 2 : 0;
        case 0xE2:
            return end - at > 2 && at[1] == 0x80 && (at[2] == 0xA8 || at[2] == 0xA9) ? 3 : 0;
        default:
            return 0;
    }
}

}  // namespace

LineLengths line_lengths(const std::uint8_t* text, std::size_t size) {
    LineLengths result;
    const std::uint8_t *at = text, *end = text + size, *line = text;
    std::int64_t length = 0;
    const auto close = [&] {
        ++result.lines;
        result.longest = std::max(result.longest, length);
        result.characters += length;
        length = 0;
    };
    while (at < end) {
        const std::uint8_t* plain = at;
        while (at < end && *at >= 0x20 && *at < 0x80) ++at;
        length += at - plain;
        if (at == end) break;
        if (const std::size_t bytes = line_end(at, end)) {
            close();
            line = at += bytes;
        } else {
            length += (*at & 0xC0) != 0x80;  // a character, not a byte within one
            ++at;
        }
    }
    if (line < end) close();
    return result;
}

std::int64_t ascii_letters(const std::uint8_t* text, std::size_t size) {
    std::int64_t letters = 0;
    for (std::size_t first = 0; first < size; first += 255) {
        std::uint8_t here = 0;  // counts in bytes, so that a vector holds many
        for (std::size_t i = first, last = std::min(first + 255, size); i < last; ++i)
            // Bit 5 is all that capital and small letters differ in; what is below "a" wraps around.
            here = static_cast<std::uint8_t>(here + (static_cast<std::uint8_t>((text[i] | 0x20) - 'a') < 26));
        letters += here;
    }
    return letters;
}

CodeLines code_lines(const std::uint8_t* text, std::size_t size, const std::vector<std::string>& comment_starts,
                     std::size_t shortest) {
    CodeLines result;
    std::unordered_set<std::string_view> seen;
    seen.reserve(size / 24);
    const std::uint8_t* end = text + size;
    for (const std::uint8_t* at = text; at < end;) {
        const auto* feed = static_cast<const std::uint8_t*>(
            std::memchr(at, '\n', static_cast<std::size_t>(end - at)));
        const std::uint8_t *first = at, *last = feed ? feed : end;
        at = feed ? feed + 1 : end;
        while (first < last && is_space(*first)) ++first;
        while (first < last && is_space(last[-1])) --last;
        if (first == last) continue;
        const std::string_view line(reinterpret_cast<const char*>(first), static_cast<std::size_t>(last - first));
        ++result.lines;
        result.comments += line == "*" || std::any_of(comment_starts.begin(), comment_starts.end(),
                                                      [&](const std::string& s) { return line.starts_with(s); });
        if (line.size() < shortest) continue;
        result.long_bytes += static_cast<std::int64_t>(line.size());
        if (seen.insert(line).second) result.first_bytes += static_cast<std::int64_t>(line.size());
    }
    return result;
}

std::vector<std::int64_t> base64_runs(const std::uint8_t* text, std::size_t size) {
    std::vector<std::int64_t> lengths;
    for (std::size_t first = 0; first + base64_run <= size;) {
        // From the last byte of the window back: the first one outside moves the window behind it.
        std::size_t i = first + base64_run;
        while (i > first && is_base64[text[i - 1]]) --i;
        if (i > first) {
            first = i;
            continue;
        }
        std::size_t end = first + base64_run;
        while (end < size && is_base64[text[end]]) ++end;
        lengths.push_back(static_cast<std::int64_t>(end - first));
        first = end;
    }
    return lengths;
}

}  // namespace tritwise
