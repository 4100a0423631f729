// The forward pass: token ids in, logits out.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "experts.hpp"
#include "kernels.hpp"
#include "kv_cache.hpp"
#include "memory.hpp"
#include "profile.hpp"
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

// What the search for the most likely ids did since the model was made.
struct HeadSearch {
    std::int64_t tokens = 0;      // searched with a coarse pass
    std::int64_t candidates = 0;  // rows that came out of it above the best exact logit
    std::int64_t groups = 0;      // of exact_rows rows, computed exactly because a candidate is among them
    double largest_error = 0;  // of a rescored row's estimate, in standard deviations of the margin's model
};

class Model {
public:
    Model(const ModelConfig& config, int threads, const std::string& kernel, HeadKind head, bool two_passes,
          int slots, int context, CacheType cache_type, int pages);

    Weights& weights() { return weights_; }
    const Weights& weights() const { return weights_; }
    void finish();

    // logits [rows, vocab], row j for token logits_for[j]; best [best_rows], the id with the largest logit for
    // token best_for[j], the lowest among equals, -1 where the largest is not a finite number. Nothing changes
    // when it throws: std::out_of_range for bad ids, slots, positions and rows, std::invalid_argument for
    // tokens of a slot that are not consecutive, OutOfPages.
    void forward(const std::int32_t* tokens, const std::int32_t* slots, const std::int32_t* positions,
                 std::int64_t n, const std::int32_t* logits_for, std::int64_t rows, float* logits,
                 const std::int32_t* best_for, std::int64_t best_rows, std::int32_t* best);
    Trace trace(const std::int32_t* tokens, std::int64_t n);

    void reset(int slot);
    int length(int slot);
    // `target` forgets what it held and begins with the first `positions` of `source`, in the same pages.
    void share(int source, int target, int positions);
    // Free pages that a forward call with the positions [first, end) of a slot takes.
    int pages_needed(int slot, int first, int end);
    int pages_held(const std::vector<int>& slots);
    const KvCache& cache() const { return cache_; }
    const ModelConfig& config() const { return config_; }
    const Kernels& kernels() const { return kernels_; }
    int threads() const { return pool_.size(); }
    const HeadSearch& head_search() const { return head_search_; }
    // What of the head a step reads that asks for the most likely id only; rescored rows are left out.
    std::int64_t head_bytes_per_best() const {
        return weights_.head.bytes() - (searches_with_one_plane() ? weights_.head.low_bytes() : 0);
    }
    // Bytes of weights by input that steps did not read so far, because the inputs were zero: for each token.
    std::int64_t weight_bytes_skipped() const { return weight_bytes_skipped_; }
    // Products of routed experts so far: one a layer, expert and chunk of tokens, however many tokens it got.
    std::int64_t experts_read() const { return experts_read_; }
    // Forgets what was counted.
    void profile(bool on) { profile_ = {on, {}}; }
    const Profile& profile() const { return profile_; }
    std::int64_t cache_bytes_per_token() const { return cache_.bytes_per_token(); }

