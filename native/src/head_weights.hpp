// The output head in one of its forms, and how it is made from the rows of a tensor.
#pragma once

#include <string>

#include "kernels.hpp"
#include "memory.hpp"
#include "tensor_file.hpp"
#include "thread_pool.hpp"

namespace tritwise {

enum class HeadKind { stored, f16, int8, int4 };
HeadKind head_kind_named(const std::string& name);  // throws std::invalid_argument
const char* name_of(HeadKind kind);

struct HeadWeights {
    HeadKind kind = HeadKind::stored;
    DenseMatrix dense{};   // stored, f16
    SplitMatrix split{};   // int8
    ChunkMatrix chunks{};  // int4

    // Throws std::invalid_argument that names the tensor: values that are not finite or beyond the form's range,
    // a file that ended too early.
    void make(const std::string& name, const RowSource& source, const Kernels& kernels, ThreadPool& pool);
    std::int64_t bytes() const;
    std::int64_t low_bytes() const { return static_cast<std::int64_t>(low_.bytes()); }

private:
    Buffer storage_, low_, row_values_;
};

// All rows into `to`, each padded to padded_k values of the source's type; zeros stand there already.
// Throws as HeadWeights::make does.
void read_rows(const std::string& name, const RowSource& source, char* to, std::int64_t padded_k,
               const Kernels& kernels, ThreadPool& pool);
// Only the checks.
void check_rows(const std::string& name, const RowSource& source, const Kernels& kernels, ThreadPool& pool);

}  // namespace tritwise
