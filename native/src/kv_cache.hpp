// Keys and values of all sequences, in pages that sequences may share.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <vector>

#include "kv_cache_layout.hpp"
#include "memory.hpp"

namespace tritwise {

// Every page is in use. Nothing has changed.
struct OutOfPages : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Positions [first, end) of a slot that are about to be written.
struct Extent {
    int slot, first, end;
};

// A page belongs to the slots whose tables name it, and is free when none does. A slot writes only to pages
// that are its own: `reserve` copies one that is shared. One more slot, number `slots`, has pages of its own
// for `context` positions, which nothing counts: it never runs out.
class KvCache {
public:
    KvCache(CacheType type, int slots, int layers, int heads, int head_dim, int context, int pages);

    const CacheLayout& layout() const { return layout_; }
    std::int64_t page_bytes() const { return page_bytes_; }
    // The region of a layer and head in page 0, and the pages of a slot.
    char* base(int layer, int head) const {
        return buffer_.as<char>() + (std::int64_t{layer} * heads_ + head) * layout_.region_bytes;
    }
    const std::int32_t* pages(int slot) const { return tables_[slot].data(); }
    char* region(int slot, int layer, int head, int position) const {
        return base(layer, head) + tables_[slot][position / page_positions] * page_bytes_;
    }

    int length(int slot) const { return lengths_[slot]; }
    void set_length(int slot, int length) { lengths_[slot] = length; }

    // Makes the positions of each extent writable and drops what the slot held beyond `end`; its length becomes
    // `first`. At most one extent a slot, none beyond the slot's length. Throws OutOfPages and changes nothing.
    void reserve(const std::vector<Extent>& extents);
    // Free pages that `reserve` of this extent alone takes: less than zero when it gives some back. Exact but
    // where two extents of one call end the sharing of a page between them: then less is taken.
    int pages_needed(const Extent& extent) const;
    // Pages that these slots hold, each counted once.
    int pages_held(const std::vector<int>& slots) const;
    // `target` forgets what it held and shares the first `positions` of `source`.
    void share(int source, int target, int positions);
    void reset(int slot);  // its memory goes back to the system

    int pages_total() const { return total_; }
    int pages_in_use() const { return total_ - static_cast<int>(free_.size()); }
    std::int64_t bytes_per_token() const;

private:
    char* page(std::int32_t index) const { return buffer_.as<char>() + index * page_bytes_; }
    std::int32_t take();
    void drop(std::int32_t page, bool give_back);
    void truncate(int slot, std::size_t pages, bool give_back);

    CacheLayout layout_;
    int layers_, heads_, total_;
    std::int64_t page_bytes_;
    std::vector<int> lengths_, references_;
    std::vector<std::vector<std::int32_t>> tables_;
    std::vector<std::int32_t> free_;  // the last one is taken first: it is most likely still in the caches
    Buffer buffer_;
};

}  // namespace tritwise
