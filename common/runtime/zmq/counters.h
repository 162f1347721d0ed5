// What a loop counts: written by its thread only, read from any.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "common/result.h"

namespace detente {

inline constexpr std::size_t kErrorCodes = static_cast<std::size_t>(ErrorCode::internal) + 1;

// A snapshot.
struct LoopCounters {
    std::uint64_t messages_in = 0, bytes_in = 0;    // that reached the node
    std::uint64_t messages_out = 0, bytes_out = 0;  // handed to libzmq
    std::uint64_t dropped = 0;   // could not be sent: no route, queue over its bound, peer gone
    std::uint64_t queued = 0;    // were not sent at once
    std::uint64_t wake_ups = 0;  // returns from poll
    std::array<std::uint64_t, kErrorCodes> refused{};  // received and not taken, by code
    std::uint64_t refused_as(ErrorCode code) const {
        return refused[static_cast<std::size_t>(code)];
    }
};

class Counter {
  public:
    void add(std::uint64_t amount) {  // thread: the loop's
        value_.store(value_.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
    }
    std::uint64_t read() const { return value_.load(std::memory_order_relaxed); }

  private:
    std::atomic<std::uint64_t> value_{0};
};

struct CounterCells {
    Counter messages_in, bytes_in, messages_out, bytes_out, dropped, queued, wake_ups;
    std::array<Counter, kErrorCodes> refused;

    LoopCounters read() const {
        LoopCounters out{messages_in.read(), bytes_in.read(), messages_out.read(), bytes_out.read(),
                         dropped.read(),     queued.read(),   wake_ups.read(),     {}};
        for (std::size_t i = 0; i < kErrorCodes; ++i) out.refused[i] = refused[i].read();
        return out;
    }
};

}  // namespace detente
