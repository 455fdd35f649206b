#include "safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <string_view>
#include <unordered_set>

#ifdef _WIN32
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>

#include <filesystem>
#else
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#endif

namespace warpsight {

namespace {

using Tensor = SafetensorsFile::Tensor;

[[noreturn]] void refuse(const std::string& message) { throw Error("ERR_CHECKPOINT", message); }

// The format allows 100 MB; a tensor takes about 100 bytes, so 16 MB are 160,000 tensors, and what a lying file can make us hold
// stays small.
constexpr uint64_t kMaxHeaderBytes = 16'000'000;
constexpr size_t kMaxTensorRank = 8;
constexpr uint64_t kMaxSize = (uint64_t(1) << 53) - 1;  // sizes go to JavaScript as numbers

struct StoredType {
    std::string_view name;
    unsigned bits;
};

constexpr StoredType kStoredTypes[] = {
    {"F32", 32},        {"F16", 16},    {"BF16", 16},   {"F64", 64},    {"I64", 64},    {"I32", 32},
    {"I16", 16},        {"I8", 8},      {"U64", 64},    {"U32", 32},    {"U16", 16},    {"U8", 8},
    {"BOOL", 8},        {"C64", 64},    {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4},
};

/// A name as it may stand in a message: in quotes, without control characters, at most 100 bytes.
std::string quoted(std::string_view name) {
    std::string out = "\"";
    size_t end = std::min<size_t>(name.size(), 100);
    while (end < name.size() && end > 0 && (name[end] & 0xc0) == 0x80) --end;  // don't cut a character in two
    for (char c : name.substr(0, end)) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
    return out + (end < name.size() ? "…\"" : "\"");
}

std::string shape_text(const std::vector<int64_t>& shape) {
    std::string out = "[";
    for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
    return out + "]";
}

/// Bytes of the UTF-8 character at the start of `text`, 0 if it is not one (RFC 3629: no overlong forms, no surrogates, at most
/// U+10FFFF).
size_t utf8_length(std::string_view text) {
    auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
    unsigned first = byte(0);
    size_t length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    for (size_t i = 1; i < length; ++i)
        if ((byte(i) & 0xc0) != 0x80) return 0;
    unsigned second = byte(1);
    bool bad = (first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) || (first == 0xf0 && second < 0x90) ||
               (first == 0xf4 && second > 0x8f);
    return bad ? 0 : length;
}

void append_utf8(std::string& out, uint32_t code) {
    if (code < 0x80) {
        out += char(code);
    } else if (code < 0x800) {
        out += {char(0xc0 | code >> 6), char(0x80 | (code & 63))};
    } else if (code < 0x10000) {
        out += {char(0xe0 | code >> 12), char(0x80 | (code >> 6 & 63)), char(0x80 | (code & 63))};
    } else {
        out += {char(0xf0 | code >> 18), char(0x80 | (code >> 12 & 63)), char(0x80 | (code >> 6 & 63)), char(0x80 | (code & 63))};
    }
}

/// Reads exactly the JSON that a header may have. Its depth is fixed, so nothing recurses.
class HeaderReader {
public:
    HeaderReader(std::string_view text, const std::string& prefix) : text_(text), prefix_(prefix) {}

    std::vector<Tensor> read() {
        if (text_.empty() || text_[0] != '{') fail("the header does not start with \"{\"");
        std::vector<Tensor> tensors;
        members([&](const std::string& name) {
            if (name != "__metadata__") return tensors.push_back(tensor(name));
            members([&](const std::string&) { string(); });
        });
        skip_spaces();
        if (at_ != text_.size()) fail("something follows the header's closing \"}\"");
        return tensors;
    }

private:
    [[noreturn]] void fail(const std::string& what) const {
        refuse(prefix_ + what + " (byte " + std::to_string(at_) + " of the header)");
    }

    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

    void skip_spaces() {
        while (peek() == ' ' || peek() == '\n' || peek() == '\r' || peek() == '\t') ++at_;
    }

    bool take(char c) {
        skip_spaces();
        if (peek() != c || at_ == text_.size()) return false;
        ++at_;
        return true;
    }

    void expect(char c) {
        if (!take(c))
            fail(at_ == text_.size() ? "the header ends too early"
                                     : std::string("the header is not the expected JSON: \"") + c + "\" is missing");
    }

    /// {"name": …, …}: `value` reads what follows each name.
    template <typename Value>
    void members(Value value) {
        std::unordered_set<std::string> names;
        expect('{');
        if (take('}')) return;
        do {
            std::string name = string();
            if (!names.insert(name).second) fail(quoted(name) + " occurs twice");
            expect(':');
            value(name);
        } while (take(','));
        expect('}');
    }

