// Bytes in flight. A Payload is immutable and shared by reference; its last reference is dropped on
// the thread of the loop that made it (transports hand it back through a queue), so that a use
// count read on that thread is exact.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace detente {

struct Payload {
    std::shared_ptr<const void> owner;
    std::span<const std::byte> bytes;

    std::size_t size() const { return bytes.size(); }
    bool empty() const { return bytes.empty(); }
};

// Uninitialised memory aligned to 64 bytes, as weights and vector kernels want it.
class AlignedBuffer {
  public:
    AlignedBuffer() = default;
    explicit AlignedBuffer(std::size_t bytes);
    ~AlignedBuffer();
    AlignedBuffer(AlignedBuffer&& other) noexcept;
    AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;
    AlignedBuffer(const AlignedBuffer&) = delete;
    AlignedBuffer& operator=(const AlignedBuffer&) = delete;

    std::byte* data() { return bytes_; }
    const std::byte* data() const { return bytes_; }
    std::size_t size() const { return size_; }
    std::span<float> floats() { return {reinterpret_cast<float*>(bytes_), size_ / sizeof(float)}; }
    std::span<const float> floats() const {
        return {reinterpret_cast<const float*>(bytes_), size_ / sizeof(float)};
    }

  private:
    std::byte* bytes_ = nullptr;
    std::size_t size_ = 0;
};

// A payload that owns a 64-byte aligned copy of `bytes`.
Payload copy_of(std::span<const std::byte> bytes);
// A payload over all of `buffer`.
Payload payload_of(std::shared_ptr<const AlignedBuffer> buffer);

}  // namespace detente
