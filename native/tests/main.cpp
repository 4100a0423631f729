// Checks of the core that need no Python: every kernel that this processor has against the scalar one, the
// whole model on a tiny one, the thread pool. Built with sanitizers by tests/native/test_native_sanitizers.py
// and for other processors by `make test-arm`, `make test-avx2` and `make test-avx512`.
//
//     native_checks [--quick] [--fastest NAME] [--kernel NAME] [kernels] [pool] [models] [texts]
//
// Without a part, all of them. --kernel leaves the other kernels out; --fastest fails unless NAME is what is
// chosen on this processor.
#include <algorithm>
#include <chrono>
#include <string_view>
#include <vector>

#include "checks.hpp"
#include "cpu.hpp"

namespace tritwise::checks {

void fail(const char* file, int line, const char* condition, const std::string& where) {
    std::fprintf(stderr, "%s:%d: %s is false: %s\n", file, line, condition, where.c_str());
    std::fflush(nullptr);
    std::_Exit(1);
}

template <class Check>
static void run(const char* what, Check&& check) {
    const auto start = std::chrono::steady_clock::now();
    const long comparisons = check();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    std::printf("%-28s %8ld comparisons  %6.1f s\n", what, comparisons, seconds.count());
    std::fflush(stdout);
}

static int main_of(int count, char** arguments) {
    bool quick = false;
    std::string_view fastest, kernel;
    std::vector<std::string_view> parts;
    for (int i = 1; i < count; ++i) {
        const std::string_view argument = arguments[i];
        if (argument == "--quick") quick = true;
        else if (argument == "--fastest" && i + 1 < count) fastest = arguments[++i];
        else if (argument == "--kernel" && i + 1 < count) kernel = arguments[++i];
        else if (argument == "kernels" || argument == "pool" || argument == "models" ||
                 argument == "texts")
            parts.push_back(argument);
        else {
            std::fprintf(stderr,
                         "usage: native_checks [--quick] [--fastest NAME] [--kernel NAME] [kernels] [pool] "
                         "[models] [texts]\n");
            return 2;
        }
    }
    const auto wanted = [&](std::string_view part) {
        return parts.empty() || std::find(parts.begin(), parts.end(), part) != parts.end();
    };

    std::string features;
    for (const std::string& name : cpu_info().features) features += " " + name;
    std::printf("features:%s\nkernels, fastest first:", features.c_str());
    auto kernels = available_kernels();
    for (const Kernels* table : kernels) std::printf(" %s", table->name);
    std::printf("\n");
    if (!fastest.empty() && fastest != kernels.front()->name) {
        std::fprintf(stderr, "the fastest kernel here is %s\n", kernels.front()->name);
        return 1;
    }
    if (!kernel.empty()) kernels = {&kernels_named(std::string(kernel))};
    if (wanted("kernels"))
        for (const Kernels* table :
             kernels) {  // the scalar one too: it must not read beyond its arrays either
            const std::string name = table->name;
            run((name + " integer kernels").c_str(), [&] { return check_integer_kernels(*table, quick); });
            run((name + " float kernels").c_str(), [&] { return check_float_kernels(*table, quick); });
            run((name + " sampling").c_str(), [&] { return check_sampling(*table, quick); });
        }
    if (wanted("texts")) run("sketches of texts", [&] { return check_minhash(quick); });
    if (wanted("pool")) run("thread pool", [&] { return check_pool(quick); });
    if (wanted("models")) run("models", [&] { return check_models(kernels, quick); });
    std::printf("all equal\n");
    return 0;
}

}  // namespace tritwise::checks

int main(int count, char** arguments) { return tritwise::checks::main_of(count, arguments); }
