// safetensors: files that lie, honest files of every padding, reads, rows of several tensors; then five seconds of seeded
// mutations.
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>

#include "safetensors_invariants.h"

using namespace warpsight;
using warpsight::test::accepts;

namespace {

int passed = 0, failed = 0;

void expect(bool holds, const std::string& what) {
    ++(holds ? passed : failed);
    if (!holds) std::printf("failed: %s\n", what.c_str());
}

/// The message of the Error that `act` throws, without the code; "" if it throws none.
std::string message_of(const std::function<void()>& act) {
    try {
        act();
    } catch (const Error& error) {
        return std::string(error.code()) == "ERR_CHECKPOINT" ? error.what() : std::string(error.code()) + " " + error.what();
    }
    return "";
}

void expect_error(const std::string& what, const std::string& expected, const std::function<void()>& act) {
    std::string message = message_of(act);
    expect(message == expected, what + "\n  expected " + expected + "\n  got      " + message);
}

const std::filesystem::path folder =
    std::filesystem::temp_directory_path() / ("warpsight-safetensors-" + std::to_string(getpid()));

std::string write(const std::string& name, const std::string& bytes) {
    std::string path = (folder / name).string();
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
    return path;
}

std::string with_length(const std::string& header, const std::string& data, uint64_t length) {
    std::string out(8, '\0');
    for (size_t i = 0; i < 8; ++i) out[i] = char(length >> (8 * i));
    return out + header + data;
}
std::string with_length(const std::string& header, const std::string& data) { return with_length(header, data, header.size()); }

std::string floats(std::initializer_list<float> values) {
    std::string out;
    for (float value : values) out.append(reinterpret_cast<const char*>(&value), 4);
    return out;
}

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

/// One lie: a header, the bytes of data behind it, and what the message says after the file's name.
struct Lie {
    std::string header;
    size_t data;
    std::string message;
};

const std::string two = R"({"a":)" + entry("F32", "[2]", "[0,8]") + R"(,"b":)";

const Lie lies[] = {
    {"", 0, R"(the header does not start with "{" (byte 0 of the header))"},
    {" {}", 0, R"(the header does not start with "{" (byte 0 of the header))"},
    {"[]", 0, R"(the header does not start with "{" (byte 0 of the header))"},
    {"{", 0, "the header ends too early (byte 1 of the header)"},
    {"{}x", 0, R"(something follows the header's closing "}" (byte 2 of the header))"},
    {std::string("{}\0", 3), 0, R"(something follows the header's closing "}" (byte 2 of the header))"},
    {"{}", 1, "the header describes 0 bytes of data, but 1 follow it"},
    {R"({"a")", 0, "the header ends too early (byte 4 of the header)"},
    {R"({"a":1})", 0, R"(the header is not the expected JSON: "{" is missing (byte 5 of the header))"},
    {R"({"a":{}})", 0, R"("a" must have dtype, shape and data_offsets (byte 7 of the header))"},
    {R"({"a":)" + entry("F99", "[2]", "[0,8]") + "}", 8, R"("a" has the unknown dtype "F99")"},
    {R"({"a":)" + entry("f32", "[2]", "[0,8]") + "}", 8, R"("a" has the unknown dtype "f32")"},
    {R"({"a":)" + entry("F99", "[2]", "[900,8]") + "}", 8, R"("a" has the unknown dtype "F99")"},
    {R"({"a":)" + entry("F32", "[2]", "[0,4]") + "}", 4, R"("a" is F32 [2], 8 bytes, but its data_offsets are [0, 4])"},
    {R"({"a":)" + entry("F32", "[2]", "[8,0]") + "}", 8, R"("a" is F32 [2], 8 bytes, but its data_offsets are [8, 0])"},
    {R"({"a":)" + entry("F32", "[2]", "[0,8,8]") + "}", 8,
     R"("a": data_offsets must have at most 2 integers (byte 52 of the header))"},
    {R"({"a":)" + entry("F32", "[2]", "[8]") + "}", 8, R"("a": data_offsets must be two integers (byte 51 of the header))"},
    {R"({"a":)" + entry("F32", "[2]", "[0,8]") + "}", 4,
     "the header describes 8 bytes of data, but 4 follow it: the file was cut off"},
    {R"({"a":)" + entry("F32", "[2]", "[4,12]") + "}", 12,
     R"("a" starts at byte 4 of the data, but the start of the data is at byte 0: there is a hole)"},
    {R"({"a":)" + entry("F32", "[2]", "[0,8]") + "}", 12, "the header describes 8 bytes of data, but 12 follow it"},
    {two + entry("F32", "[2]", "[0,8]") + "}", 8,
     R"("b" starts at byte 0 of the data, but the end of "a" is at byte 8: they overlap)"},
    {two + entry("F32", "[2]", "[4,12]") + "}", 12,
     R"("b" starts at byte 4 of the data, but the end of "a" is at byte 8: they overlap)"},
    {two + entry("F32", "[1]", "[12,16]") + "}", 16,
     R"("b" starts at byte 12 of the data, but the end of "a" is at byte 8: there is a hole)"},
    {two + entry("F32", "[1]", "[9007199254740988,9007199254740992]") + "}", 12,
     R"("b": data_offsets must be integers from 0 to 2^53 - 1 (byte 134 of the header))"},
    {R"({"a":)" + entry("F32", "[18446744073709551615]", "[0,8]") + "}", 8,
     R"("a": shape must be integers from 0 to 2^53 - 1 (byte 46 of the header))"},
    {R"({"a":)" + entry("F32", "[-2]", "[0,8]") + "}", 8,
     R"("a": shape must be integers from 0 to 2^53 - 1 (byte 29 of the header))"},
    {R"({"a":)" + entry("F32", "[2.0]", "[0,8]") + "}", 8,
     R"("a": shape must be integers from 0 to 2^53 - 1 (byte 30 of the header))"},
    {R"({"a":)" + entry("F32", "[2e0]", "[0,8]") + "}", 8,
     R"("a": shape must be integers from 0 to 2^53 - 1 (byte 30 of the header))"},
    {R"({"a":)" + entry("F32", "[02]", "[0,8]") + "}", 8,
     R"("a": shape must be integers from 0 to 2^53 - 1 (byte 31 of the header))"},
    {R"({"a":)" + entry("F32", "[2,]", "[0,8]") + "}", 8,
     R"("a": shape must be integers from 0 to 2^53 - 1 (byte 31 of the header))"},
    {R"({"a":)" + entry("F32", "2", "[0,8]") + "}", 8,
     R"(the header is not the expected JSON: "[" is missing (byte 28 of the header))"},
    {R"({"a":)" + entry("F32", "[4294967296,4294967296]", "[0,0]") + "}", 0,
     R"("a" is too large: its shape is [4294967296, 4294967296])"},
    {R"({"a":)" + entry("F32", "[4294967296,4294967296,0]", "[0,0]") + "}", 0,
     R"("a" is too large: its shape is [4294967296, 4294967296, 0])"},
    {R"({"a":)" + entry("F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]") + "}", 8,
     R"("a": shape must have at most 8 integers (byte 45 of the header))"},
    {R"({"a":)" + entry("F4", "[3]", "[0,1]") + "}", 1, R"("a" does not end at a whole byte: it is F4 [3])"},
    {R"({"a":)" + entry("F32", "[1]", "[0,4]") + R"(,"a":)" + entry("F32", "[1]", "[4,8]") + "}", 8,
     R"("a" occurs twice (byte 57 of the header))"},
    {R"({"a":)" + entry("F32", "[1]", "[0,4]") + R"(,"\u0061":)" + entry("F32", "[1]", "[4,8]") + "}", 8,
     R"("a" occurs twice (byte 62 of the header))"},
    {R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4,
     R"("dtype" occurs twice (byte 27 of the header))"},
    {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"strides":[1]}})", 4,
     R"("a" has the unknown entry "strides" (byte 63 of the header))"},
    {R"({"__metadata__":{"a":1}})", 0, R"(the header is not the expected JSON: """ is missing (byte 21 of the header))"},
    {R"({"__metadata__":{"a":{"b":"c"}}})", 0, R"(the header is not the expected JSON: """ is missing (byte 21 of the header))"},
    {R"({"__metadata__":{"a":"b","a":"c"}})", 0, R"("a" occurs twice (byte 28 of the header))"},
    {R"({"__metadata__":{},"__metadata__":{}})", 0, R"("__metadata__" occurs twice (byte 33 of the header))"},
    {R"({"__metadata__":{"a":"b"},})", 0, R"(the header is not the expected JSON: """ is missing (byte 26 of the header))"},
    {"{\"\xff\":{}}", 0, "a string holds a byte that is not UTF-8 text (byte 2 of the header)"},
    {"{\"\xc0\xaf\":{}}", 0, "a string holds a byte that is not UTF-8 text (byte 2 of the header)"},
    {"{\"\xed\xa0\x80\":{}}", 0, "a string holds a byte that is not UTF-8 text (byte 2 of the header)"},
    {"{\"\xe2\x82", 0, "a string holds a byte that is not UTF-8 text (byte 2 of the header)"},
    {"{\"a\nb\":{}}", 0, "a string holds a byte that is not UTF-8 text (byte 3 of the header)"},
    {R"({"\x":{}})", 0, "a string holds an unknown escape (byte 3 of the header)"},
    {R"({"\u12g4":{}})", 0, "\\u needs four hexadecimal digits (byte 6 of the header)"},
    {R"({"\ud800":{}})", 0, "half of a surrogate pair stands alone (byte 8 of the header)"},
    {R"({"\udc00":{}})", 0, "half of a surrogate pair stands alone (byte 8 of the header)"},
    {R"({"\ud800\u0041":{}})", 0, "half of a surrogate pair stands alone (byte 14 of the header)"},
    {R"({"\)", 0, "a string holds an unknown escape (byte 3 of the header)"},
    {R"({"a)", 0, "the header ends inside a string (byte 3 of the header)"},
};

void test_lies() {
    for (const Lie& lie : lies) {
        std::string path = write("lie.safetensors", with_length(lie.header, std::string(lie.data, '\1')));
        expect_error(lie.header, "checkpoint \"lie.safetensors\": " + lie.message, [&] { SafetensorsFile::open(path); });
    }
    auto lengths = [](const std::string& bytes, const std::string& message) {
        std::string path = write("length.safetensors", bytes);
        expect_error("length", "checkpoint \"length.safetensors\": " + message, [&] { SafetensorsFile::open(path); });
    };
    lengths("", "the file has 0 bytes, too few for a safetensors header");
    lengths("1234567", "the file has 7 bytes, too few for a safetensors header");
    lengths(with_length("{}", "", 3),
            "the header is said to have 3 bytes, but the file ends after 2: it was cut off or is no safetensors file");
    lengths(with_length("{}", "", UINT64_MAX),
            "the header is said to have 18446744073709551615 bytes, but the file ends after 2: it was cut off or is no "
            "safetensors file");
    lengths(with_length(std::string(16'000'001, ' '), ""), "the header has 16000001 bytes; at most 16000000 are read");

    std::string missing = (folder / "missing.safetensors").string(), fifo = (folder / "fifo.safetensors").string();
    expect_error("missing", "checkpoint \"missing.safetensors\": " + missing + " cannot be opened: No such file or directory",
                 [&] { SafetensorsFile::open(missing); });
    expect(mkfifo(fifo.c_str(), 0600) == 0, "mkfifo");
    expect_error("fifo", "checkpoint \"fifo.safetensors\": " + fifo + " is not a regular file",
                 [&] { SafetensorsFile::open(fifo); });
    std::string base = folder.filename().string();
    expect_error("folder", "checkpoint \"" + base + "\": " + folder.string() + " is not a regular file",
                 [&] { SafetensorsFile::open(folder.string()); });
}

void test_honest() {
    for (size_t padding = 0; padding < 8; ++padding) {  // tensors at every alignment
        std::string header = R"({"b":)" + entry("F32", "[1]", "[12,16]") + R"(,"__metadata__":{"format":"pt"},"e":)" +
                             entry("F16", "[0,7]", "[12,12]") + R"( , "a" :)" + entry("F32", "[ 3 , 1 ]", "[0,12]") + "}" +
                             std::string(padding, ' ');
        auto file = SafetensorsFile::open(write("honest.safetensors", with_length(header, floats({1, 2, 3, 4}))));
        auto& tensors = file->tensors();
        std::string at = "padding " + std::to_string(padding);
        expect(tensors.size() == 3 && tensors[0].name == "a" && tensors[1].name == "e" && tensors[2].name == "b",
               at + ": sorted by place");
        expect(tensors[0].shape == std::vector<int64_t>{3, 1} && tensors[0].begin == 8 + header.size() &&
                   tensors[2].end == 24 + header.size(),
               at + ": places");
        CheckpointRows rows({{file, 0, 1, 2}, {nullptr, -1, 0, 2}, {file, 2, 0, 1}}, 1);
        float got[5] = {9, 9, 9, 9, 9};
        rows.read_rows(0, 5, got);
        expect(rows.rows() == 5 && rows.dtype() == DType::float32 && got[0] == 2 && got[1] == 3 && got[2] == 0 && got[3] == 0 &&
                   got[4] == 4,
               at + ": rows");
        float middle[2] = {9, 9};
        rows.read_rows(3, 2, middle);
        expect(middle[0] == 0 && middle[1] == 4, at + ": rows from the middle");
    }
    std::string header = R"({"\u0061\n\ud83d\ude00\"/é":)" + entry("F32", "[]", "[0,4]") + "}";
    auto file = SafetensorsFile::open(write("é.safetensors", with_length(header, floats({7}))));
    expect(file->tensors().at(0).name == "a\n\xf0\x9f\x98\x80\"/é" && file->tensors()[0].shape.empty() &&
               file->tensors()[0].elements() == 1,
           "escapes and a scalar");
    expect(SafetensorsFile::open(write("empty.safetensors", with_length("{}", "")))->tensors().empty(), "a file without tensors");
    for (const char* dtype : {"BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"})
        expect(
            SafetensorsFile::open(write("one.safetensors", with_length(R"({"a":)" + entry(dtype, "[3]", "[0,3]") + "}", "123")))
                    ->tensors()
                    .size() == 1,
            dtype);

    std::string path = write("same.safetensors", with_length("{}", ""));
    std::string first = SafetensorsFile::open(path)->identity();
    expect(first == SafetensorsFile::open(path)->identity(), "the same file has one identity");
    expect(first != file->identity(), "other files have another");
}

