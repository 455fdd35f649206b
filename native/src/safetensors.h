// safetensors files: a header of JSON that says where each tensor lies, then the tensors. Every byte of the header is checked
// before anything is believed; tensors are read by pread into the caller's memory. (Not mapped: a file that shrinks under a
// mapping ends the process by SIGBUS.)
//
//   8 bytes   length of the header, little endian
//   header    {"__metadata__": {string: string}, "name": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}, …}, padded
//   by spaces data      the ranges of data_offsets, which count from here, one behind the other, up to the end of the file
//
// Data starts wherever the header ends, so tensors may lie at odd addresses.
// source: github.com/huggingface/safetensors, README.md ("Format") and what safetensors/src/tensor.rs refuses.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend.h"

namespace warpsight {

/// A file whose header has been read and checked. Reads from several threads at once are fine. All errors are ERR_CHECKPOINT.
class SafetensorsFile {
public:
    struct Tensor {
        std::string name;
        std::string dtype;            // as stored: "F32", "BF16", …, one of the format's
        std::vector<int64_t> shape;   // at most 8 sizes, each below 2^53; the product fits
        uint64_t begin = 0, end = 0;  // bytes of the file
        int64_t elements() const;
    };

    /// UTF-8 path of a regular file; links are followed.
    static std::shared_ptr<SafetensorsFile> open(const std::string& path);
    ~SafetensorsFile();
    SafetensorsFile(const SafetensorsFile&) = delete;
    SafetensorsFile& operator=(const SafetensorsFile&) = delete;

    /// In the order of their places in the file.
    const std::vector<Tensor>& tensors() const { return tensors_; }
    /// `offset` counts from the start of the file.
    void read(uint64_t offset, void* destination, size_t bytes) const;
    /// The same for the same content: device, inode, size and time of change of the file as it was opened.
    const std::string& identity() const { return identity_; }
    const std::string& path() const { return path_; }
    /// `checkpoint "model.safetensors": `, which starts every message.
    std::string prefix() const;

private:
    explicit SafetensorsFile(const std::string& path);

    std::string path_, identity_;
    std::vector<Tensor> tensors_;
    uint64_t size_ = 0;
#ifdef _WIN32
    void* file_ = nullptr;
#else
    int file_ = -1;
#endif
};

/// The tensors of a header that stands at byte 8 of a file of `file_size` bytes, sorted by place. `prefix` starts every message.
std::vector<SafetensorsFile::Tensor> parse_safetensors_header(std::string_view header, uint64_t file_size,
                                                              const std::string& prefix);

/// Rows of several tensors, one below the other, as one matrix. A tensor of any shape counts as rows of `columns` elements.
class CheckpointRows : public RowSource {
public:
    struct Part {
        std::shared_ptr<const SafetensorsFile> file;  // null: rows of zeros, for a bias that a checkpoint doesn't have
        int tensor = -1;                              // index into file->tensors()
        int64_t first_row = 0, rows = 0;
    };

    /// ERR_CHECKPOINT where a part is no float32, float16 or bfloat16 tensor, has another dtype than the others or too few rows.
    CheckpointRows(std::vector<Part> parts, int64_t columns);

    DType dtype() const { return dtype_; }  // float32 where all parts are zeros
    int64_t rows() const { return rows_; }
    void read_rows(int64_t row, int64_t count, void* destination) override;

private:
    std::vector<Part> parts_;
    DType dtype_ = DType::float32;
    int64_t rows_ = 0;
    size_t row_bytes_ = 0;
};

}  // namespace warpsight