    std::mutex mutex;  // held by the caller around everything that is not const

private:
    bool searches_with_one_plane() const { return weights_.head.kind == HeadKind::int8 && two_passes_; }
    struct Chunk;
    void run_chunk(const Chunk& chunk);
    std::vector<Extent> check(const std::int32_t* tokens, const std::int32_t* slots,
                              const std::int32_t* positions, std::int64_t n, const std::int32_t* wanted,
                              std::int64_t rows);
    // x (a row of `width` floats, padded) made ready for the next product: quantised, or as floats for a dense one. Where
    // each linear norms its own input that has to wait, and x goes to scratch_.
    void prepare(const Chunk& chunk, std::int64_t row, const float* x, int width);
    void quantise(const Chunk& chunk, std::int64_t row, const float* x, int width);
    // Those rows, as a product with the matrix takes them.
    QuantisedRows quantised(const Chunk& chunk, const TernaryMatrix& w) const;
    // y = the rows made ready by `prepare`, times the matrix; `prefix` is the layer's in a trace.
    void product(Part part, const Linear& matrix, const Chunk& chunk, float* y, const std::string& prefix);
    // Rows [begin, end) of it, in groups.
    void product_rows(Part part, const Linear& matrix, std::int64_t begin, std::int64_t end, const Chunk& chunk,
                      float* y);
    // The same for a whole matrix by input. False, and nothing done, where the tokens have too few zeros for it.
    bool product_by_input(Profile::Timer& timer, const Linear& matrix, const Chunk& chunk, float* y);
    void trace_product(const Chunk& chunk, const Linear& matrix, const LinearPart& part, const std::string& prefix);
    void rotate_and_cache(const Chunk& chunk, int layer, std::int64_t row);
    void norm_head(float* x, const float* weight, float* room) const;
    void plan_attention(const Chunk& chunk);
    void attend(const Chunk& chunk, int layer);
    void feed_forward(const Chunk& chunk, int layer, const std::string& prefix);
    using Gate = void (*)(const float* gate, const float* up, int n, float* out);
    void gated_product(const Linear& matrix, const Chunk& chunk, Gate activate);
    // experts.cpp
    void experts(const Chunk& chunk, int layer, const std::string& prefix);
    void route(const Chunk& chunk, const LayerWeights& layer);
    void expert_products(Part part, Linear ExpertWeights::* which, const Chunk& chunk, float* y, auto&& at);
    void prepare_entry(const ExpertWork::Group& group, int index, const Linear& matrix, const float* x,
                       int width);
    void trace_expert(const Chunk& chunk, const ExpertWork::Group& group, const std::string& name,
                      const Linear& matrix, int width, std::int64_t first_acc, int rows);
    void trace_routes(const Chunk& chunk, const LayerWeights& layer, const std::string& prefix);
    // A thread's room to unpack a group of rows in.
    std::uint8_t* unpack_scratch(int thread) const {
        return unpack_scratch_.as<std::uint8_t>() + thread * unpack_scratch_bytes_;
    }
    void head(const Chunk& chunk);
    // The last norm of rows of the chunk into input_, one after another; then their logits.
    void norm_rows(const Chunk& chunk, const std::int32_t* rows, int m);
    PlaneRows planes(int m);
    void head_logits(int m, float* y);
    void head_best(int m, std::int32_t* best);
    void best_of_logits(int m, std::int32_t* best);
    void search(PlaneRows x, std::int32_t* best);
    void prepare_search(PlaneRows& x);
    std::int32_t rescore(const PlaneRows& x, int token);
    void for_rows(const Chunk& chunk, auto&& work);
    void for_rows(Part part, const Chunk& chunk, auto&& work);

    const ModelConfig config_;
    const Kernels& kernels_;
    ThreadPool pool_;
    Weights weights_;
    KvCache cache_;  // its slot number slots_ is trace's
    const int slots_, context_;
    bool finished_ = false;
    Profile profile_;

    // Activations of a chunk, row-major with padded strides. Padding is zero and stays so.
    int hidden_stride_, attention_stride_, qkv_stride_, ffn_stride_, input_stride_, code_stride_;
    Buffer hidden_, qkv_, attention_, gate_up_, result_, scratch_, rope_;
    // The input of the product that comes next, as floats or quantised, and the int32 results when traced.
    Buffer input_, codes_, quads_, scales_, sums_, accumulators_;
    Buffer unpack_scratch_, attention_scratch_, embedding_rows_, gated_;
    // Of the head: sums by chunks of 32 inputs, logits whose largest is wanted; of the coarse pass its tokens
    // and its candidates.
    Buffer chunk_sums_, best_logits_, high_, candidates_;
    std::vector<CoarseSearch> searches_;  // [thread][token]
    std::vector<CoarseRow> kept_;
    const bool two_passes_;
    HeadSearch head_search_;
    std::int64_t unpack_scratch_bytes_, attention_scratch_floats_;
    // Of a product by input: the inputs of each token that are not zero, where each range of them ends, and sums
    // [thread][token][rows].
    std::vector<std::int32_t> inputs_, input_ends_;
    Buffer input_sums_;
    std::int64_t weight_bytes_skipped_ = 0;
    ExpertWork expert_work_;
    std::int64_t experts_read_ = 0;

    struct AttentionCall {
        std::int64_t begin, end;  // rows of the chunk
        int kv_head, part;        // heads part * heads_each_ .. of those that share the key-value head
        int piece;                // -1: all positions
        std::int64_t merge;       // index of the first row's first head in merges_
    };
    struct AttentionMerge {
        std::int64_t row;
        int head, pieces;
        std::int64_t states;  // offset of the first piece's in attention_states_
    };
    int heads_each_ = 1;
    std::vector<AttentionCall> calls_;
    std::vector<AttentionMerge> merges_;
    Buffer attention_states_;
};

}  // namespace tritwise
