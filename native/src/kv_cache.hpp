// Keys and values of all sequences, float32, in the layout that the attention kernels read.
#pragma once

#include <cstdint>
#include <vector>

#include "memory.hpp"

namespace tritwise {

// One region a (slot, layer, head): keys [context/16][head_dim][16], then values [context][head_dim padded to
// 16]. The address space of all slots is reserved at once; a page becomes resident when a position on it is
// written.
class KvCache {
public:
    KvCache(int slots, int layers, int heads, int head_dim, int context)
        : layers_(layers),
          heads_(heads),
          head_dim_(head_dim),
          value_stride_(static_cast<int>(round_up(head_dim, 16))),
          context_(round_up(context, 16)),
          lengths_(slots, 0),
          buffer_(static_cast<std::size_t>(slots) * layers * heads * region() * sizeof(float), Pages::lazy) {}

    float* keys(int slot, int layer, int head) const {
        return buffer_.as<float>() + ((std::int64_t{slot} * layers_ + layer) * heads_ + head) * region();
    }
    float* values(int slot, int layer, int head) const {
        return keys(slot, layer, head) + context_ * head_dim_;
    }
    int value_stride() const { return value_stride_; }

    void write(int slot, int layer, int head, std::int64_t position, const float* key,
               const float* value) const {
        float* k = keys(slot, layer, head) + position / 16 * head_dim_ * 16 + position % 16;
        float* v = values(slot, layer, head) + position * value_stride_;
        for (int d = 0; d < head_dim_; ++d) {
            k[d * 16] = key[d];
            v[d] = value[d];
        }
    }

    // Positions that are cached; the model sets it.
    int& length(int slot) { return lengths_[slot]; }
    std::int64_t bytes_per_token() const {
        return std::int64_t{layers_} * heads_ * (head_dim_ + value_stride_) *
               static_cast<std::int64_t>(sizeof(float));
    }

private:
    std::int64_t region() const { return context_ * (head_dim_ + value_stride_); }

    int layers_, heads_, head_dim_, value_stride_;
    std::int64_t context_;
    std::vector<int> lengths_;
    Buffer buffer_;
};

}  // namespace tritwise
