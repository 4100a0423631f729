// Tensors that lie in a file: read piece by piece with pread, so that no page of the file stays in this process and
// a file that was cut short is an error and not a signal.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "kernels.hpp"

namespace tritwise {

class TensorFile {
public:
    explicit TensorFile(int descriptor);  // duplicated; throws std::runtime_error when that cannot be done
    ~TensorFile();
    TensorFile(const TensorFile&) = delete;
    TensorFile& operator=(const TensorFile&) = delete;

    // Whether all bytes were there. From any thread.
    bool read(std::int64_t at, std::int64_t bytes, void* to) const noexcept;

private:
    int descriptor_;
};

// Rows of k floats that lie in memory or in a file.
struct RowSource {
    const char* data = nullptr;  // null: in the file
    std::shared_ptr<const TensorFile> file;
    std::int64_t offset = 0;
    DType type = DType::f32;
    std::int64_t rows = 0, k = 0;

    std::int64_t row_bytes() const { return k * static_cast<std::int64_t>(size_of(type)); }
    // Rows first.. into `to`; false when the file does not hold them any more.
    bool read(std::int64_t first, std::int64_t count, void* to) const noexcept;
};

}  // namespace tritwise
