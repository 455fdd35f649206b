#include "isa.h"

#include <cstdlib>
#include <string>
#include <vector>

#if defined(_MSC_VER) && defined(_M_X64)
#include <intrin.h>
#elif defined(__x86_64__)
#include <cpuid.h>
#elif defined(__linux__) && defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "../error.h"
#include "backend.h"

namespace warpsight::cpu {

#if defined(__x86_64__) || defined(_M_X64)
struct Registers {
    uint32_t a = 0, b = 0, c = 0, d = 0;
};

static Registers cpuid(uint32_t leaf, uint32_t part = 0) {
    Registers r;
#if defined(_MSC_VER)
    int out[4];
    __cpuidex(out, int(leaf), int(part));
    r = {uint32_t(out[0]), uint32_t(out[1]), uint32_t(out[2]), uint32_t(out[3])};
#else
    __get_cpuid_count(leaf, part, &r.a, &r.b, &r.c, &r.d);
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

#endif

/// Instructions beside those that every processor of the architecture has.
struct Instructions {
    bool avx2 = false, avx_vnni = false, avx512 = false, avx512_vnni = false, avx512_bf16 = false, amx = false,
         neon_dotprod = false;
    bool slow_bf16 = false;  // as many multiply-adds take less time with floats
};

#if defined(__x86_64__) || defined(_M_X64)

/// Linux gives a process the tiles of AMX when it asks for them (Documentation/arch/x86/xstate.rst), once for all of its threads.
static bool ask_for_tiles() {
#if defined(__x86_64__) && defined(__linux__)
    constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}

/// Intel's processors with AMX, whether the system shows it or not, begin a vdpbf16ps every other cycle: 16 multiply-adds a cycle
/// where those of floats are 32 (measured on model 0xcf). Cooper Lake (0x55), the one before AMX, is not among them.
static bool is_bf16_slow() {
    const Registers vendor = cpuid(0), basic = cpuid(1);
    const uint32_t model = (basic.a >> 4 & 0xf) | (basic.a >> 12 & 0xf0);
    return vendor.b == 0x756e6547 && model != 0x55;  // "Genu"
}

// Intel SDM volume 2, CPUID: leaf 0 EBX (vendor), leaf 1 EAX (4 … 7 and 16 … 19: model) and ECX (12 FMA, 27 OSXSAVE, 29 F16C),
// leaf 7 EBX (5 AVX2, 16 AVX512F, 17 DQ, 30 BW, 31 VL), ECX (11 AVX512_VNNI) and EDX (22 AMX-BF16, 24 AMX-TILE, 25 AMX-INT8),
// leaf 7 part 1 EAX (4 AVX-VNNI, 5 AVX512_BF16); XCR0 bits 1, 2 (SSE, AVX), 5, 6, 7 (AVX-512) and 17, 18 (AMX).
static Instructions instructions() {
    Instructions found;
    Registers basic = cpuid(1), more = cpuid(7);
    auto has = [](uint32_t word, std::initializer_list<int> bits) {
        for (int bit : bits)
            if (!(word >> bit & 1)) return false;
        return true;
    };
    if (!has(basic.c, {12, 27, 29})) return found;
    uint64_t states = saved_states();
    found.avx2 = (states & 0x6) == 0x6 && has(more.b, {5});
    const uint32_t later = more.a >= 1 ? cpuid(7, 1).a : 0;
    found.avx_vnni = found.avx2 && has(later, {4});
    found.avx512 = found.avx2 && (states & 0xe6) == 0xe6 && has(more.b, {16, 17, 30, 31});
    found.avx512_vnni = found.avx512 && has(more.c, {11});
    found.avx512_bf16 = found.avx512_vnni && has(later, {5});
    found.slow_bf16 = is_bf16_slow();
    found.amx = found.avx512_bf16 && (states & 0x60000) == 0x60000 && has(more.d, {22, 24, 25}) && ask_for_tiles();
    return found;
}

#elif defined(__linux__) && defined(__aarch64__)

static Instructions instructions() { return {.neon_dotprod = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0}; }

#elif defined(__APPLE__) && defined(__aarch64__)

static Instructions instructions() { return {.neon_dotprod = true}; }  // every Apple M

#else

static Instructions instructions() { return {}; }

#endif

/// The best first. Never destroyed: threads compute while the process exits.
static const std::vector<Level>& usable() {
    static const std::vector<Level>& found = *new std::vector<Level>([] {
        const Instructions here = instructions();
        std::vector<Level> levels;
        auto add = [&](bool can, const char* name, const Kernels* floats, const Int8Kernels* int8,
                       const BFloat16Kernels* bfloat16 = nullptr) {
            if (can && floats && int8) levels.push_back({name, floats, int8, bfloat16});
        };
        auto add_bf16 = [&] {
            add(here.avx512_bf16, "avx512_bf16", avx512_kernels(), avx512_vnni_int8_kernels(), avx512_bf16_kernels());
        };
        add(here.amx && amx_bfloat16_kernels(), "amx", avx512_kernels(), amx_int8_kernels(), amx_bfloat16_kernels());
        if (!here.slow_bf16) add_bf16();
        add(here.avx512_vnni, "avx512_vnni", avx512_kernels(), avx512_vnni_int8_kernels(), avx512_bfloat16_kernels());
        if (here.slow_bf16) add_bf16();
        add(here.avx512, "avx512", avx512_kernels(), avx512_int8_kernels(), avx512_bfloat16_kernels());
        add(here.avx_vnni, "avx_vnni", avx2_kernels(), avx_vnni_int8_kernels());
        add(here.avx2, "avx2", avx2_kernels(), avx2_int8_kernels());
        add(here.neon_dotprod, "neon_dotprod", neon_kernels(), neon_dotprod_int8_kernels());
        add(true, "neon", neon_kernels(), generic_int8_kernels());
        add(true, "generic", generic_kernels(), generic_int8_kernels(), generic_bfloat16_kernels());
        return levels;
    }());
    return found;
}

static const Level& choose() {
    const char* wanted = std::getenv("WARPSIGHT_ISA");
    if (!wanted || !*wanted) return usable().front();
    std::string names;
    for (const Level& each : usable()) {
        if (std::string(each.name) == wanted) return each;
        names += (names.empty() ? "" : ", ") + std::string(each.name);
    }
    throw Error("ERR_CONFIG", "WARPSIGHT_ISA is \"" + std::string(wanted) + "\": this machine and build have " + names);
}

const Level& level() {
    static const Level& chosen = choose();
    return chosen;
}

}  // namespace warpsight::cpu

namespace warpsight {

std::vector<std::string> cpu_isas() {
    std::vector<std::string> names;
    for (const cpu::Level& level : cpu::usable()) names.push_back(level.name);
    return names;
}

}  // namespace warpsight
