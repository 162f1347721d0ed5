#include "common/safetensors.h"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <numeric>

#include "common/checksum.h"
#include "common/runtime/disk.h"
#include "tests/temporary_folder.h"

namespace detente {
namespace {

std::span<const std::byte> bytes_of(const std::vector<float>& floats) {
    return std::as_bytes(std::span(floats));
}

// Length, header, bytes, as the format's page says, without our writer.
std::string file_of(const std::string& header, const std::string& tensors) {
    std::string file;
    for (unsigned i = 0; i < 8; ++i) file += static_cast<char>((header.size() >> (8U * i)) & 0xFFU);
    return file + header + tensors;
}

void require_refused(const TemporaryFolder& folder, const std::string& file,
                     const std::string& named) {
    INFO(file.substr(std::min<std::size_t>(8, file.size())));
    write_file(folder / "x.safetensors", file);
    const auto opened = SafetensorsFile::open(folder / "x.safetensors");
    REQUIRE(opened.has_error());
    CHECK(opened.error().code == ErrorCode::bad_checkpoint);
    CHECK_THAT(opened.error().text, Catch::Contains(named));
    CHECK_THAT(opened.error().text, Catch::Contains("x.safetensors"));
}

std::vector<TensorEntry> three_tensors() {
    return {{"trunk.weight", Dtype::f32, {2, 3}},
            {"steps", Dtype::i64, {1}},
            {"none", Dtype::u8, {0}},
            {"raw", Dtype::u8, {5}}};
}

std::string write_three(const std::string& path) {
    auto writer = SafetensorsWriter::create(path, three_tensors(), {{"format", "pt"}});
    REQUIRE(writer.has_value());
    const std::vector<float> weights = {1, 2, 3, 4, 5, 6};
    const std::int64_t steps = -7;
    REQUIRE(writer->append(bytes_of(weights).first(9)).has_value());
    REQUIRE(writer->append(bytes_of(weights).subspan(9)).has_value());
    REQUIRE(writer->append(std::as_bytes(std::span(&steps, 1))).has_value());
    REQUIRE(writer->append(std::as_bytes(std::span("abcde", 5))).has_value());
    CHECK_FALSE(std::filesystem::exists(path));
    REQUIRE(writer->finish().has_value());
    const std::string file = bytes_of_file(path);
    CHECK(writer->digest().bytes == file.size());
    CHECK(writer->digest().checksum == checksum_of(std::as_bytes(std::span(file))));
    return file;
}

TEST_CASE("safetensors: a file is length, header padded to 64, bytes in order, to the letter") {
    const Payload header =
        *safetensors_header({{"b", Dtype::f32, {1, 2}}, {"a", Dtype::u8, {3}}}, {{"format", "pt"}});
    const std::string text(reinterpret_cast<const char*>(header.bytes.data()), header.size());
    std::string expected =
        R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},)"
        R"("a":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}})";
    while ((expected.size() + 8) % 64 != 0) expected += ' ';
    CHECK(text == file_of(expected, ""));
}

TEST_CASE("safetensors: what is written is read back, names, shapes, metadata and bytes") {
    const TemporaryFolder folder;
    write_three(folder / "three.safetensors");
    const auto file = SafetensorsFile::open(folder / "three.safetensors");
    REQUIRE(file.has_value());
    CHECK(file->metadata() == SafetensorsMetadata{{"format", "pt"}});
    REQUIRE(file->tensors().size() == 4);
    const SafetensorsFile::Tensor* weight = file->find("trunk.weight");
    REQUIRE(weight != nullptr);
    CHECK(weight->entry.shape == std::vector<std::uint64_t>{2, 3});
    CHECK(weight->offset_bytes % 64 == 0);
    const auto payload = file->read(*weight);
    REQUIRE(payload.has_value());
    CHECK(reinterpret_cast<std::uintptr_t>(payload->bytes.data()) % 64 == 0);
    CHECK(reinterpret_cast<const float*>(payload->bytes.data())[5] == 6.0F);
    std::array<float, 2> middle{};
    REQUIRE(file->read(*weight, 8, std::as_writable_bytes(std::span(middle))).has_value());
    CHECK(middle == std::array<float, 2>{3, 4});
    CHECK(file->find("none")->entry.bytes() == 0);
    CHECK(file->find("nothing") == nullptr);
}