    Tensor tensor(const std::string& name) {
        Tensor tensor{name, {}, {}, 0, 0};
        std::optional<std::vector<uint64_t>> shape, offsets;
        members([&](const std::string& key) {
            if (key == "dtype") {
                tensor.dtype = string();
            } else if (key == "shape") {
                shape = integers(name, key, kMaxTensorRank);
            } else if (key == "data_offsets") {
                offsets = integers(name, key, 2);
            } else {
                fail(quoted(name) + " has the unknown entry " + quoted(key));
            }
        });
        if (tensor.dtype.empty() || !shape || !offsets) fail(quoted(name) + " must have dtype, shape and data_offsets");
        if (offsets->size() != 2) fail(quoted(name) + ": data_offsets must be two integers");
        tensor.shape.assign(shape->begin(), shape->end());
        tensor.begin = (*offsets)[0];
        tensor.end = (*offsets)[1];
        return tensor;
    }

    std::vector<uint64_t> integers(const std::string& name, const std::string& key, size_t most) {
        std::vector<uint64_t> values;
        expect('[');
        if (take(']')) return values;
        do {
            if (values.size() == most)
                fail(quoted(name) + ": " + key + " must have at most " + std::to_string(most) + " integers");
            skip_spaces();
            uint64_t value = 0;
            size_t start = at_;
            while (peek() >= '0' && peek() <= '9' && value <= kMaxSize) value = value * 10 + uint64_t(text_[at_++] - '0');
            bool leading_zero = at_ > start + 1 && text_[start] == '0';
            bool ends = peek() == ',' || peek() == ']' || peek() == ' ' || peek() == '\n' || peek() == '\r' || peek() == '\t';
            if (at_ == start || leading_zero || value > kMaxSize || !ends)
                fail(quoted(name) + ": " + key + " must be integers from 0 to 2^53 - 1");
            values.push_back(value);
        } while (take(','));
        expect(']');
        return values;
    }

    std::string string() {
        expect('"');
        std::string out;
        for (;;) {
            if (at_ == text_.size()) fail("the header ends inside a string");
            char c = text_[at_];
            if (c == '"') break;
            if (c == '\\') {
                ++at_;
                escape(out);
                continue;
            }
            size_t length = static_cast<unsigned char>(c) < 0x20 ? 0 : utf8_length(text_.substr(at_));
            if (length == 0) fail("a string holds a byte that is not UTF-8 text");
            out.append(text_, at_, length);
            at_ += length;
        }
        ++at_;
        return out;
    }

    void escape(std::string& out) {
        constexpr std::string_view kLetters = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
        char c = peek();
        if (size_t i = kLetters.find(c); i != std::string_view::npos && at_ < text_.size()) {
            ++at_;
            out += kMeanings[i];
            return;
        }
        uint32_t code = utf16();
        if (code >= 0xd800 && code < 0xdc00 && peek() == '\\') {
            ++at_;
            uint32_t low = utf16();
            if (low < 0xdc00 || low > 0xdfff) fail("half of a surrogate pair stands alone");
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        }
        if (code >= 0xd800 && code < 0xe000) fail("half of a surrogate pair stands alone");
        append_utf8(out, code);
    }

    /// The uXXXX of an escape.
    uint32_t utf16() {
        if (peek() != 'u') fail("a string holds an unknown escape");
        ++at_;
        uint32_t code = 0;
        for (int i = 0; i < 4; ++i, ++at_) {
            char c = peek();
            int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
            if (digit < 0) fail("\\u needs four hexadecimal digits");
            code = code * 16 + uint32_t(digit);
        }
        return code;
    }

