#include "common/payload.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace detente {

AlignedBuffer::AlignedBuffer(std::size_t bytes) : size_(bytes) {
    constexpr std::size_t kAlignment = 64;
    const std::size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    bytes_ = static_cast<std::byte*>(
        std::aligned_alloc(kAlignment, rounded == 0 ? kAlignment : rounded));
    if (bytes_ == nullptr) throw std::bad_alloc();
}

AlignedBuffer::~AlignedBuffer() { std::free(bytes_); }

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : bytes_(std::exchange(other.bytes_, nullptr)), size_(std::exchange(other.size_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    std::swap(size_, other.size_);
    return *this;
}

Payload payload_of(std::shared_ptr<const AlignedBuffer> buffer) {
    const std::span<const std::byte> bytes{buffer->data(), buffer->size()};
    return {std::move(buffer), bytes};
}

Payload copy_of(std::span<const std::byte> bytes) {
    auto buffer = std::make_shared<AlignedBuffer>(bytes.size());
    if (!bytes.empty()) std::memcpy(buffer->data(), bytes.data(), bytes.size());
    return payload_of(std::move(buffer));
}

}  // namespace detente
