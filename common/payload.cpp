#include "common/payload.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace detente {

namespace {

constexpr std::size_t kAlignment = 64;
// Below this a buffer is aligned by hand within a plain allocation: glibc's aligned ones split and
// join chunks, which for small messages costs more than everything else that is done with them.
constexpr std::size_t kByHandBelow = 4096;

// The byte before the buffer says how far it lies behind its allocation: 16 to 64, since malloc's
// are aligned to 16.
std::byte* allocate(std::size_t size) {
    const std::size_t rounded =
        std::max(kAlignment, (size + kAlignment - 1) / kAlignment * kAlignment);
    if (size >= kByHandBelow) {
        return static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded));
    }
    auto* const whole = static_cast<std::byte*>(std::malloc(rounded + kAlignment));
    if (whole == nullptr) return nullptr;
    const std::size_t offset = kAlignment - reinterpret_cast<std::uintptr_t>(whole) % kAlignment;
    whole[offset - 1] = static_cast<std::byte>(offset);
    return whole + offset;
}

}  // namespace

AlignedBuffer::AlignedBuffer(std::size_t bytes) : bytes_(allocate(bytes)), size_(bytes) {
    if (bytes_ == nullptr) throw std::bad_alloc();
}

AlignedBuffer::~AlignedBuffer() {
    const bool by_hand = bytes_ != nullptr && size_ < kByHandBelow;
    std::free(by_hand ? bytes_ - static_cast<std::size_t>(bytes_[-1]) : bytes_);
}

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
