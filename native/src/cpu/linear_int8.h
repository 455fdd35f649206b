// The product of linear and patchEmbed with a weight that is kept as int8.
#pragma once

#include <functional>
#include <string>

#include "kernels.h"

namespace warpsight::cpu {

/// Workspace of multiply_int8 for M rows; a multiple of 64.
size_t int8_packed_bytes(int64_t M, int64_t K);

/// As `multiply` in linear.cpp: gemm's `panels` are those of kernels_int8.h, `a` and `blocks` are not read. Every row is
/// quantised by itself, so that a batch gives each row the bits that it gets alone.
void multiply_int8(const Gemm& gemm, void* packed, const std::function<const float*(int64_t row)>& read);

/// "gemm_int8_avx2_4x16"
std::string int8_gemm_name();

}  // namespace warpsight::cpu
