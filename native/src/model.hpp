// The forward pass: token ids in, logits out.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "kernels.hpp"
#include "kv_cache.hpp"
#include "memory.hpp"
#include "thread_pool.hpp"
#include "weights.hpp"

namespace tritwise {

// One named intermediate of `Model::trace`: rows of `width` elements of `type`.
struct TraceArray {
    enum Type { i8, i32, f32 } type;
    std::int64_t width = 0;  // 0: one number a row
    std::vector<char> data;
};
using Trace = std::map<std::string, TraceArray>;

class Model {
public:
    Model(const ModelConfig& config, int threads, const std::string& kernel, bool int8_head, int slots,
          int context);

    Weights& weights() { return weights_; }
    const Weights& weights() const { return weights_; }
    void finish();

    // logits [rows, vocab], row j for token logits_for[j]; best [best_rows], the id with the largest logit for
    // token best_for[j], the lowest among equals, -1 where the largest is not a finite number. Nothing changes
    // when it throws: std::out_of_range for bad ids, slots, positions and rows, std::invalid_argument for
    // tokens of a slot that are not consecutive.
    void forward(const std::int32_t* tokens, const std::int32_t* slots, const std::int32_t* positions,
                 std::int64_t n, const std::int32_t* logits_for, std::int64_t rows, float* logits,
                 const std::int32_t* best_for, std::int64_t best_rows, std::int32_t* best);
    Trace trace(const std::int32_t* tokens, std::int64_t n);

    void reset(int slot);
    int length(int slot);
    const ModelConfig& config() const { return config_; }
    const Kernels& kernels() const { return kernels_; }
    int threads() const { return pool_.size(); }
    bool int8_head() const { return weights_.has_int8_head; }
    std::int64_t cache_bytes_per_token() const { return cache_.bytes_per_token(); }

    std::mutex mutex;  // held by the caller around everything that is not const

private:
    struct Chunk;
    void run_chunk(const Chunk& chunk);
    void check(const std::int32_t* tokens, const std::int32_t* slots, const std::int32_t* positions,
               std::int64_t n, const std::int32_t* wanted, std::int64_t rows);
    // x (a row of `width` floats, padded) made ready for the next product.
    void prepare(const Chunk& chunk, std::int64_t row, const float* x, int width);
    void product(const Linear& matrix, const Chunk& chunk, float* y);
    void trace_product(const Chunk& chunk, const Linear& matrix, const std::string& name,
                       std::int64_t first_row, std::int64_t rows, std::int64_t k);
    void rotate_and_cache(const Chunk& chunk, int layer, std::int64_t row);
    void attend(const Chunk& chunk, int layer);
    void feed_forward(const Chunk& chunk, int layer, const std::string& prefix);
    void head(const Chunk& chunk);
    // The last norm of rows of the chunk into input_, one after another; then their logits.
    void norm_rows(const Chunk& chunk, const std::int32_t* rows, int m);
    void head_logits(int m, float* y);
    void for_rows(const Chunk& chunk, auto&& work);

    const ModelConfig config_;
    const Kernels& kernels_;
    ThreadPool pool_;
    Weights weights_;
    KvCache cache_;  // one more slot than the user has, for trace
    const int slots_, context_;
    bool finished_ = false;

    // Activations of a chunk, row-major with padded strides. Padding is zero and stays so.
    int hidden_stride_, attention_stride_, qkv_stride_, ffn_stride_, input_stride_;
    Buffer hidden_, qkv_, attention_, gate_up_, result_, scratch_, rope_;
    // The input of the product that comes next, as floats or quantised, and the int32 results when traced.
    Buffer input_, codes_, quads_, scales_, sums_, accumulators_;
    Buffer unpack_scratch_, attention_scratch_, best_logits_;
    std::int64_t attention_scratch_floats_;
};

}  // namespace tritwise
