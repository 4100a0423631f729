#include "kernels.hpp"

#include <stdexcept>

#include "cpu.hpp"

namespace tritwise {

std::vector<const Kernels*> available_kernels() {
    std::vector<const Kernels*> found;
#if defined(__x86_64__)
    if (cpu_has_avx512vbmi()) found.push_back(&kernels_avx512vbmi());
    if (cpu_has_avx512vnni()) found.push_back(&kernels_avx512vnni());
    if (cpu_has_avxvnni()) found.push_back(&kernels_avxvnni());
    if (cpu_has_avx2()) found.push_back(&kernels_avx2());
#elif defined(__aarch64__)
    if (cpu_has_neon_dotprod()) found.push_back(&kernels_neon());
#endif
    found.push_back(&kernels_scalar());
    return found;
}

const Kernels& kernels_named(const std::string& name) {
    std::string names;
    for (const Kernels* kernels : available_kernels()) {
        if (name == kernels->name) return *kernels;
        names += names.empty() ? "" : ", ";
        names += kernels->name;
    }
    throw std::invalid_argument("kernel '" + name + "' cannot run on this processor; it has " + names);
}

}  // namespace tritwise
