// Frames in and out without copies. Outgoing: libzmq is lent the payload's memory; its free
// callback runs on an I/O thread and only pushes onto a stack, so the payload's reference is
// dropped on the loop's thread. Incoming: a Payload owns the zmq_msg_t it came in.
#pragma once

#include <zmq.h>

#include <cstddef>

#include "common/payload.h"
#include "common/runtime/zmq/mpsc_stack.h"
#include "common/runtime/zmq/wakeup.h"

namespace detente {

// Below this libzmq copies into its own batch anyway, and a copy is cheaper than a hand-back.
inline constexpr std::size_t kCopiedFrameBytes = 8U << 10U;

class SentFrames;
struct SentFrame {
    SentFrame* next = nullptr;
    Payload payload;
    SentFrames* home = nullptr;
};

// Thread: the loop's, but for the callback inside. Invariant: outlives the zmq context it lends to.
class SentFrames {
  public:
    // Without `wakes` a sleeping loop is left asleep when a frame comes back.
    SentFrames(Wakeup& wakeup, bool wakes) : wakeup_(wakeup), wakes_(wakes) {}
    ~SentFrames();
    SentFrames(const SentFrames&) = delete;
    SentFrames& operator=(const SentFrames&) = delete;

    // Makes `out` a frame of these bytes: copied if small, else lent until sent or given up.
    void fill(zmq_msg_t& out, const Payload& payload);
    // Drops what came back; how many payloads that were.
    std::size_t drain();
    bool none_returned() const { return returned_.empty(); }
    std::size_t lent() const { return lent_; }
    bool wakes() const { return wakes_; }

  private:
    static void returned(void* bytes, void* hint);

    Wakeup& wakeup_;
    const bool wakes_;
    MpscStack<SentFrame> returned_;
    SentFrame* spare_ = nullptr;  // recycled
    std::size_t lent_ = 0;
};

// Moves `message` into a payload that owns it; `message` is left empty and initialised.
Payload payload_of_received(zmq_msg_t& message);

}  // namespace detente
