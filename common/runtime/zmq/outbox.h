// Messages that could not be sent at once, per peer, oldest first. Bounded in messages, bytes and
// age: the protocol sends again what is lost, and a queue must not hold a server's buffers for
// ever.
#pragma once

#include <cstddef>
#include <deque>

#include "common/codec/codec.h"
#include "common/ids.h"

namespace detente {

struct Outgoing {
    Frames frames;
    std::size_t bytes = 0;
    Time since;
};
Outgoing outgoing_of(Frames frames, Time now);

// Owned by the loop's thread.
class Outbox {
  public:
    static constexpr std::size_t kMostMessages = 256;
    static constexpr std::size_t kMostBytes = 64U << 20U;
    static constexpr Nanos kMostAge = std::chrono::seconds(2);

    // False if it is full; the message is then gone.
    bool put(Outgoing message);
    Outgoing& oldest() { return messages_.front(); }
    void pop();
    bool empty() const { return messages_.empty(); }
    std::size_t size() const { return messages_.size(); }

  private:
    std::deque<Outgoing> messages_;
    std::size_t bytes_ = 0;
};

}  // namespace detente
