#include "common/runtime/disk.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "common/file.h"

namespace detente {
namespace {

Error disk_error(const std::string& path, const char* doing) {
    const int number = errno;
    std::string text = std::string("cannot ") + doing + " " + path + ": " + std::strerror(number);
    if (number == ENOSPC || number == EDQUOT) text += "; free some space, or choose another --out";
    if (number == EACCES || number == EROFS) text += "; choose a writable directory with --out";
    return fail(ErrorCode::io, std::move(text));
}

class File {
  public:
    explicit File(int descriptor) : descriptor_(descriptor) {}
    ~File() {
        if (descriptor_ >= 0) ::close(descriptor_);
    }
    File(const File&) = delete;
    File& operator=(const File&) = delete;
    int descriptor() const { return descriptor_; }
    bool close() {
        const int closing = descriptor_;
        descriptor_ = -1;
        return ::close(closing) == 0;
    }

  private:
    int descriptor_;
};

bool write_all(int descriptor, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
        const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return false;
        bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
    return true;
}

// `fill` writes the file.
template <class Fill>
Result<void> write_partial(const std::string& path, const std::string& partial, Fill fill) {
    constexpr mode_t kMode = 0644;
    File file(::open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, kMode));
    if (file.descriptor() < 0) return disk_error(partial, "create");
    if (auto filled = fill(file.descriptor(), partial); !filled) return filled;
    if (::fsync(file.descriptor()) != 0 && errno != EINVAL) {
        return disk_error(partial, "flush to disk");
    }
    if (!file.close()) return disk_error(partial, "close");
    if (std::rename(partial.c_str(), path.c_str()) != 0) {
        return disk_error(path, "rename the finished file to");
    }
    return {};
}

template <class Fill>
Result<void> write_whole(const std::string& path, Fill fill) {
    const std::string partial = path + ".partial";
    if (auto written = write_partial(path, partial, fill); !written) {
        ::unlink(partial.c_str());
        return written;
    }
    const std::filesystem::path parent = std::filesystem::path(path).parent_path();
    const std::string folder = parent.empty() ? std::string(".") : parent.string();
    const File opened(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (opened.descriptor() < 0 || ::fsync(opened.descriptor()) != 0) {
        return disk_error(folder, "flush to disk the folder");
    }
    return {};
}

// `written` is called for each piece in order.
template <class Written>
Result<void> write_pieces(const StoreOp& operation, Written written) {
    return write_whole(operation.path,
                       [&](int descriptor, const std::string& partial) -> Result<void> {
                           for (std::size_t i = 0; i < operation.pieces.size(); ++i) {
                               if (!write_all(descriptor, operation.pieces[i].bytes)) {
                                   return disk_error(partial, "write");
                               }
                               written(i);
                           }
                           return {};
                       });
}

}  // namespace

Result<void> write_whole_file(const StoreOp& operation) {
    return write_pieces(operation, [](std::size_t) {});
}

Result<void> copy_whole_file(const std::string& from, const std::string& to) {
    constexpr std::uint64_t kPortionBytes = 1U << 20U;
    const Result<OpenFile> source = open_to_read(from);
    if (source.has_error()) return source.error();
    const Result<std::uint64_t> size = file_size(*source, from);
    if (size.has_error()) return size.error();
    return write_whole(to, [&](int descriptor, const std::string& partial) -> Result<void> {
        std::vector<std::byte> portion(std::min(kPortionBytes, *size));
        for (std::uint64_t offset = 0; offset < *size; offset += kPortionBytes) {
            const auto part = std::span(portion).first(std::min(kPortionBytes, *size - offset));
            if (auto read = read_whole(*source, offset, part, from); !read) return read;
            if (!write_all(descriptor, part)) return disk_error(partial, "write");
        }
        return {};
    });
}

Result<void> write_whole_file(StoreOp&& operation, const Release& release) {
    std::vector<Payload> done;
    std::uint64_t bytes = 0;
    return write_pieces(operation, [&](std::size_t i) {
        bytes += operation.pieces[i].size();
        done.push_back(std::move(operation.pieces[i]));
        const bool last = i + 1 == operation.pieces.size();
        if (bytes < kReleaseBytes && !last) return;
        release(std::exchange(done, {}));
        bytes = 0;
    });
}

}  // namespace detente
