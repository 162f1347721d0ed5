#include "common/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

namespace detente {

OpenFile::~OpenFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
}
OpenFile::OpenFile(OpenFile&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
OpenFile& OpenFile::operator=(OpenFile&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
}

Error io_error(const std::string& doing, const std::string& path, int error_number) {
    std::string text = fmt::format("cannot {} {}: {}", doing, path, std::strerror(error_number));
    switch (error_number) {
        case ENOSPC:
        case EDQUOT:
        case EFBIG:
            text += "; free some space, or choose another --out";
            break;
        case EACCES:
        case EPERM:
        case EROFS:
            text += "; check who may read and write there, or choose another --out";
            break;
        default:
            break;
    }
    return fail(ErrorCode::io, std::move(text));
}

Result<OpenFile> open_to_read(const std::string& path) {
    OpenFile file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) return io_error("open", path, errno);
    return file;
}

Result<std::uint64_t> file_size(const OpenFile& file, const std::string& path) {
    struct stat status {};
    if (::fstat(file.get(), &status) != 0) return io_error("examine", path, errno);
    if (S_ISDIR(status.st_mode)) return io_error("read", path, EISDIR);
    return static_cast<std::uint64_t>(status.st_size);
}

Result<void> write_whole(const OpenFile& file, std::span<const std::byte> bytes,
                         const std::string& path) {
    while (!bytes.empty()) {
        const ssize_t written = ::write(file.get(), bytes.data(), bytes.size());
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return io_error("write", path, errno);
        bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
    return {};
}

Result<void> read_whole(const OpenFile& file, std::uint64_t offset_bytes, std::span<std::byte> into,
                        const std::string& path) {
    std::uint64_t offset = offset_bytes;
    while (!into.empty()) {
        const ssize_t count =
            ::pread(file.get(), into.data(), into.size(), static_cast<off_t>(offset));
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return io_error("read", path, errno);
        if (count == 0) {
            return fail(ErrorCode::io,
                        fmt::format("cannot read {}: expected {} more bytes at byte {}, found its "
                                    "end: the file was truncated while it was being read",
                                    path, into.size(), offset));
        }
        into = into.subspan(static_cast<std::size_t>(count));
        offset += static_cast<std::uint64_t>(count);
    }
    return {};
}

Result<std::string> read_text(const std::string& path, std::uint64_t most_bytes) {
    const Result<OpenFile> file = open_to_read(path);
    if (file.has_error()) return file.error();
    const Result<std::uint64_t> size = file_size(*file, path);
    if (size.has_error()) return size.error();
    if (*size > most_bytes) {
        return fail(ErrorCode::over_limit, fmt::format("{}: expected at most {} bytes, found {}",
                                                       path, most_bytes, *size));
    }
    std::string text(*size, '\0');
    const auto read = read_whole(*file, 0, std::as_writable_bytes(std::span(text)), path);
    if (read.has_error()) return read.error();
    return text;
}

struct RunningChecksum::State {
    XXH3_state_t xxh3;
};
RunningChecksum::RunningChecksum() : state_(std::make_unique<State>()) {
    XXH3_64bits_reset(&state_->xxh3);
}
RunningChecksum::RunningChecksum(RunningChecksum&&) noexcept = default;
RunningChecksum& RunningChecksum::operator=(RunningChecksum&&) noexcept = default;
RunningChecksum::~RunningChecksum() = default;
void RunningChecksum::add(std::span<const std::byte> bytes) {
    XXH3_64bits_update(&state_->xxh3, bytes.data(), bytes.size());
}
std::uint64_t RunningChecksum::value() const { return XXH3_64bits_digest(&state_->xxh3); }

Result<FileDigest> digest_of(const std::string& path) {
    constexpr std::uint64_t kPortionBytes = 1U << 20U;
    const Result<OpenFile> file = open_to_read(path);
    if (file.has_error()) return file.error();
    const Result<std::uint64_t> size = file_size(*file, path);
    if (size.has_error()) return size.error();
    RunningChecksum checksum;
    std::vector<std::byte> portion(std::min(kPortionBytes, *size));
    for (std::uint64_t offset = 0; offset < *size; offset += kPortionBytes) {
        const auto part = std::span(portion).first(std::min(kPortionBytes, *size - offset));
        const auto read = read_whole(*file, offset, part, path);
        if (read.has_error()) return read.error();
        checksum.add(part);
    }
    return FileDigest{*size, checksum.value()};
}

}  // namespace detente
