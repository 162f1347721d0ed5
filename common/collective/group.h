// Groups of workers that average gradients, what they bring, and what becomes of it: the values
// that nodes, runtimes and backends share. What a collective promises is said in
// worker/collectives/collective.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "common/ids.h"
#include "common/payload.h"
#include "common/result.h"

namespace detente {

// Grows with every forming of a group; what belongs to a lower one is refused.
using GroupEpoch = Id<struct GroupEpochTag, std::uint64_t>;
// A piece of a step's gradients that is averaged as a whole: some blocks of one task, say.
using Bucket = Id<struct BucketTag, std::uint32_t>;

// Sets of members travel as bits of one word, with room for a reason.
inline constexpr std::size_t kMostGroupMembers = 55;
// Keys begun and not ended at one member.
inline constexpr std::size_t kMostKeysInFlight = 64;

struct Group {
    GroupEpoch epoch;
    std::vector<WorkerId> members;  // ascending: the order in which gradients are summed
    bool operator==(const Group&) const = default;

    // Position of a member; members.size() if it is none.
    std::size_t index_of(WorkerId member) const;
    // "worker:1 and worker:4" for those whose bit is set.
    std::string names_of(std::uint64_t members_mask) const;
    std::vector<WorkerId> ids_of(std::uint64_t members_mask) const;
};
// Refuses (over_limit, internal) an empty or too large group, members that do not ascend, and a
// self that is none of them.
Result<void> check_group(const Group& group, WorkerId self);

struct CollectiveKey {
    GroupEpoch epoch;
    Step step;  // of the group, the same at all members
    Bucket bucket;
    constexpr auto operator<=>(const CollectiveKey&) const = default;
};
std::string to_string(const CollectiveKey& key);  // "epoch 2, step 7, bucket 0"

// What one member brings to a key.
struct GradientShare {
    std::uint64_t elements = 0;  // of float32; the same at all members
    double weight = 0;           // finite, not negative; the number of samples, as a rule
    Payload gradient;            // `elements` floats at any address; may be empty if weight is 0
};
GradientShare cancelled_share(std::uint64_t elements);
// Refused: bad_length (bytes that are not `elements` floats), not_finite (the weight).
Result<void> check_share(const GradientShare& share);

struct Averaged {
    Payload mean;           // of `elements` floats; may be shared with the other members
    double weight_sum = 0;  // Σ wᵢ
};
// All members had weight 0: there is no mean.
struct Weightless {};
// The error's code: peer_lost (a process is gone), timed_out (the deadline passed), bad_length
// (members disagree about the elements), over_limit (a member found no memory in time), io (a
// member's device or library failed).
struct Broken {
    Error error;
    std::vector<WorkerId> missing;  // never empty in what poll() returns
};

struct CollectiveEnd {
    CollectiveKey key;
    std::variant<Averaged, Weightless, Broken> result;
    // What the member had brought, untouched: to be dropped where it was made, or brought again to
    // the group that is formed next.
    Payload gradient;
};

}  // namespace detente
