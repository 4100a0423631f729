#include "thread_pool.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tritwise {

static inline void relax() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

// Waits until `value` is no longer `old`. First it spins, because the next section of a forward pass follows
// within microseconds; then it yields, so that on an oversubscribed machine the thread that is waited for
// gets the core; then it sleeps, so that an idle model costs nothing.
static void wait_while(const std::atomic<std::uint32_t>& value, std::uint32_t old) {
    for (int i = 0; i < 1500; ++i) {
        if (value.load(std::memory_order_acquire) != old) return;
        relax();
    }
    for (int i = 0; i < 20; ++i) {
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
        section_.fetch_add(1);
        section_.notify_all();
        for (auto& thread : threads_) thread.join();
        throw;
    }
}

ThreadPool::~ThreadPool() {
    stop_.store(true);
    section_.fetch_add(1);
    section_.notify_all();
    for (auto& thread : threads_) thread.join();
}

// A claim succeeds only if the ticket is still the one that was read. Then its section cannot have ended,
// since items of it were not claimed, and so function, context and count, read in between, are that
// section's.
void ThreadPool::claim_all(int thread) {
    std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
    for (;;) {
        const auto left = static_cast<std::uint32_t>(ticket);
        if (left == 0) return;
        const Function function = function_.load(std::memory_order_relaxed);
        void* context = context_.load(std::memory_order_relaxed);
        const std::uint32_t count = count_.load(std::memory_order_relaxed);
        // Three quarters of an even share of what is left: long sequential runs first, since each begins with a wait for
        // memory, and an end without stragglers.
        const auto share = static_cast<std::uint32_t>(std::uint64_t{left} * 3 / (4 * static_cast<unsigned>(size_)));
        const std::uint32_t take = share ? share : 1;
        if (!ticket_.compare_exchange_weak(ticket, ticket - take, std::memory_order_acq_rel,
                                           std::memory_order_acquire))
            continue;
        const std::int64_t begin = count - left;
        function(context, begin, begin + take, thread);
        if (done_.fetch_add(take, std::memory_order_acq_rel) + take == count) done_.notify_one();
        ticket = ticket_.load(std::memory_order_acquire);
    }
}

void ThreadPool::dispatch(Function function, void* context, std::uint32_t count) {
    function_.store(function, std::memory_order_relaxed);
    context_.store(context, std::memory_order_relaxed);
    count_.store(count, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    const std::uint64_t number = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
    ticket_.store(number << 32 | count, std::memory_order_release);
    section_.fetch_add(1, std::memory_order_release);
    section_.notify_all();
    claim_all(0);
    for (std::uint32_t done; (done = done_.load(std::memory_order_acquire)) != count;)
        wait_while(done_, done);
}

void ThreadPool::worker(int thread) {
    for (;;) {
        const std::uint32_t seen = section_.load(std::memory_order_acquire);
        if (stop_.load()) return;
        claim_all(thread);
        wait_while(section_, seen);
    }
}

}  // namespace tritwise
