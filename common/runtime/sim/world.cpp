#include "common/runtime/sim/world.h"

#include <utility>

#include "common/checksum.h"
#include "common/invariant.h"
#include "common/random.h"

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

}  // namespace

// Collects a node's effects during on(); they are released afterwards, in order.
class World::NodeEffects : public Effects {
  public:
    NodeEffects(World& world, NodeId id, Incarnation incarnation)
        : world_(world), id_(id), incarnation_(incarnation) {}

    void send(NodeId to, Message message) override {
        later_.push_back([this, to, message = std::move(message)]() mutable {
            world_.transmit(id_, incarnation_, to, std::move(message));
        });
    }
    TimerId after(Nanos delay, Tag tag) override {
        const TimerId timer{++world_.numbers_};
        world_.places_[id_].timers.insert(timer.value);
        world_.at(world_.now_ + delay,
                  [world = &world_, id = id_, incarnation = incarnation_, timer, tag] {
                      Place* place = world->place(id, incarnation);
                      if (place == nullptr || place->timers.erase(timer.value) == 0) return;
                      world->deliver(id, incarnation, TimerFired{timer, tag});
                  });
        return timer;
    }
    void cancel(TimerId timer) override { world_.places_[id_].timers.erase(timer.value); }
    Ticket compute(Work work) override {
        const Ticket ticket{++world_.numbers_};
        later_.push_back([this, ticket, work = std::move(work)]() mutable {
            Place& place = world_.places_[id_];
            invariant(place.computer != nullptr, "a node that computes was given a computer");
            place.compute.push_back({ticket, std::move(work), false});
            if (place.compute.size() == 1) world_.start_compute(id_);
        });
        return ticket;
    }
    void cancel(Ticket ticket) override {
        later_.push_back([this, ticket] { world_.cancel_compute(id_, ticket); });
    }
    Ticket store(StoreOp operation) override {
        const Ticket ticket{++world_.numbers_};
        later_.push_back([this, ticket, operation = std::move(operation)]() mutable {
            world_.store(id_, incarnation_, ticket, std::move(operation));
        });
        return ticket;
    }
    void record(LedgerEntry entry) override { world_.ledgers_[id_].push_back(std::move(entry)); }
    void log(LogLevel /*level*/, std::string text) override {
        world_.log_.push_back(to_string(id_) + ": " + std::move(text));
    }
    void finish(Outcome outcome) override { finished_ = std::move(outcome); }

    void release() {
        for (auto& action : later_) action();
        if (!finished_) return;
        world_.outcomes_[id_] = std::move(*finished_);
        world_.places_.erase(id_);
    }

  private:
    World& world_;
    NodeId id_;
    Incarnation incarnation_;
    std::vector<std::function<void()>> later_;
    std::optional<Outcome> finished_;
};

World::World(WorldOptions options) : options_(std::move(options)) {}
World::~World() = default;

World::Place* World::place(NodeId id, Incarnation incarnation) {
    const auto found = places_.find(id);
    if (found == places_.end() || found->second.incarnation != incarnation) return nullptr;
    return &found->second;
}

bool World::alive(NodeId id) const { return places_.contains(id); }
Node& World::node(NodeId id) { return *places_.at(id).node; }

std::optional<Outcome> World::outcome(NodeId id) const {
    const auto found = outcomes_.find(id);
    return found == outcomes_.end() ? std::nullopt : std::optional(found->second);
}

void World::fail_stores(std::string prefix, Error error) {
    store_failures_.emplace_back(std::move(prefix), std::move(error));
}

void World::at(Time when, std::function<void()> action) {
    queue_.push({when, ++sequence_, std::move(action)});
}

bool World::step() {
    if (queue_.empty()) return false;
    Scheduled next = std::move(const_cast<Scheduled&>(queue_.top()));
    queue_.pop();
    now_ = next.when;
    next.action();
    return true;
}

bool World::run_until(const std::function<bool()>& done, Time limit) {
    while (!done()) {
        if (queue_.empty() || queue_.top().when > limit) return false;
        step();
    }
    return true;
}

