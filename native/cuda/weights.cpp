#include "weights.h"

#include <algorithm>

namespace warpsight::cuda {
namespace {

constexpr size_t kPiece = size_t(4) << 20;  // bytes read at a time, unless one row is larger

bool is_float(DType dtype) { return dtype == DType::float32 || dtype == DType::float16 || dtype == DType::bfloat16; }

/// 16-bit arithmetic wants its own type; float32 arithmetic widens what is stored.
DType stored_dtype(WeightLayout layout, DType dtype, DType compute) {
    if (layout == WeightLayout::vector) return DType::float32;
    return layout == WeightLayout::table || compute == DType::float32 ? dtype : compute;
}

/// Device memory that is given back at the end of a block.
struct Scratch {
    Scratch(Context& context, size_t bytes)
        : context(context), data(context.memory.allocate_plain(bytes, "a buffer for loading weights")) {}
    ~Scratch() { context.memory.release_plain(data); }
    Scratch(const Scratch&) = delete;
    Context& context;
    void* data;
};

/// Two pieces in turn: while one is copied and converted the other is read.
struct Piece {
    Piece(std::shared_ptr<Context> context, size_t bytes) : host(context, bytes), raw(*context, bytes) {}
    Staged host;
    Scratch raw;
    std::function<void()> done;
};

}  // namespace

CudaWeight::CudaWeight(std::shared_ptr<Context> context, WeightLayout layout, DType dtype, int64_t rows, int64_t columns)
    : context_(std::move(context)) {
    this->layout = layout;
    this->dtype = dtype;
    this->rows = rows;
    this->columns = columns;
    int64_t unit = layout == WeightLayout::vector ? 1 : int64_t(16 / size_of(dtype));
    pitch_ = (columns + unit - 1) / unit * unit;
    bytes = size_t(rows * pitch_) * size_of(dtype);
    data_ = context_->memory.allocate_plain(bytes, "a weight");
    context_->weight_bytes += bytes;
}

CudaWeight::~CudaWeight() {
    context_->weight_bytes -= bytes;
    context_->memory.release_plain(data_);
}

std::shared_ptr<const Weight> load_weight(std::shared_ptr<Context> context, WeightLayout layout, DType dtype, DType compute,
                                          int64_t rows, int64_t columns, RowSource& source) {
    if (!is_float(dtype))
        throw Error("ERR_DTYPE",
                    std::string("weight: no kernel for ") + name_of(dtype) + "; float32, float16 and bfloat16 have one");
    context->device.enter();
    DType stored = stored_dtype(layout, dtype, compute);
    auto weight = std::make_shared<CudaWeight>(context, layout, stored, rows, columns);
    size_t row_bytes = size_t(columns) * size_of(dtype);
    if (rows == 0 || columns == 0) return weight;

    int64_t rows_per_piece = std::clamp<int64_t>(int64_t(kPiece / row_bytes), 1, rows);
    size_t piece_bytes = size_t(rows_per_piece) * row_bytes;
    Scratch flag(*context, sizeof(int));
    Piece pieces[2] = {{context, piece_bytes}, {context, piece_bytes}};
    CudaStream stream(context, false);  // destroyed first, so nothing above is in use any more
    stream.zero(flag.data, sizeof(int));

    int turn = 0;
    for (int64_t row = 0; row < rows; row += rows_per_piece, turn ^= 1) {
        Piece& piece = pieces[turn];
        if (piece.done) piece.done();
        int64_t count = std::min(rows_per_piece, rows - row);
        source.read_rows(row, count, piece.host.data());
        context->device.check(cudaMemcpyAsync(piece.raw.data, piece.host.data(), size_t(count) * row_bytes,
                                              cudaMemcpyHostToDevice, stream.handle()),
                              "a weight cannot be copied");
        Matrix to = weight->matrix();
        to.data = static_cast<char*>(weight->data()) + size_t(row * weight->pitch()) * size_of(stored);
        to.rows = count;
        bool narrows = stored == DType::float16 && dtype != DType::float16;
        convert_rows({context->device, stream.handle()}, piece.raw.data, dtype, to,
                     narrows ? static_cast<int*>(flag.data) : nullptr);
        piece.done = stream.fence();
    }
    int overflow = 0;
    stream.download(&overflow, flag.data, sizeof overflow);
    stream.synchronize();
    if (overflow != 0)
        throw Error("ERR_DTYPE", std::string("a ") + name_of(dtype) + " weight [" + std::to_string(rows) + ", " +
                                     std::to_string(columns) +
                                     "] has values beyond float16's 65504: use dtype bfloat16 or float32");
    return weight;
}

}  // namespace warpsight::cuda
