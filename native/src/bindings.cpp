#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "cpu.hpp"

namespace nb = nanobind;

static std::vector<std::string> kernels() {
    std::vector<std::string> names;
    if (tritwise::cpu_has_avx512vnni()) names.emplace_back("avx512vnni");
    if (tritwise::cpu_has_avx2()) names.emplace_back("avx2");
    names.emplace_back("scalar");
    return names;
}

NB_MODULE(_native, m) { m.def("kernels", &kernels); }
