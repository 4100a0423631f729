// What the checks share: a comparison that names its place, numbers from a seed, memory without slack.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "kernels.hpp"

namespace tritwise::checks {

// Ends the program: with exit code 1, also from a thread.
[[noreturn]] void fail(const char* file, int line, const char* condition, const std::string& where);

#define CHECK(condition, where)                                                              \
    do {                                                                                     \
        if (!(condition)) ::tritwise::checks::fail(__FILE__, __LINE__, #condition, (where)); \
    } while (false)

// splitmix64 (Steele, Lea and Flood 2014): the same numbers on every machine, which <random>'s distributions
// do not promise.
class Random {
public:
    explicit Random(std::uint64_t seed) : state_(seed) {}
    std::uint64_t bits() {
        std::uint64_t z = state_ += 0x9E3779B97F4A7C15u;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        return z ^ z >> 31;
    }
    int integer(int low, int high) {  // low..high
        return low + static_cast<int>(bits() % (static_cast<std::uint64_t>(high - low) + 1));
    }
    // Uniform in -1..1, a multiple of 2^-23: exact wherever it is computed.
    float real() { return static_cast<float>(integer(-(1 << 23), 1 << 23)) * 0x1p-23f; }

private:
    std::uint64_t state_;
};

// Zeroed, aligned to 64 bytes and exactly as long as asked: AddressSanitizer sees the first byte beyond.
template <class T>
class Array {
public:
    explicit Array(std::size_t count) : count_(count) {
        void* memory = nullptr;
        if (posix_memalign(&memory, 64, count ? count * sizeof(T) : 1)) throw std::bad_alloc();
        data_ = static_cast<T*>(memory);
        std::memset(memory, 0, count * sizeof(T));
    }
    ~Array() { std::free(data_); }
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;

    T* data() const { return data_; }
    std::size_t size() const { return count_; }
    T& operator[](std::size_t i) const { return data_[i]; }
    void fill(T value) const {
        for (std::size_t i = 0; i < count_; ++i) data_[i] = value;
    }
    bool same_bits(const Array& other) const {
        return count_ == other.count_ && std::memcmp(data_, other.data_, count_ * sizeof(T)) == 0;
    }

private:
    T* data_ = nullptr;
    std::size_t count_;
};

// The 64-bit FNV-1a hash: one number to compare runs on different machines by.
class Hash {
public:
    void add(const void* data, std::size_t bytes) {
        const auto* p = static_cast<const unsigned char*>(data);
        for (std::size_t i = 0; i < bytes; ++i) value_ = (value_ ^ p[i]) * 0x100000001B3u;
    }
    std::uint64_t value() const { return value_; }

private:
    std::uint64_t value_ = 0xCBF29CE484222325u;
};

// `kernels` against the scalar table. `quick` leaves out the largest shapes: a sanitizer finds nothing more
// in them. Each returns how many comparisons it made.
long check_integer_kernels(const Kernels& kernels, bool quick);  // kernel_checks.cpp
long check_float_kernels(const Kernels& kernels, bool quick);    // float_checks.cpp
long check_sampling(const Kernels& kernels, bool quick);         // sampling_checks.cpp
// The whole model on each of `tables`, against the scalar one; prints a hash of the logits of each variant.
long check_models(const std::vector<const Kernels*>& tables, bool quick);
long check_pool(bool quick);
long check_minhash(bool quick);  // minhash_checks.cpp

}  // namespace tritwise::checks
