// The thread pool: every item once, sections that follow each other closely and after a sleep, start and end.
#include <chrono>
#include <thread>
#include <vector>

#include "checks.hpp"
#include "thread_pool.hpp"

namespace tritwise::checks {

// Plain integers, so that ThreadSanitizer sees any two threads that touch one item, and any section that
// starts before the last one's writes are visible.
static long check_sections(int threads, int sections, bool sleeps, Random& random) {
    ThreadPool pool(threads);
    std::vector<int> times(512, 0);
    std::vector<int> expected(512, 0);
    std::vector<long> work_of_thread(static_cast<std::size_t>(threads), 0);  // one writer each
    long items = 0;
    for (int section = 0; section < sections; ++section) {
        const int count = section % 3 ? random.integer(0, 8) : random.integer(0, 512);
        pool.for_ranges(count, [&](std::int64_t begin, std::int64_t end, int thread) {
            for (std::int64_t i = begin; i < end; ++i) ++times[static_cast<std::size_t>(i)];
            work_of_thread[static_cast<std::size_t>(thread)] += end - begin;
        });
        for (int i = 0; i < count; ++i) ++expected[static_cast<std::size_t>(i)];
        items += count;
        CHECK(times == expected,
              "section " + std::to_string(section) + " of " + std::to_string(threads) + " threads");
        // Long enough for the threads to fall asleep, in every tenth section.
        if (sleeps && section % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    long done = 0;
    for (long part : work_of_thread) done += part;
    CHECK(done == items, std::to_string(threads) + " threads");
    return sections;
}

long check_pool(bool quick) {
    Random random(3);
    long checks = 0;
    for (int threads : {1, 2, 3, 5, 8}) {
        checks += check_sections(threads, quick ? 1000 : 10000, false, random);
        checks += check_sections(threads, quick ? 200 : 1000, true, random);
    }
    // A pool that is ended at once, after one section and while its threads may not have started.
    for (int i = 0; i < (quick ? 50 : 300); ++i) {
        ThreadPool pool(1 + i % 6);
        int sum = 0;
        if (i % 2) pool.for_ranges(1, [&](std::int64_t, std::int64_t, int) { ++sum; });
        CHECK(sum == i % 2, "pool " + std::to_string(i));
        ++checks;
    }
    return checks;
}

}  // namespace tritwise::checks
