// Distinct types for everything that is counted or named, so that a version cannot be passed for
// a step. All are plain values: compare, hash and print freely; arithmetic goes through `.value`.
#pragma once

#include <chrono>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace detente {

template <class Tag, class Rep>
struct Id {
    Rep value{};
    constexpr auto operator<=>(const Id&) const = default;
};

using ShardId = Id<struct ShardTag, std::uint32_t>;
using WorkerId = Id<struct WorkerTag, std::uint32_t>;
using TaskId = Id<struct TaskTag, std::uint32_t>;
using BlockId = Id<struct BlockTag, std::uint64_t>;
using Part = Id<struct PartTag, std::uint32_t>;
// Which process of a rank's successive processes: 1 for the first, one more after each restart.
using Incarnation = Id<struct IncarnationTag, std::uint32_t>;
// Of a shard's leadership or contents. Versions are compared as (epoch, version).
using Epoch = Id<struct EpochTag, std::uint32_t>;
// Grows with every restore of a job; older messages are refused.
using Generation = Id<struct GenerationTag, std::uint64_t>;
// Number of a computed gradient of one worker; starts at 1, a recompute takes a new one.
using Step = Id<struct StepTag, std::uint64_t>;
// Number of updates applied to a block; grows by exactly one per apply.
using Version = Id<struct VersionTag, std::uint64_t>;

template <class T, class R>
constexpr Id<T, R> next(Id<T, R> id) {
    return {static_cast<R>(id.value + 1)};
}

using Nanos = std::chrono::nanoseconds;
// Nanoseconds since the runtime started. Real runtimes read a steady clock; the simulated one
// counts virtual time. A node only ever sees the value it is handed.
using Time = std::chrono::time_point<struct RunClock, Nanos>;
constexpr double as_seconds(Nanos duration) {
    return std::chrono::duration<double>(duration).count();
}
constexpr double as_seconds(Time at) { return as_seconds(at.time_since_epoch()); }

enum class Role : std::uint8_t { coordinator = 0, shard = 1, worker = 2, evaluator = 3 };
const char* name_of(Role role);

// Who a message is from or for. The index counts within the role.
struct NodeId {
    Role role = Role::coordinator;
    std::uint32_t index = 0;
    constexpr auto operator<=>(const NodeId&) const = default;
};
constexpr NodeId node_of(ShardId id) { return {Role::shard, id.value}; }
constexpr NodeId node_of(WorkerId id) { return {Role::worker, id.value}; }
inline constexpr NodeId kCoordinator{Role::coordinator, 0};
// The shard that decides for all in step scope, and leases the batches.
inline constexpr ShardId kLeadShard{0};
std::string to_string(NodeId id);  // "worker:2"

// A set of tasks as bits. At most 64 tasks per job; the job file is refused beyond that.
inline constexpr std::size_t kMaxTasks = 64;
struct TaskSet {
    std::uint64_t bits = 0;
    constexpr bool contains(TaskId task) const { return (bits >> task.value) & 1U; }
    constexpr bool contains_all(TaskSet other) const { return (other.bits & ~bits) == 0; }
    constexpr void insert(TaskId task) { bits |= std::uint64_t{1} << task.value; }
    constexpr int count() const { return __builtin_popcountll(bits); }
    constexpr bool empty() const { return bits == 0; }
    constexpr auto operator<=>(const TaskSet&) const = default;
};

}  // namespace detente

template <class Tag, class Rep>
struct std::hash<detente::Id<Tag, Rep>> {
    std::size_t operator()(detente::Id<Tag, Rep> id) const noexcept {
        return std::hash<Rep>{}(id.value);
    }
};
template <>
struct std::hash<detente::NodeId> {
    std::size_t operator()(detente::NodeId id) const noexcept {
        return (static_cast<std::size_t>(id.role) << 32U) | id.index;
    }
};
