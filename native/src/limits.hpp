// What the machine gives: the limits that a decode step and prefill are compared with.
#pragma once

#include <cstdint>
#include <string>

namespace tritwise {

// The best of `repeats` passes in which `threads` threads read `bytes` of memory once, in bytes a second.
double measure_read_bandwidth(int threads, std::int64_t bytes, int repeats);

// Products of two 8-bit numbers a second that `threads` threads multiply and add up in registers, with the instructions
// of the kernel's panels and nothing else: the best of `repeats` runs of some milliseconds.
double measure_products(int threads, const std::string& kernel, int repeats);

}  // namespace tritwise
