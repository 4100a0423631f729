#include "limits.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "kernels.hpp"
#include "memory.hpp"
#include "thread_pool.hpp"

namespace tritwise {

double measure_read_bandwidth(int threads, std::int64_t bytes, int repeats) {
    const Kernels& kernels = *available_kernels().front();
    ThreadPool pool(threads);
    const std::int64_t blocks = bytes / 256;
    Buffer buffer(static_cast<std::size_t>(blocks) * 256, Pages::huge);
    const auto each = [&](auto&& work) {
        pool.for_ranges(blocks, [&](std::int64_t begin, std::int64_t end, int) {
            work(buffer.as<char>() + begin * 256, static_cast<std::size_t>(end - begin) * 256);
        });
    };
    each([](char* data, std::size_t size) { std::memset(data, 0x5A, size); });
    std::atomic<std::uint64_t> sink{0};  // keeps the reads
    double best = 0;
    for (int i = 0; i < repeats; ++i) {
        const auto start = std::chrono::steady_clock::now();
        each([&](const char* data, std::size_t size) { sink ^= kernels.read(data, size); });
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        best = std::max(best, static_cast<double>(blocks * 256) / seconds.count());
    }
    return best;
}

double measure_products(int threads, const std::string& kernel, int repeats) {
    const Kernels& kernels = kernels_named(kernel);
    ThreadPool pool(threads);
    constexpr std::int64_t items = 64, rounds = 20000;
    std::atomic<std::uint64_t> sink{0};  // keeps the products
    double best = 0;
    for (int i = 0; i < repeats; ++i) {
        std::atomic<std::int64_t> products{0};
        const auto start = std::chrono::steady_clock::now();
        pool.for_ranges(items * threads, [&](std::int64_t begin, std::int64_t end, int) {
            std::uint64_t word = 0;
            products += kernels.multiply(rounds * (end - begin), &word);
            sink ^= word;
        });
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        best = std::max(best, static_cast<double>(products.load()) / seconds.count());
    }
    return best;
}

}  // namespace tritwise
