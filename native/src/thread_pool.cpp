#include "thread_pool.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tritwise {

static inline void relax() {
#if defined(__x86_64__)
    _mm_pause();
#endif
}

// Waits until `value` is no longer `old`. First it spins, because the next section of a forward pass follows within
// microseconds; then it yields, so that on an oversubscribed machine the thread that is waited for gets the core;
// then it sleeps, so that an idle model costs nothing.
static void wait_while(const std::atomic<std::uint32_t>& value, std::uint32_t old) {
    for (int i = 0; i < 1500; ++i) {
        if (value.load(std::memory_order_acquire) != old) return;
        relax();
    }
    for (int i = 0; i < 50; ++i) {
        if (value.load(std::memory_order_acquire) != old) return;
        std::this_thread::yield();
    }
    value.wait(old, std::memory_order_acquire);
}

ThreadPool::ThreadPool(int threads) : size_(threads) {
    try {
        for (int i = 1; i < threads; ++i) threads_.emplace_back([this, i] { worker(i); });
    } catch (...) {  // the system gives no more threads: end those that run, then report
        stop_.store(true);
        generation_.fetch_add(1);
        generation_.notify_all();
        for (auto& thread : threads_) thread.join();
        throw;
    }
}

ThreadPool::~ThreadPool() {
    stop_.store(true);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    for (auto& thread : threads_) thread.join();
}

void ThreadPool::dispatch(Function function, void* context) {
    function_ = function;
    context_ = context;
    running_.store(static_cast<std::uint32_t>(size_ - 1), std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    function(context, 0);
    for (std::uint32_t left; (left = running_.load(std::memory_order_acquire)) != 0;) wait_while(running_, left);
}

void ThreadPool::worker(int thread) {
    std::uint32_t seen = 0;
    for (;;) {
        wait_while(generation_, seen);
        seen = generation_.load(std::memory_order_acquire);
        if (stop_.load()) return;
        function_(context_, thread);
        if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_one();
    }
}

}  // namespace tritwise
