// What a simulation handed to its nodes, event by event, as hashes: two runs of one job are
// compared by them, and the first event that differs is named (`detente simulate
// --check-determinism`).
//
// Thread: the world's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/runtime/contracts.h"

namespace detente {

class EventTrace {
  public:
    // Keeps what it sees.
    EventTrace() = default;
    // Compares what it sees with what another trace has kept, which must outlive it.
    explicit EventTrace(const EventTrace& first) : first_(&first) {}

    void note(NodeId to, Time now, const Event& event);

    std::size_t events() const { return seen_; }
    // The first event that was another one, or one too many or too few; nothing: all were the same.
    std::optional<std::string> difference() const;

  private:
    const EventTrace* first_ = nullptr;
    std::vector<std::uint32_t> hashes_;
    std::size_t seen_ = 0;
    std::optional<std::string> difference_;
};

}  // namespace detente
