#include "tensor_file.hpp"

#include <cerrno>
#include <cstring>
#include <stdexcept>

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <unistd.h>
#define TRITWISE_HAS_PREAD 1
#endif

namespace tritwise {

#if TRITWISE_HAS_PREAD

TensorFile::TensorFile(int descriptor) : descriptor_(fcntl(descriptor, F_DUPFD_CLOEXEC, 0)) {
    if (descriptor_ < 0) throw std::runtime_error(std::string("the file is not open: ") + std::strerror(errno));
}

TensorFile::~TensorFile() { close(descriptor_); }

bool TensorFile::read(std::int64_t at, std::int64_t bytes, void* to) const noexcept {
    char* p = static_cast<char*>(to);
    while (bytes > 0) {
        const ssize_t got = pread(descriptor_, p, static_cast<std::size_t>(bytes), static_cast<off_t>(at));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        p += got, at += got, bytes -= got;
    }
    return true;
}

#else

TensorFile::TensorFile(int) : descriptor_(-1) {
    throw std::runtime_error("this system has no pread, so tensors have to be given as arrays");
}
TensorFile::~TensorFile() = default;
bool TensorFile::read(std::int64_t, std::int64_t, void*) const noexcept { return false; }

#endif

bool RowSource::read(std::int64_t first, std::int64_t count, void* to) const noexcept {
    const std::int64_t at = first * row_bytes(), bytes = count * row_bytes();
    if (!data) return file->read(offset + at, bytes, to);
    std::memcpy(to, data + at, static_cast<std::size_t>(bytes));
    return true;
}

}  // namespace tritwise
