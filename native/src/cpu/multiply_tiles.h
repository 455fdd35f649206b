// The Multiplier of kernels_bfloat16_impl.h and kernels_int8_impl.h for AMX: tiles of 16 rows, 64 bytes wide (Intel SDM volume 1,
// chapter 18). Linux only: the system gives a process the tiles when it asks for them (isa.cpp). The including file has
//   Row, Weight, Sum             what x, W and the sums are kept as
//   TILE_PRODUCT(sums, x, w)     the instruction, for three numbers of tiles: sums += x·w
// Included inside an unnamed namespace, behind tile.h.

constexpr int kRows = 32, kColumns = 32;
constexpr int kTurns = 1;

/// What ldtilecfg reads, palette 1.
struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};

// The tiles:
//   0 1   sums of rows 0 … 15: columns 0 … 15, 16 … 31        4   x: rows 0 … 15, 64 bytes of k
//   2 3   sums of the rows from 16 on                         5   x: the rows from 16 on
//                                                             6 7 W: as many k, columns 0 … 15 and 16 … 31

constexpr int64_t kLine = 64 / int64_t(sizeof(Row));  // k of a row that lie together, and in a tile
constexpr int64_t kStride = kColumns * 4;             // bytes of a row of sums, and of four of W for each column

class Multiplier {
public:
    /// tile[rows][kColumns] (+)= Σ_k a[k]·b[k] for k < K. a: [K/kLine][rows][kLine], the last of them whole too;
    /// b: [K·sizeof(Weight)/4][kColumns][4 / sizeof(Weight)].
    void operator()(int64_t rows, const Row* a, const Weight* b, int64_t K, Sum* tile, bool from_zero, Ahead ahead) {
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
        written(&config);
        _tile_loadconfig(&config);
        rows_ = rows;
    }

    template <bool lower>
    void multiply(const Row* a, const Weight* b, int64_t K, Sum* tile, bool from_zero, Ahead ahead) {
        Sum* below = tile + 16 * kColumns;
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
        constexpr int64_t kTileWeights = kLine * kColumns;
        for (; K >= kLine; K -= kLine, a += rows_ * kLine, b += kTileWeights) {
            ahead.fetch(0);
            step<lower>(a, b);
        }
        if (K > 0) {  // zeros behind the last weights: the row has something there
            alignas(64) Weight rest[kTileWeights] = {};
            memcpy(rest, b, size_t(K * kColumns) * sizeof(Weight));
            written(rest);
            step<lower>(a, rest);
        }
        _tile_stored(0, tile, kStride);
        _tile_stored(1, tile + 16, kStride);
        if constexpr (lower) {
            _tile_stored(2, below, kStride);
            _tile_stored(3, below + 16, kStride);
        }
    }

    template <bool lower>
    void step(const Row* a, const Weight* b) {
        _tile_loadd(6, b, kStride);
        _tile_loadd(7, reinterpret_cast<const char*>(b) + 64, kStride);
        _tile_loadd(4, a, 64);
        TILE_PRODUCT(0, 4, 6);
        TILE_PRODUCT(1, 4, 7);
        if constexpr (lower) {
            _tile_loadd(5, a + 16 * kLine, 64);
            TILE_PRODUCT(2, 5, 6);
            TILE_PRODUCT(3, 5, 7);
        }
    }

    /// GCC 12 doesn't know that the instructions read memory.
    static void written(const void* memory) { __asm__ volatile("" ::"r"(memory) : "memory"); }

    int64_t rows_ = 0;  // that the tiles are set up for
};
