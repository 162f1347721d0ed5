// Whole reads and writes on file descriptors: interrupted and short calls are repeated, failures
// come back as io errors that name the path and what to do. Blocking; never on a node's loop but
// for the ledger's small appends. Whole files at once: common/runtime/disk.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "common/result.h"

namespace detente {

// A file descriptor that is closed with its owner. Negative: none.
class OpenFile {
  public:
    OpenFile() = default;
    explicit OpenFile(int descriptor) : descriptor_(descriptor) {}
    ~OpenFile();
    OpenFile(OpenFile&& other) noexcept;
    OpenFile& operator=(OpenFile&& other) noexcept;
    int get() const { return descriptor_; }

  private:
    int descriptor_ = -1;
};

// "cannot write /x/y: No space left on device; free some space …", of an errno.
Error io_error(const std::string& doing, const std::string& path, int error_number);

Result<OpenFile> open_to_read(const std::string& path);
Result<std::uint64_t> file_size(const OpenFile& file, const std::string& path);
Result<void> write_whole(const OpenFile& file, std::span<const std::byte> bytes,
                         const std::string& path);
// io: shorter than asked, which is a file truncated after it was opened.
Result<void> read_whole(const OpenFile& file, std::uint64_t offset_bytes, std::span<std::byte> into,
                        const std::string& path);
// The whole file. over_limit: longer than `most_bytes`.
Result<std::string> read_text(const std::string& path, std::uint64_t most_bytes);

// XXH3-64 of bytes that come in portions; equals checksum_of() of them all.
class RunningChecksum {
  public:
    RunningChecksum();
    RunningChecksum(RunningChecksum&&) noexcept;
    RunningChecksum& operator=(RunningChecksum&&) noexcept;
    ~RunningChecksum();
    void add(std::span<const std::byte> bytes);
    std::uint64_t value() const;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

struct FileDigest {
    std::uint64_t bytes = 0;
    std::uint64_t checksum = 0;  // XXH3-64
};
// Streams the file through a buffer of 1 MiB.
Result<FileDigest> digest_of(const std::string& path);

}  // namespace detente
