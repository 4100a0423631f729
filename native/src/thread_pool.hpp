// A persistent pool for many short parallel sections: a decode step has about 150 of them, tens of
// microseconds each.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace tritwise {

// A section is a count of items. Threads claim runs of neighbouring items, large ones first, until none is
// left, and the caller waits for claimed items only: a thread that the system has descheduled between two
// sections holds nobody up. (One that it deschedules inside a run still does, for a time slice.)
class ThreadPool {
public:
    explicit ThreadPool(int threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int size() const { return size_; }

    // Calls work(begin, end, thread) for ranges that cover 0..count once, and returns when all are done.
    // `thread` is 0..size-1, and no two calls with the same one run at once; the caller is thread 0. `work`
    // must not throw, the result must not depend on the ranges, and only one thread may call for_ranges at a
    // time.
    template <class Work>
    void for_ranges(std::int64_t count, Work&& work) {
        using Plain = std::remove_reference_t<Work>;
        if (count < 1) return;
        if (size_ == 1 || count == 1) {
            work(std::int64_t{0}, count, 0);
            return;
        }
        dispatch([](void* context, std::int64_t begin, std::int64_t end,
                    int thread) { (*static_cast<Plain*>(context))(begin, end, thread); },
                 const_cast<void*>(static_cast<const void*>(&work)), static_cast<std::uint32_t>(count));
    }

private:
    using Function = void (*)(void*, std::int64_t, std::int64_t, int);
    void dispatch(Function function, void* context, std::uint32_t count);
    void claim_all(int thread);
    void worker(int thread);

    int size_;
    // The section. A late thread may read these while the next section is written; its claim then fails
    // (claim_all).
    std::atomic<Function> function_{nullptr};
    std::atomic<void*> context_{nullptr};
    std::atomic<std::uint32_t> count_{0};
    // On lines of their own, because all threads write or watch them.
    alignas(64) std::atomic<std::uint64_t> ticket_{
        0};  // number of the section << 32 | items that are not claimed
    alignas(64) std::atomic<std::uint32_t> done_{0};  // items that are finished
    alignas(64) std::atomic<std::uint32_t> section_{0};
    alignas(64) std::atomic<bool> stop_{false};
    std::vector<std::thread> threads_;
};

}  // namespace tritwise
