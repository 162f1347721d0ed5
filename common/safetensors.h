// safetensors files, the format Python opens without our code: 8 bytes of header length (little
// endian), a JSON header (name → dtype, shape, byte range; plus a map of strings), then the
// tensors' bytes without gaps. https://github.com/huggingface/safetensors, "Format".
//
// Bytes are little-endian and tensors row-major. The first tensor starts at a multiple of 64.
// Objects belong to one thread; nothing here keeps a file open but SafetensorsFile and -Writer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/file.h"
#include "common/payload.h"
#include "common/result.h"

namespace detente {

enum class Dtype : std::uint8_t { f32, f64, i64, u8 };
const char* name_of(Dtype dtype);  // "F32"
std::uint64_t size_bytes(Dtype dtype);

struct TensorEntry {
    std::string name;
    Dtype dtype = Dtype::f32;
    std::vector<std::uint64_t> shape;
    std::uint64_t bytes() const;  // Requires: the product fits 64 bits
};
using SafetensorsMetadata = std::map<std::string, std::string>;

// The longest header that readers take, ours and Python's.
inline constexpr std::uint64_t kMostSafetensorsHeader = 100'000'000;

// Length and header in front of the bytes of `tensors`, which follow in this order. The header is
// padded with spaces to a multiple of 64. over_limit: longer than kMostSafetensorsHeader, so that
// no file is written that nobody can read. Requires: distinct names of valid UTF-8, none called
// "__metadata__"; metadata of valid UTF-8.
Result<Payload> safetensors_header(const std::vector<TensorEntry>& tensors,
                                   const SafetensorsMetadata& metadata);

// Writes `path` + ".partial" tensor by tensor and renames it to `path` when whole, so a file under
// its own name is complete. Dropped before finish(): the partial file is removed.
class SafetensorsWriter {
  public:
    // io: cannot create or write. over_limit: as safetensors_header().
    static Result<SafetensorsWriter> create(std::string path,
                                            const std::vector<TensorEntry>& tensors,
                                            const SafetensorsMetadata& metadata);
    SafetensorsWriter(SafetensorsWriter&&) noexcept;
    SafetensorsWriter& operator=(SafetensorsWriter&&) noexcept;
    ~SafetensorsWriter();

    // The next bytes of all tensors one after the other, in any portions.
    // Requires: no more bytes than the tensors have. io: the disk is full or failing.
    Result<void> append(std::span<const std::byte> bytes);
    // Flushes to disk and renames. Requires: every byte was appended.
    Result<void> finish();
    // Of everything written so far, header included.
    FileDigest digest() const;

  private:
    struct State;
    explicit SafetensorsWriter(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

// A file opened for reading: the header is verified whole, tensors are read on demand.
class SafetensorsFile {
  public:
    struct Tensor {
        TensorEntry entry;
        std::uint64_t offset_bytes = 0;  // in the file
    };

    // io: missing or unreadable. bad_checkpoint: truncated, no safetensors, a dtype of ours missing
    // (F32, F64, I64, U8), a range outside the file, overlapping, with gaps or not fitting its
    // shape.
    static Result<SafetensorsFile> open(std::string path);
    const std::string& path() const { return path_; }
    std::uint64_t file_bytes() const { return file_bytes_; }
    const SafetensorsMetadata& metadata() const { return metadata_; }
    const std::vector<Tensor>& tensors() const { return tensors_; }  // in file order
    const Tensor* find(std::string_view name) const;                 // null if there is none

    // A 64-byte aligned copy of all its bytes.
    Result<Payload> read(const Tensor& tensor) const;
    // The bytes [from, from + into.size()) of it. Requires: within the tensor.
    Result<void> read(const Tensor& tensor, std::uint64_t from_bytes,
                      std::span<std::byte> into) const;

  private:
    SafetensorsFile() = default;

    std::string path_;
    OpenFile file_;
    std::uint64_t file_bytes_ = 0;
    SafetensorsMetadata metadata_;
    std::vector<Tensor> tensors_;
    std::map<std::string, std::size_t, std::less<>> by_name_;
};

}  // namespace detente