void test_rows() {
    std::string header = R"({"f32":)" + entry("F32", "[2,2]", "[0,16]") + R"(,"f16":)" + entry("F16", "[2]", "[16,20]") +
                         R"(,"i64":)" + entry("I64", "[1]", "[20,28]") + R"(,"f64":)" + entry("F64", "[1]", "[28,36]") + "}";
    auto file = SafetensorsFile::open(write("rows.safetensors", with_length(header, std::string(36, '\0'))));
    auto refused = [&](std::vector<CheckpointRows::Part> parts, int64_t columns, const std::string& message) {
        expect_error("rows", "checkpoint \"rows.safetensors\": " + message, [&] { CheckpointRows(std::move(parts), columns); });
    };
    refused({{file, 2, 0, 1}}, 1, "\"i64\" is I64; weights must be F32, F16 or BF16");
    refused({{file, 3, 0, 1}}, 1, "\"f64\" is F64; weights must be F32, F16 or BF16");
    refused({{file, 0, 0, 1}, {file, 1, 0, 1}}, 2, "\"f16\" is F16, but \"f32\", which is used together with it, is F32");
    refused({{file, 0, 1, 2}}, 2, "\"f32\" is [2, 2], which has no rows 1 to 3 of 2 elements");
    refused({{file, 0, 0, 1}}, 3, "\"f32\" is [2, 2], which has no rows 0 to 1 of 3 elements");
    refused({{file, 0, -1, 1}}, 2, "\"f32\" is [2, 2], which has no rows -1 to 0 of 2 elements");
    refused({{file, 0, 0, 1}}, 0, "\"f32\" is [2, 2], which has no rows 0 to 1 of 0 elements");
    refused({{file, 0, INT64_MAX - 1, 1}}, 2,
            "\"f32\" is [2, 2], which has no rows 9223372036854775806 to 9223372036854775807 of 2 elements");

    CheckpointRows half({{nullptr, -1, 0, 1}, {file, 1, 0, 1}}, 2);
    uint16_t zeros[4] = {9, 9, 9, 9};
    half.read_rows(0, 2, zeros);
    expect(half.dtype() == DType::float16 && zeros[0] == 0 && zeros[3] == 0, "zeros take the dtype of the rest");
    expect(CheckpointRows({{nullptr, -1, 0, 3}}, 4).dtype() == DType::float32, "zeros alone are float32");
    expect_error("past the end", "ERR_INTERNAL rows past the end of a weight were asked for",
                 [&] { half.read_rows(1, 2, zeros); });
}

