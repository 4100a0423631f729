#include "cpu.hpp"

#include <fstream>
#include <thread>

#if defined(__x86_64__)
#include <cpuid.h>
#include <cstring>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace tritwise {

#if defined(__x86_64__)

// __builtin_cpu_supports also asks the operating system whether it saves the wide registers.
bool cpu_has_avx2() {
    __builtin_cpu_init();
    unsigned a = 0, b = 0, c = 0, d = 0;
    const bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
    return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

bool cpu_has_avxvnni() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return cpu_has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}

bool cpu_has_avx512vnni() {
    return cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}

bool cpu_has_avx512vbmi() { return cpu_has_avx512vnni() && __builtin_cpu_supports("avx512vbmi"); }

static std::string brand_string() {
    unsigned regs[12] = {};
    if (__get_cpuid_max(0x80000000u, nullptr) < 0x80000004u) return {};
    for (unsigned leaf = 0; leaf < 3; ++leaf) {
        unsigned* r = regs + 4 * leaf;
        __get_cpuid(0x80000002u + leaf, &r[0], &r[1], &r[2], &r[3]);
    }
    char text[sizeof(regs) + 1] = {};
    std::memcpy(text, regs, sizeof(regs));
    const std::string brand(text);
    const auto first = brand.find_first_not_of(' ');
    const auto last = brand.find_last_not_of(' ');
    return first == std::string::npos ? std::string() : brand.substr(first, last - first + 1);
}

static std::vector<std::string> feature_names() {
    __builtin_cpu_init();
    std::vector<std::string> names;
    if (__builtin_cpu_supports("avx2")) names.emplace_back("avx2");
    if (__builtin_cpu_supports("fma")) names.emplace_back("fma");
    if (cpu_has_avx2()) names.emplace_back("f16c");
    if (cpu_has_avxvnni()) names.emplace_back("avxvnni");
    if (__builtin_cpu_supports("avx512f")) names.emplace_back("avx512f");
    if (__builtin_cpu_supports("avx512bw")) names.emplace_back("avx512bw");
    if (__builtin_cpu_supports("avx512vl")) names.emplace_back("avx512vl");
    if (__builtin_cpu_supports("avx512dq")) names.emplace_back("avx512dq");
    if (__builtin_cpu_supports("avx512vnni")) names.emplace_back("avx512vnni");
    if (__builtin_cpu_supports("avx512vbmi")) names.emplace_back("avx512vbmi");
    if (__builtin_cpu_supports("avx512bf16")) names.emplace_back("avx512bf16");
    return names;
}

bool cpu_has_neon_dotprod() { return false; }

#else

bool cpu_has_avx2() { return false; }
bool cpu_has_avxvnni() { return false; }
bool cpu_has_avx512vnni() { return false; }
bool cpu_has_avx512vbmi() { return false; }
static std::string brand_string() { return {}; }

bool cpu_has_neon_dotprod() {
#if defined(__aarch64__) && defined(__linux__)
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#elif defined(__aarch64__) && defined(__APPLE__)
    int found = 0;
    std::size_t size = sizeof(found);
    return sysctlbyname("hw.optional.arm.FEAT_DotProd", &found, &size, nullptr, 0) == 0 && found;
#else
    return false;
#endif
}

static std::vector<std::string> feature_names() {
    return cpu_has_neon_dotprod() ? std::vector<std::string>{"dotprod"} : std::vector<std::string>{};
}

#endif

// Bytes of a cache as Linux states them ("32768K"); sysconf counts the third level of some processors many
// times.
static std::int64_t cache_bytes([[maybe_unused]] int level) {
#if defined(__linux__)
    for (int index = 0; index < 8; ++index) {
        const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
        int found = 0;
        std::string type;
        std::int64_t size = 0;
        char unit = 'B';
        if (!(std::ifstream(folder + "level") >> found) || found != level) continue;
        if (!(std::ifstream(folder + "type") >> type) || type == "Instruction") continue;
        std::ifstream(folder + "size") >> size >> unit;
        return size * (unit == 'K' ? 1024 : unit == 'M' ? 1024 * 1024 : 1);
    }
#endif
    return 0;
}

CpuInfo cpu_info() {
    CpuInfo info;
    info.brand = brand_string();
    info.features = feature_names();
    const unsigned cores = std::thread::hardware_concurrency();
    info.logical_cores = cores ? static_cast<int>(cores) : 1;
    info.l1d_bytes = cache_bytes(1);
    info.l2_bytes = cache_bytes(2);
    info.l3_bytes = cache_bytes(3);
    return info;
}

}  // namespace tritwise
