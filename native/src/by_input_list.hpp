// The inputs of a token that are not zero, where an instruction set has nothing better.
#pragma once

#include <bit>
#include <cstring>

#include "kernels.hpp"

namespace tritwise::TRITWISE_ISA {

// Eight bytes at a time: a byte's bit 7 is set when it is not zero.
static int list_inputs(const std::int8_t* codes, std::int64_t k, std::int32_t* inputs) {
    constexpr std::uint64_t low = 0x7F7F7F7F7F7F7F7Full;
    int count = 0;
    for (std::int64_t i = 0; i < k; i += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, codes + i, static_cast<std::size_t>(k - i < 8 ? k - i : 8));
        for (std::uint64_t bits = (((word & low) + low) | word) & ~low; bits; bits &= bits - 1) {
            const int bit = std::endian::native == std::endian::little ? std::countr_zero(bits)
                                                                       : 63 - std::countl_zero(bits);
            inputs[count++] = static_cast<std::int32_t>(i + bit / 8);
        }
    }
    return count;
}

}  // namespace tritwise::TRITWISE_ISA
