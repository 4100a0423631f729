// What the memory gives: the limit that a decode step is compared with.
#pragma once

#include <cstdint>

namespace tritwise {

// The best of `repeats` passes in which `threads` threads read `bytes` of memory once, in bytes a second.
double measure_read_bandwidth(int threads, std::int64_t bytes, int repeats);

}  // namespace tritwise