    std::string_view text_;
    const std::string& prefix_;
    size_t at_ = 0;
};

/// Bytes of a tensor of this type and shape; throws for an unknown type, an overflow and a size that is no whole number of bytes.
uint64_t bytes_of(const Tensor& tensor, const std::string& prefix) {
    const StoredType* type =
        std::find_if(std::begin(kStoredTypes), std::end(kStoredTypes), [&](auto& known) { return known.name == tensor.dtype; });
    if (type == std::end(kStoredTypes)) refuse(prefix + quoted(tensor.name) + " has the unknown dtype " + quoted(tensor.dtype));
    uint64_t bits = type->bits;
    for (int64_t size : tensor.shape) {
        // The product of the sizes so far may not overflow even where a later size is 0: a reader may multiply in any order.
        if (size != 0 && bits > std::numeric_limits<uint64_t>::max() / uint64_t(size))
            refuse(prefix + quoted(tensor.name) + " is too large: its shape is " + shape_text(tensor.shape));
        bits *= uint64_t(size);
    }
    if (bits % 8 != 0)
        refuse(prefix + quoted(tensor.name) + " does not end at a whole byte: it is " + tensor.dtype + " " +
               shape_text(tensor.shape));
    return bits / 8;
}

std::string prefix_of(const std::string& path) {
    return "checkpoint " + quoted(std::string_view(path).substr(path.find_last_of("/\\") + 1)) + ": ";
}

}  // namespace

std::vector<Tensor> parse_safetensors_header(std::string_view header, uint64_t file_size, const std::string& prefix) {
    std::vector<Tensor> tensors = HeaderReader(header, prefix).read();
    std::vector<uint64_t> bytes;
    for (const Tensor& tensor : tensors) {
        uint64_t expected = bytes_of(tensor, prefix);
        if (tensor.begin > tensor.end || tensor.end - tensor.begin != expected)
            refuse(prefix + quoted(tensor.name) + " is " + tensor.dtype + " " + shape_text(tensor.shape) + ", " +
                   std::to_string(expected) + " bytes, but its data_offsets are [" + std::to_string(tensor.begin) + ", " +
                   std::to_string(tensor.end) + "]");
    }
    std::sort(tensors.begin(), tensors.end(),
              [](const Tensor& a, const Tensor& b) { return a.begin != b.begin ? a.begin < b.begin : a.end < b.end; });

    uint64_t data = 8 + header.size(), position = 0;
    const std::string* previous = nullptr;
    for (Tensor& tensor : tensors) {
        if (tensor.begin != position) {
            std::string where = previous ? "the end of " + quoted(*previous) : "the start of the data";
            refuse(prefix + quoted(tensor.name) + " starts at byte " + std::to_string(tensor.begin) + " of the data, but " +
                   where + " is at byte " + std::to_string(position) +
                   (tensor.begin < position ? ": they overlap" : ": there is a hole"));
        }
        position = tensor.end;
        previous = &tensor.name;
        tensor.begin += data;
        tensor.end += data;
    }
    if (data > file_size || position != file_size - data)
        refuse(prefix + "the header describes " + std::to_string(position) + " bytes of data, but " +
               std::to_string(data > file_size ? 0 : file_size - data) + " follow it" +
               (data + position > file_size ? ": the file was cut off" : ""));
    return tensors;
}

int64_t SafetensorsFile::Tensor::elements() const {
    int64_t product = 1;
    for (int64_t size : shape) product *= size;
    return product;
}

std::string SafetensorsFile::prefix() const { return prefix_of(path_); }

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {}

std::shared_ptr<SafetensorsFile> SafetensorsFile::open(const std::string& path) {
    std::shared_ptr<SafetensorsFile> file(new SafetensorsFile(path));
    std::string prefix = file->prefix();
#ifdef _WIN32
    std::wstring wide = std::filesystem::path(std::u8string(path.begin(), path.end())).wstring();
    HANDLE handle =
        CreateFileW(wide.c_str(), GENERIC_READ, FILE_SHARE_READ, nullptr, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr);
    BY_HANDLE_FILE_INFORMATION info;
    if (handle == INVALID_HANDLE_VALUE) refuse(prefix + path + " cannot be opened: error " + std::to_string(GetLastError()));
    file->file_ = handle;
    if (GetFileType(handle) != FILE_TYPE_DISK || !GetFileInformationByHandle(handle, &info))
        refuse(prefix + path + " is not a regular file");
    file->size_ = uint64_t(info.nFileSizeHigh) << 32 | info.nFileSizeLow;
    file->identity_ = std::to_string(info.dwVolumeSerialNumber) + ":" +
                      std::to_string(uint64_t(info.nFileIndexHigh) << 32 | info.nFileIndexLow) + ":" +
                      std::to_string(file->size_) + ":" +
                      std::to_string(uint64_t(info.ftLastWriteTime.dwHighDateTime) << 32 | info.ftLastWriteTime.dwLowDateTime);
#else
    // O_NONBLOCK: a FIFO is opened at once, and then refused, instead of waiting for a writer.
    do file->file_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    while (file->file_ < 0 && errno == EINTR);
    if (file->file_ < 0) refuse(prefix + path + " cannot be opened: " + std::strerror(errno));
    struct stat info;
    if (fstat(file->file_, &info) != 0 || !S_ISREG(info.st_mode)) refuse(prefix + path + " is not a regular file");
#ifdef __APPLE__
    const timespec& changed = info.st_mtimespec;
#else
    const timespec& changed = info.st_mtim;
#endif
    file->size_ = uint64_t(info.st_size);
    file->identity_ = std::to_string(info.st_dev) + ":" + std::to_string(info.st_ino) + ":" + std::to_string(info.st_size) + ":" +
                      std::to_string(changed.tv_sec) + "." + std::to_string(changed.tv_nsec);
#endif
    if (file->size_ < 8)
        refuse(prefix + "the file has " + std::to_string(file->size_) + " bytes, too few for a safetensors header");
    unsigned char raw[8];
    file->read(0, raw, sizeof raw);
    uint64_t length = 0;
    for (int i = 7; i >= 0; --i) length = length << 8 | raw[i];
    if (length > file->size_ - 8)
        refuse(prefix + "the header is said to have " + std::to_string(length) + " bytes, but the file ends after " +
               std::to_string(file->size_ - 8) + ": it was cut off or is no safetensors file");
    if (length > kMaxHeaderBytes)
        refuse(prefix + "the header has " + std::to_string(length) + " bytes; at most " + std::to_string(kMaxHeaderBytes) +
               " are read");
    std::string header(size_t(length), '\0');
    file->read(8, header.data(), header.size());
    file->tensors_ = parse_safetensors_header(header, file->size_, prefix);
    return file;
}

SafetensorsFile::~SafetensorsFile() {
#ifdef _WIN32
    if (file_) CloseHandle(file_);
#else
    if (file_ >= 0) ::close(file_);
#endif
}

void SafetensorsFile::read(uint64_t offset, void* destination, size_t bytes) const {
    constexpr size_t kLargestRead = size_t(1) << 30;  // macOS and Windows take no more than 2^31 - 1 bytes at once
    char* to = static_cast<char*>(destination);
    while (bytes > 0) {
        size_t wanted = std::min(bytes, kLargestRead);
#ifdef _WIN32
        OVERLAPPED place{};
        place.Offset = DWORD(offset);
        place.OffsetHigh = DWORD(offset >> 32);
        DWORD got = 0;
        if (!ReadFile(file_, to, DWORD(wanted), &got, &place) && GetLastError() != ERROR_HANDLE_EOF)
            refuse(prefix() + "reading at byte " + std::to_string(offset) + " failed: error " + std::to_string(GetLastError()));
#else
        ssize_t got = ::pread(file_, to, wanted, off_t(offset));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) refuse(prefix() + "reading at byte " + std::to_string(offset) + " failed: " + std::strerror(errno));
#endif
        if (got == 0)
            refuse(prefix() + "the file ends early, at byte " + std::to_string(offset) + ": it had " + std::to_string(size_) +
                   " bytes and shrank while it was read");
        to += got;
        offset += uint64_t(got);
        bytes -= size_t(got);
    }
}