TEST_CASE("safetensors: header and pieces through a store operation give the same file") {
    const TemporaryFolder folder;
    const std::string streamed = write_three(folder / "a.safetensors");
    const Payload header = *safetensors_header(three_tensors(), {{"format", "pt"}});
    const auto rest = std::as_bytes(std::span(streamed)).subspan(header.size());
    StoreOp operation;
    operation.path = folder / "b.safetensors";
    operation.pieces = {header, copy_of(rest.first(10)), copy_of(rest.subspan(10))};
    REQUIRE(write_whole_file(operation).has_value());
    CHECK(bytes_of_file(folder / "b.safetensors") == streamed);
}

TEST_CASE("safetensors: cut off at any byte, the file is refused") {
    const TemporaryFolder folder;
    const std::string whole = write_three(folder / "whole.safetensors");
    for (std::size_t length = 0; length < whole.size(); ++length) {
        require_refused(folder, whole.substr(0, length), "expected");
    }
}

TEST_CASE("safetensors: with any byte altered, the file is refused or still wholly in bounds") {
    const TemporaryFolder folder;
    const std::string whole = write_three(folder / "whole.safetensors");
    for (std::size_t at = 0; at < whole.size(); ++at) {
        std::string altered = whole;
        altered[at] = static_cast<char>(altered[at] ^ 0x15);
        write_file(folder / "x.safetensors", altered);
        const auto opened = SafetensorsFile::open(folder / "x.safetensors");
        if (opened.has_error()) {
            CHECK(opened.error().code == ErrorCode::bad_checkpoint);
            continue;
        }
        for (const auto& tensor : opened->tensors()) {
            CHECK(tensor.offset_bytes + tensor.entry.bytes() <= whole.size());
            CHECK(opened->read(tensor).has_value());
        }
    }
}

TEST_CASE("safetensors: garbage, lying lengths and headers that are no such header are refused") {
    const TemporaryFolder folder;
    require_refused(folder, std::string(4096, '\x7f'), "found a length of");
    require_refused(folder, std::string(8, '\0'), "no JSON");
    require_refused(folder, file_of("[1]", ""), "no JSON object");
    require_refused(folder, file_of("{\"a\":1}", ""), "tensor 'a' is no JSON object");
    require_refused(folder, file_of("{\"a\":{}}", ""), "no dtype");
    require_refused(folder, file_of(R"({"__metadata__":{"a":1}})", ""), "__metadata__");
    require_refused(folder, file_of(std::string(100000, '['), ""), "no JSON");
}

