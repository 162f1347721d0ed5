// A message's way through a world: out of its sender, over the network, into its receiver.
#include <algorithm>
#include <memory>
#include <span>
#include <utility>

#include "common/checksum.h"
#include "common/random.h"
#include "common/runtime/envelope_check.h"
#include "common/runtime/sim/world.h"

namespace detente::sim {
namespace {

template <class Visit>
void for_each_block(Body& body, Visit&& visit) {
    if (auto* reply = std::get_if<PullReply>(&body)) {
        for (WeightBlock& block : reply->blocks) visit(block.weights, block.checksum);
    } else if (auto* pushed = std::get_if<PushReply>(&body)) {
        for (WeightBlock& block : pushed->blocks) visit(block.weights, block.checksum);
    } else if (auto* first = std::get_if<Initialise>(&body)) {
        for (WeightBlock& block : first->blocks) visit(block.weights, block.checksum);
    } else if (auto* push = std::get_if<Push>(&body)) {
        for (GradientBlock& block : push->blocks) visit(block.gradient, block.checksum);
    }
}

constexpr std::uint64_t kAlignment = 64;
constexpr std::uint64_t aligned(std::uint64_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// All payloads side by side in one piece of memory of the receiver's, aligned as weights are.
std::span<std::byte> take_copies(Body& body) {
    std::uint64_t total = 0;
    for_each_block(body, [&](Payload& payload, std::optional<std::uint64_t>& /*checksum*/) {
        total += aligned(payload.size());
    });
    // One allocation, aligned by hand: an aligned one costs more than all the rest of a message.
    const std::shared_ptr<std::byte[]> owner =
        std::make_shared_for_overwrite<std::byte[]>(total + kAlignment);
    const auto address = reinterpret_cast<std::uintptr_t>(owner.get());
    std::byte* const first = owner.get() + (aligned(address) - address);
    std::uint64_t at = 0;
    for_each_block(body, [&](Payload& payload, std::optional<std::uint64_t>& /*checksum*/) {
        std::copy(payload.bytes.begin(), payload.bytes.end(), first + at);
        const std::size_t size = payload.size();
        payload = {owner, {first + at, size}};
        at += aligned(size);
    });
    return {first, total};
}

bool flip_one_bit(Body& body, std::span<std::byte> bytes, std::uint64_t key) {
    bool flipped = false;
    for_each_block(body, [&](Payload& payload, std::optional<std::uint64_t>& /*checksum*/) {
        if (flipped || payload.empty()) return;
        Random where(key);
        const auto at = static_cast<std::size_t>(payload.bytes.data() - bytes.data());
        bytes[at + where.below(payload.size())] ^= std::byte{16};
        flipped = true;
    });
    return flipped;
}

}  // namespace

std::unique_ptr<Message> World::boxed(Message&& message) {
    if (spare_messages_.empty()) return std::make_unique<Message>(std::move(message));
    std::unique_ptr<Message> box = std::move(spare_messages_.back());
    spare_messages_.pop_back();
    *box = std::move(message);
    return box;
}

void World::transmit(Place& from, NodeId to, Message&& message) {
    message.envelope.from = from.id;
    message.envelope.to = to;
    message.envelope.incarnation = from.incarnation;
    message.envelope.generation = options_.generation;
    message.envelope.build = options_.build;
    message.envelope.handled = Nanos{0};
    if (answering_ && answering_->first == to) message.envelope.handled = answering_->second;
    if (options_.alter) options_.alter(to, message);
    const std::uint64_t bytes = payload_bytes(message.body);
    ++traffic_.sent;
    traffic_.payload_bytes += bytes;
    if (options_.checksums && bytes > 0) {
        for_each_block(message.body, [](Payload& payload, std::optional<std::uint64_t>& checksum) {
            if (!checksum) checksum = checksum_of(payload.bytes);
        });
    }
    const Network::Fate fate = network_.send(from.id, to, seat(from.id).sent++, bytes, now_);
    traffic_.duplicated += fate.doubled ? 1 : 0;
    traffic_.dropped += fate.dropped ? 1 : 0;
    const Whose sender = whose(from);
    if (fate.count == 0) {
        if (bytes > 0) buffers_back(sender);
        return;
    }
    if (bytes > 0) from.underway += fate.count;
    if (fate.count == 2) {
        schedule_arrival(fate.copies[0],
                         {sender, to, boxed(Message(message)), fate.key, false, false, {}});
    }
    schedule_arrival(fate.copies[fate.count - 1],
                     {sender, to, boxed(std::move(message)), fate.key, false, false, {}});
}

void World::schedule_arrival(const Network::Copy& copy, ArrivalDue arrival) {
    arrival.corrupt = copy.corrupt;
    queue_.push(copy.arrives, std::move(arrival));
}

void World::arrive(ArrivalDue&& arrival) {
    Message& message = *arrival.message;
    const std::uint64_t bytes = payload_bytes(message.body);
    Place* receiver = place(arrival.to);
    if (receiver == nullptr || !admitted(arrival)) {
        if (bytes > 0) came_to_end(arrival.from);
        return;
    }
    if (!arrival.through_link) {
        const Time through = network_.receive(arrival.to, bytes, now_);
        if (through > now_) {
            arrival.through_link = true;
            queue_.push(through, std::move(arrival));
            return;
        }
    }
    if (!arrival.served && options_.service_time) {
        arrival.served = options_.service_time(arrival.to, message);
        if (arrival.served->count() > 0) {
            receiver->busy_until = std::max(receiver->busy_until, now_) + *arrival.served;
            queue_.push(receiver->busy_until, std::move(arrival));
            return;
        }
    }
    answering_ = {message.envelope.from, arrival.served.value_or(Nanos{0})};
    hand_in(std::move(arrival), whose(*receiver));
    answering_.reset();
}

void World::hand_in(ArrivalDue&& arrival, Whose to) {
    Message& message = *arrival.message;
    const std::uint64_t bytes = payload_bytes(message.body);
    if (options_.wire) {
        std::optional<Message> arrived =
            options_.wire(message, arrival.corrupt, scatter(arrival.key));
        traffic_.corrupted += arrival.corrupt ? 1 : 0;
        traffic_.refused += arrived ? 0 : 1;
        if (bytes > 0) came_to_end(arrival.from);
        if (arrived) deliver(to, Received{*std::move(arrived)});
        return;
    }
    if (bytes > 0) {
        const std::span<std::byte> copied = take_copies(message.body);
        if (arrival.corrupt && flip_one_bit(message.body, copied, scatter(arrival.key))) {
            ++traffic_.corrupted;
        }
        came_to_end(arrival.from);
    }
    auto* change = std::get_if<PeerChange>(&message.body);
    if (change != nullptr && arrival.to != kCoordinator) {
        // As the loop of a real process does.
        if (change->up) {
            deliver(to, PeerUp{change->node, change->incarnation});
        } else {
            deliver(to, PeerDown{change->node, change->incarnation, std::move(change->reason)});
        }
    } else {
        deliver(to, Received{std::move(message)});
    }
    constexpr std::size_t kMostSpare = 4096;
    if (spare_messages_.size() < kMostSpare) spare_messages_.push_back(std::move(arrival.message));
}

// What a transport asks before it hands a message over. Connections of an older generation to the
// coordinator ended with it; refusals are taken from any, so that none may outlive its connection.
bool World::admitted(const ArrivalDue& arrival) {
    const Message& message = *arrival.message;
    const NodeId from = message.envelope.from;
    const auto of_control = [](NodeId node) {
        return node.role == Role::coordinator || node.role == Role::evaluator;
    };
    const bool closed =
        of_control(from) || of_control(arrival.to) || std::holds_alternative<Refusal>(message.body);
    if (closed && message.envelope.generation != options_.generation) return false;
    const Expected expected{from, std::nullopt, arrival.to, options_.generation, options_.build};
    if (!check_envelope(expected, message)) return true;
    ++traffic_.older;
    return false;
}

void World::arrive_late(Message message, Time when) {
    const NodeId from = message.envelope.from;
    const NodeId to = message.envelope.to;
    queue_.push(when, ArrivalDue{{from, 0}, to, boxed(std::move(message)), 0, false, true});
}

void World::came_to_end(Whose sender) {
    if (Place* found = place(sender)) --found->underway;
    buffers_back(sender);
}

// One event for all payloads that came back at this instant.
void World::buffers_back(Whose sender) {
    Place* found = place(sender);
    if (found == nullptr || sender.id.role != Role::shard || found->buffers_due) return;
    found->buffers_due = true;
    queue_.push(now_, BuffersDue{sender});
}

}  // namespace detente::sim