CheckpointRows::CheckpointRows(std::vector<Part> parts, int64_t columns) : parts_(std::move(parts)) {
    const Tensor* first = nullptr;
    for (const Part& part : parts_) {
        rows_ += part.rows;
        if (!part.file) continue;
        const Tensor& tensor = part.file->tensors().at(size_t(part.tensor));
        std::string what = part.file->prefix() + quoted(tensor.name);
        if (tensor.dtype != "F32" && tensor.dtype != "F16" && tensor.dtype != "BF16")
            refuse(what + " is " + tensor.dtype + "; weights must be F32, F16 or BF16");
        if (first && first->dtype != tensor.dtype)
            refuse(what + " is " + tensor.dtype + ", but " + quoted(first->name) + ", which is used together with it, is " +
                   first->dtype);
        int64_t elements = tensor.elements(), stored = columns > 0 ? elements / columns : 0;
        bool fits = columns > 0 && elements % columns == 0 && part.first_row >= 0 && part.rows >= 0 && part.rows <= stored &&
                    part.first_row <= stored - part.rows;
        if (!fits)
            refuse(what + " is " + shape_text(tensor.shape) + ", which has no rows " + std::to_string(part.first_row) + " to " +
                   std::to_string(part.first_row + part.rows) + " of " + std::to_string(columns) + " elements");
        first = &tensor;
        dtype_ = tensor.dtype == "F32" ? DType::float32 : tensor.dtype == "F16" ? DType::float16 : DType::bfloat16;
    }
    row_bytes_ = size_t(columns) * size_of(dtype_);
}

void CheckpointRows::read_rows(int64_t row, int64_t count, void* destination) {
    if (row < 0 || count < 0 || row > rows_ - count) throw Error("ERR_INTERNAL", "rows past the end of a weight were asked for");
    char* to = static_cast<char*>(destination);
    for (const Part& part : parts_) {
        if (row < part.rows && count > 0) {
            int64_t here = std::min(count, part.rows - row);
            size_t bytes = size_t(here) * row_bytes_;
            if (part.file) {
                const Tensor& tensor = part.file->tensors()[size_t(part.tensor)];
                part.file->read(tensor.begin + uint64_t(part.first_row + row) * row_bytes_, to, bytes);
            } else {
                std::memset(to, 0, bytes);
            }
            to += bytes;
            count -= here;
            row += here;
        }
        row -= part.rows;
    }
}

}  // namespace warpsight
