#include "memory.hpp"

#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#define TRITWISE_HAS_MMAP 1
#endif

namespace tritwise {

static constexpr std::size_t huge_page = std::size_t{2} << 20;

Buffer::Buffer(std::size_t bytes, Pages pages) : bytes_(bytes) {
    const std::size_t wanted = static_cast<std::size_t>(round_up(static_cast<std::int64_t>(bytes) + 64, 64));
#if TRITWISE_HAS_MMAP
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
    mapped_ = wanted;
    base_ = data_ = std::aligned_alloc(64, wanted);
    if (!base_) throw std::bad_alloc();
    std::memset(base_, 0, wanted);
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

}  // namespace tritwise
