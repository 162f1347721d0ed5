#include "common/runtime/sim/network.h"

#include <algorithm>
#include <optional>

#include "common/random.h"

namespace detente::sim {
namespace {

bool is_among(const std::vector<NodeId>& group, NodeId node) {
    return group.empty() || std::find(group.begin(), group.end(), node) != group.end();
}

bool concerns(const Disturbance& disturbance, NodeId from, NodeId to) {
    if (is_among(disturbance.from, from) && is_among(disturbance.to, to)) return true;
    return disturbance.both_ways && is_among(disturbance.from, to) &&
           is_among(disturbance.to, from);
}

bool is_control(NodeId node) {
    return node.role == Role::coordinator || node.role == Role::evaluator;
}

}  // namespace

Nanos Network::transfer_time(std::uint64_t bytes) const {
    const double seconds =
        static_cast<double>(bytes + kHeaderBytes) / options_.bandwidth_bytes_per_s;
    return Nanos(static_cast<std::int64_t>(seconds * 1e9));
}

Network::Fate Network::send(NodeId from, NodeId to, std::uint64_t number, std::uint64_t bytes,
                            Time now) {
    const std::uint64_t key = random_key(
        seed_, Purpose::network, {static_cast<std::uint64_t>(from.role), from.index, number});
    if (is_control(from) || is_control(to)) return send_reliably(from, to, now, key);
    Fate fate;
    fate.key = key;
    Random random(key);
    fate.dropped = random.uniform() < options_.drop;
    fate.doubled = random.uniform() < options_.duplicate;
    const bool corrupt = random.uniform() < options_.corrupt;
    const auto jitter = [&] {
        return Nanos(static_cast<std::int64_t>(random.uniform() *
                                               static_cast<double>(options_.jitter.count())));
    };
    Time leaves = now;
    if (options_.bandwidth_bytes_per_s > 0) {
        Time& free = out_free_[from];
        free = std::max(free, now) + transfer_time(bytes);
        leaves = free;
    }
    const Time first = leaves + options_.latency + jitter();
    const Time second = leaves + options_.latency + jitter();
    Nanos delay{0};
    for (const Disturbance& disturbance : disturbances_) {
        if (now < disturbance.begins || now >= disturbance.ends) continue;
        if (!concerns(disturbance, from, to)) continue;
        if (disturbance.cut) {
            fate.dropped = true;
            fate.doubled = false;
        } else {
            delay += disturbance.delay;
        }
    }
    if (fate.doubled) fate.copies[fate.count++] = {second + delay, false};
    if (!fate.dropped) fate.copies[fate.count++] = {first + delay, corrupt};
    return fate;
}

Network::Fate Network::send_reliably(NodeId from, NodeId to, Time now, std::uint64_t key) {
    Fate fate;
    fate.key = key;
    fate.count = 1;
    // Services live beside the coordinator: what passes between them takes no time.
    const bool beside = is_control(from) && is_control(to);
    Time& arrives = fate.copies[0].arrives;
    arrives = now + (beside ? Nanos{0} : options_.latency);
    if (disturbances_.empty() || beside) return fate;
    for (const Disturbance& disturbance : disturbances_) {
        if (now < disturbance.begins || now >= disturbance.ends) continue;
        if (!concerns(disturbance, from, to)) continue;
        arrives = disturbance.cut ? std::max(arrives, disturbance.ends + options_.latency)
                                  : arrives + disturbance.delay;
    }
    Time& last = streams_[{from, to}];
    last = arrives = std::max(arrives, last);
    return fate;
}

Time Network::receive(NodeId to, std::uint64_t bytes, Time now) {
    if (options_.bandwidth_bytes_per_s <= 0 || is_control(to)) return now;
    Time& free = in_free_[to];
    free = std::max(free, now) + transfer_time(bytes);
    return free;
}

}  // namespace detente::sim
