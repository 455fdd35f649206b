// The product of linear and patchEmbed in bfloat16.
#pragma once

#include <functional>
#include <string>

#include "kernels.h"

namespace warpsight::cpu {

/// Workspace of multiply_bfloat16 for M rows; a multiple of 64.
size_t bfloat16_packed_bytes(int64_t M, int64_t K);

/// As `multiply` in linear.cpp: gemm's `panels` are those of kernels_bfloat16.h, `a` and `blocks` are not read.
void multiply_bfloat16(const Gemm& gemm, void* packed, const std::function<const float*(int64_t row)>& read);

/// "gemm_bfloat16_amx_32x32"
std::string bfloat16_gemm_name();

}  // namespace warpsight::cpu
