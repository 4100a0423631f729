// A persistent pool for many short parallel sections: a decode step has about 150 of them, tens of
// microseconds each.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace tritwise {

// A section is a count of items, and an even share of them for each thread. A thread claims runs of its own share, the
// first as long as half of it, then takes from the others' shares what they have not claimed. The caller waits for
// claimed items only: a thread that the system has descheduled between two sections holds nobody up. (One that it
// deschedules inside a run still does, for a time slice.)
//
// Two cores may be as far apart as two dies, where a cache line takes 200 ns to pass from one to the other: as long as a
// product reads 16 KB of weights. So a section is announced by one line, each thread claims from a line of its own,
// which the others touch at the end, and reports once.
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
    // Number of the section << 32 | items of a thread's share that are claimed. Under another number, none is.
    struct alignas(64) Share {
        std::atomic<std::uint64_t> claimed{0};
    };
    void dispatch(Function function, void* context, std::uint32_t count);
    std::uint32_t work_on(std::uint32_t number, int thread);
    void worker(int thread);
    void stop();

    int size_;
    std::uint32_t expected_ = 0;  // of done_, when all that the workers have claimed is finished
    // What the section of a number does lies at number % 2, so that one is written while a late thread reads the last.
    struct Section {
        std::atomic<Function> function{nullptr};
        std::atomic<void*> context{nullptr};
        std::atomic<std::uint32_t> count{0};
    };
    alignas(64) Section sections_[2];
    std::atomic<std::uint32_t> number_{0};
    std::atomic<bool> stop_{false};
    alignas(64) std::atomic<std::uint32_t> done_{0};  // items that workers have finished, of all sections, modulo 2^32
    std::unique_ptr<Share[]> shares_;
    std::vector<std::thread> threads_;
};

}  // namespace tritwise
