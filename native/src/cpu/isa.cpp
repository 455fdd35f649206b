#include "isa.h"

#include <cstdlib>
#include <string>
#include <vector>

#if defined(_MSC_VER) && defined(_M_X64)
#include <intrin.h>
#elif defined(__x86_64__)
#include <cpuid.h>
#endif

#include "../error.h"
#include "backend.h"

namespace warpsight::cpu {

#if defined(__x86_64__) || defined(_M_X64)
struct Registers {
    uint32_t a = 0, b = 0, c = 0, d = 0;
};

static Registers cpuid(uint32_t leaf) {
    Registers r;
#if defined(_MSC_VER)
    int out[4];
    __cpuidex(out, int(leaf), 0);
    r = {uint32_t(out[0]), uint32_t(out[1]), uint32_t(out[2]), uint32_t(out[3])};
#else
    __get_cpuid_count(leaf, 0, &r.a, &r.b, &r.c, &r.d);
#endif
    return r;
}

/// Which register states the operating system saves: without them the instructions fault, whatever the processor can do.
static uint64_t saved_states() {
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return uint64_t(high) << 32 | low;
#endif
}

// Intel SDM volume 2, CPUID: leaf 1 ECX (12 FMA, 27 OSXSAVE, 29 F16C), leaf 7 EBX (5 AVX2, 16 AVX512F, 17 DQ, 30 BW, 31 VL);
// XCR0 bits 1, 2 (SSE, AVX) and 5, 6, 7 (AVX-512).
static void find_x86(bool& avx2, bool& avx512) {
    uint32_t features = cpuid(1).c, more = cpuid(7).b;
    auto has = [](uint32_t word, std::initializer_list<int> bits) {
        for (int bit : bits)
            if (!(word >> bit & 1)) return false;
        return true;
    };
    if (!has(features, {12, 27, 29})) return;
    uint64_t states = saved_states();
    avx2 = (states & 0x6) == 0x6 && has(more, {5});
    avx512 = avx2 && (states & 0xe6) == 0xe6 && has(more, {16, 17, 30, 31});
}
#endif

static std::vector<const Kernels*> usable() {
    bool avx2 = false, avx512 = false;
#if defined(__x86_64__) || defined(_M_X64)
    find_x86(avx2, avx512);
#endif
    std::vector<const Kernels*> out;
    if (avx512 && avx512_kernels()) out.push_back(avx512_kernels());
    if (avx2 && avx2_kernels()) out.push_back(avx2_kernels());
    if (neon_kernels()) out.push_back(neon_kernels());
    out.push_back(generic_kernels());
    return out;
}

static const Kernels& choose() {
    std::vector<const Kernels*> here = usable();
    const char* wanted = std::getenv("WARPSIGHT_ISA");
    if (!wanted || !*wanted) return *here.front();
    std::string names;
    for (const Kernels* k : here) {
        if (std::string(k->isa) == wanted) return *k;
        names += (names.empty() ? "" : ", ") + std::string(k->isa);
    }
    throw Error("ERR_CONFIG", "WARPSIGHT_ISA is \"" + std::string(wanted) + "\": this machine and build have " + names);
}

const Kernels& kernels() {
    static const Kernels& chosen = choose();
    return chosen;
}

}  // namespace warpsight::cpu

namespace warpsight {

std::vector<std::string> cpu_isas() {
    std::vector<std::string> names;
    for (const cpu::Kernels* k : cpu::usable()) names.push_back(k->isa);
    return names;
}

}  // namespace warpsight
