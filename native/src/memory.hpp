// Memory for weights, caches and activations.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace tritwise {

constexpr std::int64_t round_up(std::int64_t value, std::int64_t step) {
    return (value + step - 1) / step * step;
}

enum class Pages {
    huge,  // weights: read from end to end, so few large pages save TLB misses
    lazy,  // caches: reserved whole, resident only where touched, so small pages
};

// Zeroed memory, aligned to 64 bytes at least, released with the object. Movable, not copyable.
// Pages that were never touched take no memory.
class Buffer {
public:
    Buffer() = default;
    Buffer(std::size_t bytes, Pages pages);  // throws std::bad_alloc
    ~Buffer();
    Buffer(Buffer&& other) noexcept { swap(other); }
    Buffer& operator=(Buffer&& other) noexcept {
        swap(other);
        return *this;
    }

    template <class T>
    T* as() const {
        return static_cast<T*>(data_);
    }
    std::size_t bytes() const { return bytes_; }
    explicit operator bool() const { return data_ != nullptr; }

private:
    void swap(Buffer& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(base_, other.base_);
        std::swap(bytes_, other.bytes_);
        std::swap(mapped_, other.mapped_);
    }

    void* data_ = nullptr;
    void* base_ = nullptr;  // what was mapped; data_ lies inside it at an aligned address
    std::size_t bytes_ = 0, mapped_ = 0;
};

// Gives memory that the C library keeps for later back to the system, where it can.
void release_unused_memory();
// Gives memory of a Buffer, aligned to the system's pages, back to the system until it is written again; its
// content is lost. Without effect where the system has no such call.
void release_memory(void* data, std::size_t bytes);

}  // namespace tritwise
