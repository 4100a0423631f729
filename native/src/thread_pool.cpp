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

ThreadPool::ThreadPool(int threads) : size_(threads), shares_(new Share[threads]) {
    try {
        for (int i = 1; i < threads; ++i) threads_.emplace_back([this, i] { worker(i); });
    } catch (...) {  // the system gives no more threads: end those that run, then report
        stop();
        throw;
    }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
    stop_.store(true);
    number_.fetch_add(1);
    number_.notify_all();
    for (auto& thread : threads_) thread.join();
}

// Claims and does runs until none is left, and returns how many items they had. A claim succeeds only while the section
// is the one of `number`: when it has ended, every share of it is claimed whole, and stays so or gets a later number.
std::uint32_t ThreadPool::work_on(std::uint32_t number, int thread) {
    const Section& section = sections_[number % 2];
    const Function function = section.function.load(std::memory_order_acquire);
    void* context = section.context.load(std::memory_order_acquire);
    const std::uint64_t count = section.count.load(std::memory_order_acquire);
    // What was read can only be of the section after the next one when the next one was announced before.
    if (number_.load(std::memory_order_acquire) != number) return 0;
    const auto size = static_cast<std::uint64_t>(size_);
    std::uint32_t all = 0;
    for (int i = 0; i < size_; ++i) {
        const std::uint64_t owner = static_cast<std::uint64_t>(thread + i) % size, first = count * owner / size;
        const auto share = static_cast<std::uint32_t>(count * (owner + 1) / size - first);
        std::atomic<std::uint64_t>& place = shares_[owner].claimed;
        std::uint32_t finished = 0;
        for (std::uint64_t value = place.load(std::memory_order_acquire);;) {
            const auto of = static_cast<std::uint32_t>(value >> 32);
            if (static_cast<std::int32_t>(of - number) > 0) return all;  // ended, so nothing was finished here
            const std::uint32_t claimed = of == number ? static_cast<std::uint32_t>(value) : 0, left = share - claimed;
            if (!left) break;
            const std::uint32_t take = left - left / 2;
            if (!place.compare_exchange_weak(value, std::uint64_t{number} << 32 | (claimed + take),
                                             std::memory_order_acq_rel, std::memory_order_acquire))
                continue;
            const auto begin = static_cast<std::int64_t>(first + claimed);
            function(context, begin, begin + take, thread);
            finished += take;
            value = place.load(std::memory_order_acquire);
        }
        all += finished;
        if (thread && finished) {
            done_.fetch_add(finished, std::memory_order_acq_rel);
            done_.notify_one();
        }
    }
    return all;
}

void ThreadPool::dispatch(Function function, void* context, std::uint32_t count) {
    const std::uint32_t number = number_.load(std::memory_order_relaxed) + 1;
    Section& section = sections_[number % 2];
    section.function.store(function, std::memory_order_release);
    section.context.store(context, std::memory_order_release);
    section.count.store(count, std::memory_order_release);
    number_.fetch_add(1, std::memory_order_acq_rel);
    number_.notify_all();
    expected_ += count - work_on(number, 0);
    for (std::uint32_t done; (done = done_.load(std::memory_order_acquire)) != expected_;) wait_while(done_, done);
}

void ThreadPool::worker(int thread) {
    for (;;) {
        const std::uint32_t number = number_.load(std::memory_order_acquire);
        if (stop_.load(std::memory_order_relaxed)) return;
        work_on(number, thread);
        wait_while(number_, number);
    }
}

}  // namespace tritwise
