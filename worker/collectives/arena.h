// Hands out pieces of one stretch of memory, and takes them back: first fit, neighbours joined.
// Pages that were written stay in memory, so a piece used again costs no page faults.
// Thread: any; a mutex per call, of which there are a few per bucket.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>

namespace detente {

class Arena {
  public:
    static constexpr std::size_t kAlignment = 64;

    explicit Arena(std::size_t bytes);
    std::size_t bytes() const { return bytes_; }
    // Where a piece begins; none: no stretch of that length is free.
    std::optional<std::size_t> take(std::size_t bytes);
    // Requires: exactly what take() gave.
    void give_back(std::size_t at, std::size_t bytes);
    std::size_t used_bytes() const;

  private:
    const std::size_t bytes_;
    mutable std::mutex mutex_;
    std::map<std::size_t, std::size_t> free_;  // start → length; none touches the next
};

}  // namespace detente
