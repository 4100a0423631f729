#include "kv_cache.hpp"

#include <algorithm>
#include <cstring>
#include <string>

namespace tritwise {

static constexpr std::int64_t system_page = 4096;

static int pages_of(int positions) { return (positions + page_positions - 1) / page_positions; }

KvCache::KvCache(CacheType type, int slots, int layers, int heads, int head_dim, int context, int pages)
    : layout_(type, head_dim),
      layers_(layers),
      heads_(heads),
      total_(pages),
      // Whole pages of the system, so that one can be given back without its neighbours.
      page_bytes_(round_up(std::int64_t{layers} * heads * layout_.region_bytes, system_page)),
      lengths_(slots + 1, 0),
      references_(pages, 0),
      tables_(slots + 1),
      buffer_(static_cast<std::size_t>(pages + pages_of(context)) * page_bytes_, Pages::lazy) {
    for (int i = pages; i > 0; --i) free_.push_back(i - 1);
    for (int i = 0; i < pages_of(context); ++i) tables_[slots].push_back(pages + i);
}

std::int32_t KvCache::take() {
    const std::int32_t taken = free_.back();
    free_.pop_back();
    references_[taken] = 1;
    return taken;
}

void KvCache::drop(std::int32_t index, bool give_back) {
    if (--references_[index]) return;
    free_.push_back(index);
    if (give_back) release_memory(page(index), static_cast<std::size_t>(page_bytes_));
}

void KvCache::truncate(int slot, std::size_t pages, bool give_back) {
    for (; tables_[slot].size() > pages; tables_[slot].pop_back()) drop(tables_[slot].back(), give_back);
}

int KvCache::pages_needed(const Extent& extent) const {
    const auto& table = tables_[extent.slot];
    const int held = static_cast<int>(table.size()), end = pages_of(extent.end);
    int needed = std::max(0, end - held);
    for (int i = extent.first / page_positions; i < std::min(end, held); ++i)
        needed += references_[table[i]] > 1;
    for (int i = end; i < held; ++i) needed -= references_[table[i]] == 1;
    return needed;
}

int KvCache::pages_held(const std::vector<int>& slots) const {
    std::vector<char> seen(total_, 0);
    int count = 0;
    for (const int slot : slots)
        for (const std::int32_t index : tables_[slot])
            if (!seen[index]++) ++count;
    return count;
}

void KvCache::reserve(const std::vector<Extent>& extents) {
    std::int64_t needed = 0;
    for (const Extent& extent : extents) needed += pages_needed(extent);
    if (needed > static_cast<std::int64_t>(free_.size()))
        throw OutOfPages(std::to_string(needed) + " pages of " + std::to_string(page_positions) +
                         " positions are needed, " + std::to_string(free_.size()) + " of " +
                         std::to_string(total_) + " are free");
    // What is given back first: it may be what another extent takes. A rewind keeps the memory, because the
    // slot is about to grow again.
    for (const Extent& extent : extents) truncate(extent.slot, pages_of(extent.end), false);
    for (const Extent& extent : extents) {
        auto& table = tables_[extent.slot];
        for (int i = extent.first / page_positions; i < pages_of(extent.end); ++i) {
            if (i == static_cast<int>(table.size())) {
                table.push_back(take());
            } else if (references_[table[i]] > 1) {
                const std::int32_t copy = take();
                // Of the first page the positions before the extent stay.
                if (i * page_positions < extent.first)
                    std::memcpy(page(copy), page(table[i]), static_cast<std::size_t>(page_bytes_));
                drop(table[i], false);
                table[i] = copy;
            }
        }
        lengths_[extent.slot] = extent.first;
    }
}

void KvCache::share(int source, int target, int positions) {
    if (source == target) {
        truncate(target, pages_of(positions), true);
    } else {
        const std::vector<std::int32_t> shared(tables_[source].begin(),
                                               tables_[source].begin() + pages_of(positions));
        for (const std::int32_t index : shared) ++references_[index];
        truncate(target, 0, true);
        tables_[target] = shared;
    }
    lengths_[target] = positions;
}

void KvCache::reset(int slot) {
    truncate(slot, 0, true);
    lengths_[slot] = 0;
}

std::int64_t KvCache::bytes_per_token() const {
    const std::int64_t scale_bytes = layout_.type == CacheType::int4 ? 2 : 4;
    return std::int64_t{layers_} * heads_ *
           (layout_.bytes(layout_.head_dim) + layout_.bytes(layout_.value_width) +
            2 * layout_.groups * scale_bytes);
}

}  // namespace tritwise