TEST_CASE("safetensors: ranges that lie, overlap or leave gaps are refused by tensor") {
    const TemporaryFolder folder;
    const auto tensor = [](const std::string& dtype, const std::string& shape,
                           const std::string& range) {
        return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + range +
               "}";
    };
    const std::string good = tensor("U8", "[4]", "[0,4]");
    require_refused(folder, file_of(R"({"w":)" + tensor("F16", "[2]", "[0,4]") + "}", "abcd"),
                    "F32, F64, I64 or U8");
    require_refused(folder, file_of(R"({"w":)" + tensor("F32", "[2]", "[0,4]") + "}", "abcd"),
                    "expected 8 bytes");
    require_refused(folder, file_of(R"({"w":)" + tensor("U8", "[4]", "[0,5]") + "}", "abcd"),
                    "within the 4 bytes");
    require_refused(folder, file_of(R"({"w":)" + tensor("U8", "[4]", "[4,0]") + "}", "abcd"),
                    "within the 4 bytes");
    require_refused(folder, file_of(R"({"w":)" + tensor("U8", "[-4]", "[0,4]") + "}", "abcd"),
                    "whole numbers");
    require_refused(folder, file_of(R"({"w":)" + tensor("U8", "[4.0]", "[0,4]") + "}", "abcd"),
                    "whole numbers");
    require_refused(
        folder,
        file_of(R"({"w":)" + tensor("F32", "[9223372036854775808,8]", "[0,4]") + "}", "abcd"),
        "more than 2^64");
    require_refused(folder, file_of(R"({"v":)" + good + R"(,"w":)" + good + "}", "abcd"),
                    "they overlap");
    require_refused(
        folder,
        file_of(R"({"v":)" + good + R"(,"w":)" + tensor("U8", "[1]", "[5,6]") + "}", "abcdef"),
        "there is a gap");
    require_refused(folder, file_of(R"({"w":)" + good + "}", "abcdef"), "end with the file");
}

TEST_CASE("safetensors: a header that readers would refuse is refused when it is written") {
    const TemporaryFolder folder;
    const SafetensorsMetadata fits{{"x", std::string(kMostSafetensorsHeader - 200, 'a')}};
    REQUIRE(safetensors_header({}, fits).has_value());
    REQUIRE(SafetensorsWriter::create(folder / "fits", {}, fits)->finish().has_value());
    CHECK(SafetensorsFile::open(folder / "fits").has_value());
    const SafetensorsMetadata longer{{"x", std::string(kMostSafetensorsHeader, 'a')}};
    const auto header = safetensors_header(three_tensors(), longer);
    REQUIRE(header.has_error());
    CHECK(header.error().code == ErrorCode::over_limit);
    CHECK_THAT(header.error().text, Catch::Contains("of 4 tensors: expected at most 100000000"));
    const auto writer = SafetensorsWriter::create(folder / "longer", three_tensors(), longer);
    REQUIRE(writer.has_error());
    CHECK_THAT(writer.error().text, Catch::Contains("longer: a safetensors header of"));
    CHECK_FALSE(std::filesystem::exists(folder / "longer.partial"));
}

TEST_CASE("safetensors: a missing file and a folder are io errors that name the path") {
    const TemporaryFolder folder;
    for (const std::string& path : {folder / "missing.safetensors", folder.path()}) {
        const auto opened = SafetensorsFile::open(path);
        REQUIRE(opened.has_error());
        CHECK(opened.error().code == ErrorCode::io);
        CHECK_THAT(opened.error().text, Catch::Contains(path));
    }
}

TEST_CASE("safetensors: a writer that is dropped leaves nothing under either name") {
    const TemporaryFolder folder;
    {
        auto writer = SafetensorsWriter::create(folder / "w.safetensors", three_tensors(), {});
        REQUIRE(writer.has_value());
        CHECK(std::filesystem::exists(folder / "w.safetensors.partial"));
    }
    CHECK(std::filesystem::is_empty(folder.path()));
}

TEST_CASE("safetensors: a folder that is not there is an io error from the writer") {
    const auto writer = SafetensorsWriter::create("/nonexistent/w.safetensors", {}, {});
    REQUIRE(writer.has_error());
    CHECK(writer.error().code == ErrorCode::io);
}

TEST_CASE("safetensors: a full disk is an io error that says to free space") {
    const TemporaryFolder folder;
    std::filesystem::create_symlink("/dev/full", folder / "w.safetensors.partial");
    const auto writer = SafetensorsWriter::create(folder / "w.safetensors", three_tensors(), {});
    REQUIRE(writer.has_error());
    CHECK(writer.error().code == ErrorCode::io);
    CHECK_THAT(writer.error().text, Catch::Contains("free some space"));
}

}  // namespace
}  // namespace detente
