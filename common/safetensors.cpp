#include "common/safetensors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <set>

#include "common/invariant.h"

namespace detente {
namespace json = boost::json;
namespace {

constexpr std::uint64_t kAlignmentBytes = 64;

// By hand, so that nothing depends on this machine's byte order.
void put_length(std::byte* at, std::uint64_t length) {
    for (unsigned i = 0; i < 8; ++i) at[i] = static_cast<std::byte>((length >> (8U * i)) & 0xFFU);
}

}  // namespace

const char* name_of(Dtype dtype) {
    switch (dtype) {
        case Dtype::f32:
            return "F32";
        case Dtype::f64:
            return "F64";
        case Dtype::i64:
            return "I64";
        case Dtype::u8:
            return "U8";
    }
    return "unknown dtype";
}

std::uint64_t size_bytes(Dtype dtype) {
    switch (dtype) {
        case Dtype::f32:
            return 4;
        case Dtype::f64:
        case Dtype::i64:
            return 8;
        case Dtype::u8:
            return 1;
    }
    return 0;
}

std::uint64_t TensorEntry::bytes() const {
    std::uint64_t bytes = size_bytes(dtype);
    for (const std::uint64_t extent : shape) bytes *= extent;
    return bytes;
}

Result<Payload> safetensors_header(const std::vector<TensorEntry>& tensors,
                                   const SafetensorsMetadata& metadata) {
    json::object header;
    if (!metadata.empty()) {
        json::object strings;
        for (const auto& [key, value] : metadata) strings[key] = value;
        header["__metadata__"] = std::move(strings);
    }
    std::uint64_t offset = 0;
    for (const TensorEntry& tensor : tensors) {
        invariant(tensor.name != "__metadata__", "no tensor is called __metadata__");
        json::array shape;
        for (const std::uint64_t extent : tensor.shape) shape.emplace_back(extent);
        const std::uint64_t end = offset + tensor.bytes();
        const bool added =
            header
                .emplace(tensor.name, json::object{{"dtype", name_of(tensor.dtype)},
                                                   {"shape", std::move(shape)},
                                                   {"data_offsets", json::array{offset, end}}})
                .second;
        invariant(added, "names of tensors in one file are distinct");
        offset = end;
    }
    const std::string text = json::serialize(header);
    const std::uint64_t whole =
        (8 + text.size() + kAlignmentBytes - 1) / kAlignmentBytes * kAlignmentBytes;
    if (whole - 8 > kMostSafetensorsHeader) {
        return fail(ErrorCode::over_limit,
                    fmt::format("a safetensors header of {} bytes, of {} tensors: expected at most "
                                "{}, since no reader takes more",
                                whole - 8, tensors.size(), kMostSafetensorsHeader));
    }
    auto buffer = std::make_shared<AlignedBuffer>(whole);
    put_length(buffer->data(), whole - 8);
    std::memcpy(buffer->data() + 8, text.data(), text.size());
    std::memset(buffer->data() + 8 + text.size(), ' ', whole - 8 - text.size());
    return payload_of(std::move(buffer));
}

struct SafetensorsWriter::State {
    std::string path;
    std::string partial;
    OpenFile file;
    std::uint64_t due_bytes = 0;  // of tensors, not yet appended
    std::uint64_t written_bytes = 0;
    RunningChecksum checksum;
    bool finished = false;

    Result<void> write(std::span<const std::byte> bytes) {
        auto written = write_whole(file, bytes, partial);
        if (written.has_error()) return written;
        written_bytes += bytes.size();
        checksum.add(bytes);
        return {};
    }
    ~State() {
        if (!finished && file.get() >= 0) ::unlink(partial.c_str());
    }
};

SafetensorsWriter::SafetensorsWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}
SafetensorsWriter::SafetensorsWriter(SafetensorsWriter&&) noexcept = default;
SafetensorsWriter& SafetensorsWriter::operator=(SafetensorsWriter&&) noexcept = default;
SafetensorsWriter::~SafetensorsWriter() = default;

Result<SafetensorsWriter> SafetensorsWriter::create(std::string path,
                                                    const std::vector<TensorEntry>& tensors,
                                                    const SafetensorsMetadata& metadata) {
    const Result<Payload> header = safetensors_header(tensors, metadata);
    if (header.has_error()) {
        return fail(header.error().code, fmt::format("{}: {}", path, header.error().text));
    }
    auto state = std::make_unique<State>();
    state->path = std::move(path);
    state->partial = state->path + ".partial";
    for (const TensorEntry& tensor : tensors) state->due_bytes += tensor.bytes();
    constexpr int kMode = 0644;
    state->file =
        OpenFile(::open(state->partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, kMode));
    if (state->file.get() < 0) return io_error("create", state->partial, errno);
    const auto written = state->write(header->bytes);
    if (written.has_error()) return written.error();
    return SafetensorsWriter(std::move(state));
}

Result<void> SafetensorsWriter::append(std::span<const std::byte> bytes) {
    invariant(bytes.size() <= state_->due_bytes, "no more bytes than the header announced");
    auto written = state_->write(bytes);
    if (written.has_error()) return written;
    state_->due_bytes -= bytes.size();
    return {};
}

Result<void> SafetensorsWriter::finish() {
    invariant(state_->due_bytes == 0, "all the bytes the header announced were appended");
    if (::fsync(state_->file.get()) != 0 && errno != EINVAL) {
        return io_error("flush to disk", state_->partial, errno);
    }
    if (std::rename(state_->partial.c_str(), state_->path.c_str()) != 0) {
        return io_error("rename the finished file to", state_->path, errno);
    }
    state_->finished = true;
    std::string folder = std::filesystem::path(state_->path).parent_path().string();
    if (folder.empty()) folder = ".";
    const Result<OpenFile> opened = open_to_read(folder);
    if (opened.has_error()) return opened.error();
    if (::fsync(opened->get()) != 0) return io_error("flush to disk the folder", folder, errno);
    return {};
}

FileDigest SafetensorsWriter::digest() const {
    return {state_->written_bytes, state_->checksum.value()};
}

}  // namespace detente
