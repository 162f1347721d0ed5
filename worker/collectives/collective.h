// The contract of a collective: the members of a group average their gradients, bucket by bucket,
// and every member gets the same mean. Backends: shared memory (processes of one host), the modules
// nccl and mpi (collective_module.h), and local (threads of one process, for tests: the plainest
// one). The simulator has averages of its own, on virtual time (common/runtime/sim/groups.h), by
// the same invariants; tests/sim/groups_test.cpp asks for them there.
//
//   mean = Σᵢ wᵢ·gᵢ / Σᵢ wᵢ,  computed as Σᵢ float(wᵢ / W)·gᵢ with W = Σᵢ wᵢ in double,
//
// over the members in the group's order. A cancelled member joins with weight 0 and counts for
// nothing, NaN and all, so nobody waits for it in vain; if all have weight 0 there is no mean, and
// the end says so (Weightless).
//
// Bits: the mean is the same bits on every member. On `local` and `shared_memory` it is also the
// same on every run, in whatever order members arrive: one fused multiply-add per member and
// element, in the group's order (average.h). nccl and mpi sum in an order of their library's.
//
// Invariants
// - A key that a member has begun ends exactly once at that member: averaged, weightless or broken.
// - Keys are matched by value: two members may begin two keys in different orders.
// - A lost member breaks the group: every key that is not complete then ends broken, everywhere,
//   and names who is missing. A deadline that passes does the same. One key ends the same way at
//   every member that outlives it (what mpi can promise of that: mpi_module.cpp).
// - A broken group stays broken. Those that are left form anew under a higher epoch, and whatever
//   still comes from the old epoch is refused.
//
// Thread: a collective belongs to one thread, the loop that hosts it or one beside it
// (collective_thread.h); only wake() may be called from any. No call blocks but wait().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/collective/group.h"
#include "common/ids.h"
#include "common/payload.h"
#include "common/result.h"

namespace detente {

// Memory a backend reduces from without a copy of its own; written by its one owner, then frozen.
struct GradientBuffer {
    std::shared_ptr<void> owner;
    std::span<std::byte> bytes;  // 64-byte aligned
    Payload payload() const { return {owner, bytes}; }
};

class Collective {
  public:
    virtual ~Collective() = default;  // leaves the group, which breaks it for the others
    Collective() = default;
    Collective(const Collective&) = delete;
    Collective& operator=(const Collective&) = delete;

    virtual const Group& group() const = 0;
    virtual WorkerId self() const = 0;

    // Room for a gradient, where this backend reduces fastest; any other memory does as well, for
    // one copy. over_limit: none is free; the text names who holds it. Thread: any.
    virtual Result<GradientBuffer> buffer(std::size_t bytes) = 0;

    // Joins a key. It is broken if it has not ended when `deadline` has passed, as poll() sees it.
    // Refused at once, and never begun: wrong_epoch (a key of another epoch), the error that broke
    // the group, bad_length and not_finite (check_share), over_limit (kMostKeysInFlight).
    // Requires: the key is not in flight at this member.
    virtual Result<void> begin(const CollectiveKey& key, GradientShare share, Time deadline) = 0;

    // Breaks the group over this member, which cannot bring its share of a key that the others wait
    // for: they are told at once, instead of missing it at a deadline. No effect if the group is
    // broken already. As of the next poll().
    virtual void give_up(const CollectiveKey& key, const Error& why) = 0;

    // Does what there is to do without waiting, this member's part of the sums included, and
    // returns the keys that have ended since.
    virtual std::vector<CollectiveEnd> poll(Time now) = 0;

    // Set once the group is broken, for members with nothing in flight, too. As of the last poll().
    virtual const std::optional<Broken>& broken() const = 0;
    // The nearest deadline of the keys in flight.
    virtual std::optional<Time> next_deadline() const = 0;

    // Sleeps until there may be something for poll() to do, wake() was called, or `at_most` has
    // passed. Spins for some microseconds first, only while keys are in flight.
    virtual void wait(Nanos at_most) = 0;
    // Thread: any.
    virtual void wake() = 0;
};

// Forms groups of one kind. Lives as long as its collectives.
class CollectiveBackend {
  public:
    virtual ~CollectiveBackend() = default;
    virtual const char* name() const = 0;
    // Joins the group; every member calls this with the same group. Blocks until all are there
    // (local does not), at most for `deadline`: timed_out names who is missing. peer_lost: one was
    // lost meanwhile. wrong_epoch: a member asks for another group under the same name.
    virtual Result<std::unique_ptr<Collective>> form(const Group& group, WorkerId self,
                                                     Nanos deadline) = 0;
};

}  // namespace detente