void World::add(NodeId id, Incarnation incarnation, std::unique_ptr<Node> node,
                Computer* computer) {
    invariant(!places_.contains(id), "a node is started once until it is gone");
    Place& place = places_[id];
    place.node = std::move(node);
    place.incarnation = incarnation;
    place.computer = computer;
    at(now_, [this, id, incarnation] { deliver(id, incarnation, Started{}); });
}

void World::crash(NodeId id) { places_.erase(id); }

void World::announce_down(NodeId id, Incarnation incarnation, const std::string& reason) {
    for (const auto& [other, place] : places_) {
        if (other == id) continue;
        at(now_ + options_.network.latency,
           [this, other = other, to = place.incarnation, id, incarnation, reason] {
               deliver(other, to, PeerDown{id, incarnation, reason});
           });
    }
}

void World::announce_up(NodeId id, Incarnation incarnation) {
    for (const auto& [other, place] : places_) {
        if (other == id) continue;
        at(now_ + options_.network.latency,
           [this, other = other, to = place.incarnation, id, incarnation] {
               deliver(other, to, PeerUp{id, incarnation});
           });
    }
}

void World::post(NodeId id, Event event) {
    const auto found = places_.find(id);
    if (found == places_.end()) return;
    auto shared = std::make_shared<Event>(std::move(event));
    at(now_, [this, id, incarnation = found->second.incarnation, shared] {
        deliver(id, incarnation, std::move(*shared));
    });
}

void World::deliver(NodeId id, Incarnation incarnation, Event event) {
    Place* place = this->place(id, incarnation);
    if (place == nullptr) return;
    ++events_;
    NodeEffects effects(*this, id, incarnation);
    place->node->on(std::move(event), now_, effects);
    if (observer_) observer_(id, now_);
    effects.release();
}

void World::transmit(NodeId from, Incarnation incarnation, NodeId to, Message message) {
    ++traffic_.sent;
    traffic_.payload_bytes += payload_bytes(message.body);
    message.envelope.from = from;
    message.envelope.to = to;
    message.envelope.incarnation = incarnation;
    message.envelope.generation = options_.generation;
    if (options_.checksums) {
        for_each_block(message.body, [](Payload& payload, std::optional<std::uint64_t>& checksum) {
            if (!checksum) checksum = checksum_of(payload.bytes);
        });
    }
    const auto shared = std::make_shared<const Message>(std::move(message));
    const NetworkOptions& network = options_.network;
    const std::uint64_t key = random_key(options_.seed, Purpose::network, {++messages_});
    Random random(key);
    const bool reliable = from == kCoordinator || to == kCoordinator;
    if (reliable) {
        at(now_ + network.latency,
           [=, this] { arrive(from, incarnation, to, *shared, false, key); });
        return;
    }
    // Always draw the same number of values, so that one fault's setting does not move another's.
    const bool dropped = random.uniform() < network.drop;
    const bool doubled = random.uniform() < network.duplicate;
    const bool altered = random.uniform() < network.corrupt;
    const auto jitter = [&] {
        return Nanos(static_cast<std::int64_t>(random.uniform() *
                                               static_cast<double>(network.jitter.count())));
    };
    const Nanos first = network.latency + jitter();
    const Nanos second = network.latency + jitter();
    if (doubled) {
        ++traffic_.duplicated;
        at(now_ + second, [=, this] { arrive(from, incarnation, to, *shared, false, key); });
    }
    if (dropped) {
        ++traffic_.dropped;
        buffers_back(from, incarnation);
        return;
    }
    at(now_ + first, [=, this] { arrive(from, incarnation, to, *shared, altered, key); });
}

void World::arrive(NodeId from, Incarnation from_incarnation, NodeId to, const Message& message,
                   bool corrupt, std::uint64_t key) {
    const auto receiver = places_.find(to);
    if (receiver == places_.end()) {
        buffers_back(from, from_incarnation);
        return;
    }
    if (options_.wire) {
        std::optional<Message> arrived = options_.wire(message, corrupt, scatter(key));
        traffic_.corrupted += corrupt ? 1 : 0;
        traffic_.refused += arrived ? 0 : 1;
        const Incarnation to_incarnation = receiver->second.incarnation;
        buffers_back(from, from_incarnation);
        if (arrived) deliver(to, to_incarnation, Received{*std::move(arrived)});
        return;
    }
    Message own = message;
    bool flip = corrupt;
    for_each_block(own.body, [&](Payload& payload, std::optional<std::uint64_t>& /*checksum*/) {
        auto copy = std::make_shared<AlignedBuffer>(payload.size());
        std::copy(payload.bytes.begin(), payload.bytes.end(), copy->data());
        if (flip && copy->size() > 0) {
            Random where(scatter(key));
            copy->data()[where.below(copy->size())] ^= std::byte{16};
            flip = false;
            ++traffic_.corrupted;
        }
        payload = payload_of(std::move(copy));
    });
    const Incarnation incarnation = receiver->second.incarnation;
    buffers_back(from, from_incarnation);
    deliver(to, incarnation, Received{std::move(own)});
}

