// Where a worker's steps spend their time, by its own clock alone: computing, or blocked by the
// wire, by the queue at a shard, by the shard's own work, or by waiting for others.
//
// A step lasts from the start of its gradient to the start of the next. What is not computing in
// between is blocked, and goes back along the answers it hung on: the last answer before the next
// gradient, from when its request was sent; the last answer before that; and so on. What no answer
// covers is waiting: for a batch, for the others of its node. So the five add up to the step, to
// the nanosecond. Of a round trip that began while the worker still computed only the part after it
// counts, of each of its shares alike: with pull_ahead most round trips hide behind computing, and
// the five say what is left, not what travels.
//
// No clocks are compared. A shard says how long it took over a request (Envelope::handled): apply.
// What else a round trip took is wire and queue, and what the best of the last ones of about that
// size took is the wire; Mills filters a clock's delays so ("Internet time synchronization: the
// network time protocol", IEEE Trans. Comm. 39(10), 1991, section IV; RFC 5905, section 10). So a
// queue that was never empty counts as wire, and what clogs a link as queue. In a simulated run a
// shard takes what [simulate.shard] says, or no time.
//
// A shard that cannot answer yet says so at once (Wait), which measures the way as an answer does.
// From then on it is waiting, the way of the late answer included; so is a request that was sent
// again.
//
// Pure. Owner: the worker's loop.
#pragma once

#include <cstdint>
#include <vector>

#include "common/ids.h"

namespace detente {

enum class Asked : std::uint8_t { pull, push };

// A request that its shard has answered, whole; or by a Wait, after which it is open anew.
struct Answered {
    Asked asked = Asked::pull;
    std::uint64_t bytes = 0;  // of its payloads, both ways
    Time sent{};
    // Neither sent again nor told to wait before: how long it took says something of the way.
    bool straight = true;
};

// The smallest of the last 32 to 64 values: of the block of 32 before, and of the one begun.
class LeastOfLast {
  public:
    static constexpr std::uint32_t kBlock = 32;
    // With this value among them.
    Nanos with(Nanos value);

  private:
    Nanos before_ = Nanos::max();
    Nanos now_ = Nanos::max();
    std::uint32_t in_block_ = 0;
};

class StepTime {
  public:
    struct Parts {
        Nanos compute{0};
        Nanos wait{0};
        Nanos wire{0};
        Nanos queue{0};
        Nanos apply{0};
        Nanos sum() const { return compute + wait + wire + queue + apply; }
    };

    // The step before ends here, if there is one. Times never fall, from call to call.
    void gradient_begins(Time now);
    // The computation ended; another half of the step may follow.
    void computation_ends(Time now);
    // What lies between two halves of a step is waiting for its node.
    void next_half_begins(Time now);
    // `handled`: the shard's word.
    void answered(ShardId shard, const Answered& answer, Nanos handled, Time now);
    // No gradient follows; the last step ends here. Once it has, nothing happens.
    void ends(Time now);

    // Of the steps that have ended.
    std::uint64_t steps() const { return steps_; }
    const Parts& total() const { return total_; }

  private:
    struct RoundTrip {
        Time sent{};
        Time received{};
        Nanos wire{0};
        Nanos queue{0};
        Nanos apply{0};  // all three {0}: waiting, for whatever it was
    };
    struct Way {
        Asked asked;
        std::uint8_t size;  // power of two
        LeastOfLast wire;
    };
    LeastOfLast& way_of(ShardId shard, const Answered& answer);
    void add_blocked(Time until);
    void add_share(const RoundTrip& trip, Nanos blocked);
    void close(Time now);

    std::vector<std::vector<Way>> ways_;  // by shard; few each
    std::vector<RoundTrip> trips_;        // answered since the last computation's end
    bool in_step_ = false;
    bool computing_ = false;
    Time since_{};  // computing, or blocked
    Parts step_;    // the one that is under way
    Parts total_;
    std::uint64_t steps_ = 0;
};

}  // namespace detente
