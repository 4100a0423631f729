#include "memory.hpp"

#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

// The sanitizers' build takes buffers from the heap, exactly as long as asked: AddressSanitizer does not
// watch mmap.
#if (defined(__unix__) || defined(__APPLE__)) && !defined(TRITWISE_WATCHED_BUFFERS)
#include <sys/mman.h>
#define TRITWISE_HAS_MMAP 1
#endif

namespace tritwise {

static constexpr std::size_t huge_page = std::size_t{2} << 20;

Buffer::Buffer(std::size_t bytes, Pages pages) : bytes_(bytes) {
#if TRITWISE_HAS_MMAP
    const std::size_t wanted = static_cast<std::size_t>(round_up(static_cast<std::int64_t>(bytes) + 64, 64));
    const bool huge = pages == Pages::huge && wanted >= huge_page;
    mapped_ = wanted + (huge ? huge_page : 0);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
#if defined(MAP_NORESERVE)
    flags |= MAP_NORESERVE;
#endif
    base_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (base_ == MAP_FAILED) {
        base_ = nullptr;
        throw std::bad_alloc();
    }
    data_ = base_;
    if (huge) {
        const auto address = reinterpret_cast<std::uintptr_t>(base_);
        data_ = reinterpret_cast<void*>((address + huge_page - 1) / huge_page * huge_page);
    }
    // Both are advice: where the kernel does not take it, only speed or resident size differ.
#if defined(MADV_HUGEPAGE)
    madvise(data_, wanted, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
#endif
#else
    (void)pages;
    mapped_ = bytes ? bytes : 1;
    if (posix_memalign(&base_, 64, mapped_)) throw std::bad_alloc();
    std::memset(base_, 0, mapped_);
    data_ = base_;
#endif
}

Buffer::~Buffer() {
    if (!base_) return;
#if TRITWISE_HAS_MMAP
    munmap(base_, mapped_);
#else
    std::free(base_);
#endif
}

void release_unused_memory() {
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
}

void release_memory(void* data, std::size_t bytes) {
#if TRITWISE_HAS_MMAP
    madvise(data, bytes, MADV_DONTNEED);  // advice: a failure costs memory, nothing else
#else
    (void)data;
    (void)bytes;
#endif
}

}  // namespace tritwise