void test_shrinking() {
    std::string header = R"({"a":)" + entry("F32", "[4]", "[0,16]") + "}";
    std::string path = write("shrinks.safetensors", with_length(header, floats({1, 2, 3, 4})));
    auto file = SafetensorsFile::open(path);
    std::filesystem::resize_file(path, 8 + header.size() + 6);
    std::string end = std::to_string(14 + header.size()), size = std::to_string(24 + header.size());
    float got[4];
    expect_error("shrinks",
                 "checkpoint \"shrinks.safetensors\": the file ends early, at byte " + end + ": it had " + size +
                     " bytes and shrank while it was read",
                 [&] {
                     CheckpointRows({{file, 0, 0, 4}}, 1).read_rows(0, 4, got);
                 });
}

/// Seeded mutations of an honest header; everything that is accepted keeps the rules.
void test_mutations() {
    const std::string honest = R"({"__metadata__":{"format":"pt"},"vision.weight":)" + entry("F32", "[2,3]", "[0,24]") +
                               R"(,"text.bias":)" + entry("BF16", "[4]", "[24,32]") + R"(,"\u00e9\ud83d\ude00":)" +
                               entry("I64", "[0]", "[32,32]") + "}   ";
    const std::string pieces[] = {"{",
                                  "}",
                                  "[",
                                  "]",
                                  ",",
                                  ":",
                                  "\"",
                                  "\\u",
                                  "\\ud800",
                                  "0",
                                  "-1",
                                  "1e9",
                                  "9007199254740991",
                                  "18446744073709551616",
                                  "\"F99\"",
                                  "\"dtype\"",
                                  "\"shape\"",
                                  "\"data_offsets\"",
                                  "\"__metadata__\"",
                                  "\xff",
                                  "\xf0\x9f",
                                  " ",
                                  "[0,24]",
                                  "[24,32]",
                                  "null"};
    std::mt19937_64 random(20240607);
    auto below = [&](size_t n) { return size_t(random() % n); };
    auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    long tries = 0, accepted = 0;
    while (std::chrono::steady_clock::now() < end) {
        for (int i = 0; i < 500; ++i, ++tries) {
            std::string header = honest;
            for (size_t edits = 1 + below(4); edits > 0; --edits) {
                size_t at = below(header.size() + 1), length = below(std::min<size_t>(header.size() - at, 12) + 1);
                switch (below(4)) {
                    case 0: header.replace(at, length, pieces[below(std::size(pieces))]); break;
                    case 1: header.erase(at, length); break;
                    case 2: header.insert(at, header.substr(below(header.size() + 1), below(40))); break;
                    case 3:
                        if (at < header.size()) header[at] = char(random());
                        break;
                }
            }
            accepted += accepts(header, 8 + header.size() + (below(8) ? 32 : below(64)));
        }
    }
    std::printf("%ld mutated headers, %ld accepted\n", tries, accepted);
    expect(accepts(honest, 8 + honest.size() + 32), "the header that is mutated is honest");
    expect(tries > 1000 && accepted > 0 && accepted < tries, "mutations find both kinds");
}

}  // namespace

int main() {
    std::filesystem::create_directories(folder);
    test_lies();
    test_honest();
    test_rows();
    test_shrinking();
    test_mutations();
    std::filesystem::remove_all(folder);
    std::printf("%d passed, %d failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}
