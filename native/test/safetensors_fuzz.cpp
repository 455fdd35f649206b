// libFuzzer target. The input is what follows the eight bytes of length: two bytes say how much data follows the header, the rest
// is the header.
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined native/src/safetensors.cpp native/test/safetensors_fuzz.cpp -o
//   safetensors_fuzz
//   ./safetensors_fuzz -max_len=2048 -max_total_time=300 corpus/
#include "safetensors_invariants.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 2) return 0;
    std::string_view header(reinterpret_cast<const char*>(data) + 2, size - 2);
    warpsight::test::accepts(header, 8 + header.size() + data[0] + 256u * data[1]);
    return 0;
}
