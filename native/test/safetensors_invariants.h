// What must hold for every header that parse_safetensors_header accepts, whatever the input was: the seeded test and the fuzzer
// share it.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>

#include "../src/safetensors.h"

namespace warpsight::test {

inline void must(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "an accepted header breaks a rule: %s\n", what);
    std::abort();
}

/// True if the header was accepted; aborts where an accepted one is wrong or anything but Error ERR_CHECKPOINT is thrown.
inline bool accepts(std::string_view header, uint64_t file_size) {
    std::vector<SafetensorsFile::Tensor> tensors;
    try {
        tensors = parse_safetensors_header(header, file_size, "checkpoint \"x\": ");
    } catch (const Error& error) {
        must(std::string(error.code()) == "ERR_CHECKPOINT", "the code of its error");
        must(std::string_view(error.what()).starts_with("checkpoint \"x\": "), "the start of its message");
        return false;
    }
    uint64_t position = 8 + header.size();
    std::set<std::string> names;
    for (auto& tensor : tensors) {
        must(tensor.begin == position && tensor.begin <= tensor.end, "ranges follow each other");
        must(tensor.shape.size() <= 8, "rank");
        for (int64_t size : tensor.shape) must(size >= 0, "sizes");
        must(names.insert(tensor.name).second, "names are unique");
        if (tensor.dtype == "F32") must(uint64_t(tensor.elements()) * 4 == tensor.end - tensor.begin, "bytes of float32");
        if (tensor.dtype == "BF16") must(uint64_t(tensor.elements()) * 2 == tensor.end - tensor.begin, "bytes of bfloat16");
        position = tensor.end;
    }
    must(position == file_size, "the last range ends with the file");
    return true;
}

}  // namespace warpsight::test
