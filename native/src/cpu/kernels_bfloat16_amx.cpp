// Products in bfloat16 for AMX: tdpbf16ps on tiles of 16 rows of x or 16 pairs of k, 64 bytes wide (Intel SDM volume 1, chapter
// 18). Linux only: the system gives a process the tiles when it asks for them (isa.cpp).
#include "kernels_bfloat16.h"

#if defined(__x86_64__) && defined(__linux__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own headers start "undefined" registers this way
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
#include <math.h>
#include <string.h>
namespace warpsight::cpu {
namespace {
#include "stored.h"
#include "simd_avx512.h"
#include "simd_math.h"
#include "tile.h"

constexpr const char* kProductsIsa = "amx";
constexpr int kRows = 32, kColumns = 32, kTurns = 1;

#include "round_avx512_bf16.h"

/// What ldtilecfg reads, palette 1.
struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};

// The tiles, all of them 64 bytes wide:
//   0 1   sums of rows 0 … 15: columns 0 … 15, 16 … 31        4   x: rows 0 … 15, a group of 32 k
//   2 3   sums of the rows from 16 on                         5   x: the rows from 16 on
//                                                             6 7 W: 16 pairs of k, columns 0 … 15 and 16 … 31

/// A row of sums and a pair of k of W are so many bytes.
constexpr int64_t kStride = kColumns * 4;

class Multiplier {
public:
    void operator()(int64_t rows, const uint16_t* a, const uint16_t* b, int64_t K, float* tile, bool from_zero, Ahead ahead) {
        if (rows != rows_) configure(rows);
        if (rows > 16) multiply<true>(a, b, K, tile, from_zero, ahead);
        else multiply<false>(a, b, K, tile, from_zero, ahead);
    }

    /// The system need not save the tiles of a thread that has none.
    void release() { _tile_release(); }

private:
    void configure(int64_t rows) {
        TileConfig config;
        const uint8_t upper = uint8_t(least(rows, 16)), lower = uint8_t(rows - upper);
        const uint8_t tile_rows[8] = {upper, upper, lower, lower, upper, lower, 16, 16};
        for (int tile = 0; tile < 8; ++tile) {
            config.rows[tile] = tile_rows[tile];
            config.row_bytes[tile] = tile_rows[tile] > 0 ? 64 : 0;
        }
        __asm__ volatile("" ::"r"(&config) : "memory");  // GCC 12 believes that ldtilecfg reads eight bytes
        _tile_loadconfig(&config);
        rows_ = rows;
    }

    template <bool lower>
    void multiply(const uint16_t* a, const uint16_t* b, int64_t K, float* tile, bool from_zero, Ahead ahead) {
        float* below = tile + 16 * kColumns;
        if (from_zero) {
            _tile_zero(0);
            _tile_zero(1);
            if constexpr (lower) {
                _tile_zero(2);
                _tile_zero(3);
            }
        } else {
            _tile_loadd(0, tile, kStride);
            _tile_loadd(1, tile + 16, kStride);
            if constexpr (lower) {
                _tile_loadd(2, below, kStride);
                _tile_loadd(3, below + 16, kStride);
            }
        }
        for (int64_t k = 0; k < K; k += kBFloat16Group, a += rows_ * kBFloat16Group, b += kBFloat16Group * kColumns) {
            ahead.fetch(0);
            _tile_loadd(6, b, kStride);
            _tile_loadd(7, b + 32, kStride);
            _tile_loadd(4, a, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            if constexpr (lower) {
                _tile_loadd(5, a + 16 * kBFloat16Group, 64);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
        }
        _tile_stored(0, tile, kStride);
        _tile_stored(1, tile + 16, kStride);
        if constexpr (lower) {
            _tile_stored(2, below, kStride);
            _tile_stored(3, below + 16, kStride);
        }
    }

    int64_t rows_ = 0;  // that the tiles are set up for
};

#include "kernels_bfloat16_impl.h"
}  // namespace

const BFloat16Kernels* amx_bfloat16_kernels() { return &kBFloat16Kernels; }

}  // namespace warpsight::cpu
#else
namespace warpsight::cpu {

const BFloat16Kernels* amx_bfloat16_kernels() { return nullptr; }

}  // namespace warpsight::cpu
#endif
