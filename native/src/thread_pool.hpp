// A persistent pool for many short parallel sections: a decode step has about 150 of them, tens of microseconds each.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace tritwise {

// The part of `count` items that falls to `part` of `parts`: contiguous, sizes differ by one at most.
inline std::pair<std::int64_t, std::int64_t> part_of(std::int64_t count, int part, int parts) {
    return {count * part / parts, count * (part + 1) / parts};
}

class ThreadPool {
public:
    explicit ThreadPool(int threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int size() const { return size_; }

    // Calls work(thread) once for each thread 0..size-1 and returns when all are done. The caller is thread 0.
    // `work` must not throw, and only one thread may call run at a time.
    template <class Work>
    void run(Work&& work) {
        using Plain = std::remove_reference_t<Work>;
        if (size_ == 1) {
            work(0);
            return;
        }
        dispatch([](void* context, int thread) { (*static_cast<Plain*>(context))(thread); },
                 const_cast<void*>(static_cast<const void*>(&work)));
    }

    // work(begin, end) over contiguous parts of 0..count.
    template <class Work>
    void for_ranges(std::int64_t count, Work&& work) {
        run([&](int thread) {
            const auto [begin, end] = part_of(count, thread, size_);
            if (begin < end) work(begin, end);
        });
    }

private:
    using Function = void (*)(void*, int);
    void dispatch(Function function, void* context);
    void worker(int thread);

    int size_;
    Function function_ = nullptr;
    void* context_ = nullptr;
    // On lines of their own: the workers spin on the one while others count the other down.
    alignas(64) std::atomic<std::uint32_t> generation_{0};
    alignas(64) std::atomic<std::uint32_t> running_{0};
    alignas(64) std::atomic<bool> stop_{false};
    std::vector<std::thread> threads_;
};

}  // namespace tritwise