// One event for all payloads that came back at this instant.
void World::buffers_back(NodeId id, Incarnation incarnation) {
    Place* sender = place(id, incarnation);
    if (sender == nullptr || id.role != Role::shard || sender->buffers_due) return;
    sender->buffers_due = true;
    at(now_, [this, id, incarnation] {
        Place* still = place(id, incarnation);
        if (still == nullptr) return;
        still->buffers_due = false;
        deliver(id, incarnation, BuffersReturned{});
    });
}

void World::start_compute(NodeId id) {
    Place& place = places_[id];
    const std::uint64_t token = ++place.compute_token;
    const Running& running = place.compute.front();
    Nanos duration{0};
    if (running.cancelled) {
        duration = options_.cancel_time;
    } else if (options_.compute_time) {
        duration = options_.compute_time(id, running.work, place.computed++);
    }
    at(now_ + duration,
       [this, id, incarnation = place.incarnation, token] { end_compute(id, incarnation, token); });
}

void World::end_compute(NodeId id, Incarnation incarnation, std::uint64_t token) {
    Place* place = this->place(id, incarnation);
    if (place == nullptr || place->compute_token != token) return;
    Running running = std::move(place->compute.front());
    if (running.cancelled) {
        place->compute.pop_front();
        if (!place->compute.empty()) start_compute(id);
        deliver(id, incarnation,
                ComputeEnded{running.ticket, fail(ErrorCode::cancelled, "cancelled as asked")});
        return;
    }
    ++place->compute_token;
    place->compute.pop_front();
    // Before the parts are delivered: a node may ask for more work when it gets one, which starts
    // it if nothing else waits, and no work is to start twice.
    if (!place->compute.empty()) start_compute(id);
    std::atomic<bool> cancelled{false};
    std::vector<std::pair<std::uint32_t, Payload>> parts;
    WorkResult result =
        place->computer->run(running.work, cancelled, [&](std::uint32_t index, Payload payload) {
            parts.emplace_back(index, std::move(payload));
        });
    for (auto& [index, payload] : parts) {
        deliver(id, incarnation, ComputePart{running.ticket, index, std::move(payload)});
    }
    deliver(id, incarnation, ComputeEnded{running.ticket, std::move(result)});
}

void World::cancel_compute(NodeId id, Ticket ticket) {
    const auto found = places_.find(id);
    if (found == places_.end()) return;
    Place& place = found->second;
    for (std::size_t i = 0; i < place.compute.size(); ++i) {
        if (place.compute[i].ticket != ticket || place.compute[i].cancelled) continue;
        place.compute[i].cancelled = true;
        if (i == 0) start_compute(id);  // ends after cancel_time instead
    }
}

void World::store(NodeId id, Incarnation incarnation, Ticket ticket, StoreOp operation) {
    auto held = std::make_shared<StoreOp>(std::move(operation));
    at(now_ + options_.store_time, [this, id, incarnation, ticket, held]() {
        if (place(id, incarnation) == nullptr) return;
        Result<void> result;
        for (const auto& [prefix, error] : store_failures_) {
            if (held->path.starts_with(prefix)) result = error;
        }
        if (result) {
            std::vector<std::byte>& file = files_[held->path];
            file.clear();
            for (const Payload& piece : held->pieces) {
                file.insert(file.end(), piece.bytes.begin(), piece.bytes.end());
            }
        }
        held->pieces.clear();
        deliver(id, incarnation, Stored{ticket, std::move(result)});
        buffers_back(id, incarnation);
    });
}

}  // namespace detente::sim
