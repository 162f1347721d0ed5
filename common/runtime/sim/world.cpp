#include "common/runtime/sim/world.h"

#include <utility>

#include "common/invariant.h"
#include "common/runtime/sim/world_effects.h"

namespace detente::sim {

World::World(WorldOptions options)
    : options_(std::move(options)),
      network_(options_.seed, options_.network),
      groups_(
          options_.groups,
          [this](const Groups::Member& to, Nanos delay, Event event) {
              queue_.push(now_ + delay, PostDue{{node_of(to.id), to.life},
                                                std::make_unique<Event>(std::move(event))});
          },
          [this](Nanos delay, std::function<void()> action) {
              at(now_ + delay, std::move(action));
          }),
      effects_(std::make_unique<NodeEffects>(*this)) {
    invariant(options_.pool == nullptr || !options_.about_to_run,
              "what may still be altered is not run beforehand");
}

World::~World() {
    for (std::vector<Seat>& row : seats_) {
        for (Seat& one : row) {
            if (one.place == nullptr) continue;
            for (Running& running : one.place->compute) join(running);
        }
    }
}

World::Seat& World::seat(NodeId id) {
    std::vector<Seat>& row = seats_[static_cast<std::size_t>(id.role)];
    if (row.size() <= id.index) row.resize(id.index + 1);
    return row[id.index];
}

World::Place* World::place(NodeId id) const {
    const std::vector<Seat>& row = seats_[static_cast<std::size_t>(id.role)];
    return id.index < row.size() ? row[id.index].place.get() : nullptr;
}

World::Place* World::place(Whose whose) const {
    Place* found = place(whose.id);
    return found != nullptr && found->life == whose.life ? found : nullptr;
}

bool World::alive(NodeId id) const { return place(id) != nullptr; }

std::uint64_t World::underway(NodeId id) const {
    const Place* found = place(id);
    return found == nullptr ? 0 : found->underway;
}

Node& World::node(NodeId id) {
    Place* found = place(id);
    invariant(found != nullptr, "who asks for a node knows that it lives");
    return *found->node;
}

std::optional<Outcome> World::outcome(NodeId id) const {
    const auto found = outcomes_.find(id);
    return found == outcomes_.end() ? std::nullopt : std::optional(found->second);
}

void World::fail_stores(std::string prefix, Error error) {
    store_failures_.emplace_back(std::move(prefix), std::move(error));
}

void World::at(Time when, std::function<void()> action) {
    queue_.push(when, ActionDue{std::move(action)});
}

bool World::step() {
    if (queue_.empty()) return false;
    auto next = queue_.pop();
    now_ = next.when;
    std::visit([&](auto& event) { due(std::move(event), next.handle); }, next.event);
    return true;
}

bool World::run_until(const std::function<bool()>& done, Time limit) {
    while (!done()) {
        if (queue_.empty() || queue_.next_time() > limit) return false;
        step();
    }
    return true;
}

void World::add(NodeId id, Incarnation incarnation, std::unique_ptr<Node> node,
                Computer* computer) {
    Seat& one = seat(id);
    invariant(one.place == nullptr, "a node is started once until it is gone");
    one.place = std::make_unique<Place>();
    one.place->id = id;
    one.place->incarnation = incarnation;
    one.place->life = ++lives_;
    outcomes_.erase(id);
    one.place->node = std::move(node);
    one.place->computer = computer;
    post(id, Started{});
}

void World::post(NodeId id, Event event) {
    const Place* found = place(id);
    if (found == nullptr) return;
    queue_.push(now_, PostDue{whose(*found), std::make_unique<Event>(std::move(event))});
}

void World::begin_generation(Generation generation) {
    for (const std::vector<Seat>& row : seats_) {
        for (const Seat& one : row) {
            invariant(one.place == nullptr, "a generation ends before the next one begins");
        }
    }
    options_.generation = generation;
}

// ---- faults ----

void World::crash(NodeId id) {
    if (place(id) != nullptr) remove(id);
}

void World::remove(NodeId id) {
    Seat& one = seat(id);
    if (options_.ending) options_.ending(id, *one.place->node);
    for (Running& running : one.place->compute) join(running);
    if (id.role == Role::worker) groups_.leave({WorkerId{id.index}, one.place->life});
    one.place.reset();
}

void World::pause(NodeId id, Nanos duration) {
    Place* found = place(id);
    if (found == nullptr || found->paused) return;
    found->paused = true;
    at(now_ + duration, [this, life = whose(*found)] { resume(life); });
}

void World::resume(Whose whose) {
    Place* found = place(whose);
    if (found == nullptr) return;
    found->paused = false;
    std::deque<Event> held = std::exchange(found->held, {});
    for (Event& event : held) deliver(whose, std::move(event));
}

void World::spoil_gradient(NodeId id) {
    if (Place* found = place(id)) found->spoil = true;
}

void World::announce_down(NodeId id, Incarnation incarnation, const std::string& reason) {
    at(now_ + options_.network.latency, [this, id, incarnation, reason] {
        for (const auto& row : seats_) {
            for (const Seat& other : row) {
                if (other.place == nullptr || other.place->id == id) continue;
                post(other.place->id, PeerDown{id, incarnation, reason});
            }
        }
    });
}

void World::announce_up(NodeId id, Incarnation incarnation) {
    at(now_ + options_.network.latency, [this, id, incarnation] {
        for (const auto& row : seats_) {
            for (const Seat& other : row) {
                if (other.place == nullptr || other.place->id == id) continue;
                post(other.place->id, PeerUp{id, incarnation});
            }
        }
    });
}

// ---- events ----

void World::deliver(Whose to, Event&& event) {
    Place* found = place(to);
    if (found == nullptr) return;
    if (found->paused) {
        found->held.push_back(std::move(event));
        return;
    }
    hand_over(*found, std::move(event));
}

void World::hand_over(Place& place, Event&& event) {
    ++events_;
    if (options_.trace) options_.trace(place.id, now_, event);
    effects_->begin(place);
    place.node->on(std::move(event), now_, *effects_);
    if (observer_) observer_(place.id, now_);
    effects_->release();
}

void World::due(PostDue&& posted, std::uint64_t /*handle*/) {
    deliver(posted.to, std::move(*posted.event));
}

void World::due(TimerDue&& timer, std::uint64_t handle) {
    deliver(timer.to, TimerFired{TimerId{handle}, timer.tag});
}

void World::due(ArrivalDue&& arrival, std::uint64_t /*handle*/) { arrive(std::move(arrival)); }

void World::due(BuffersDue&& buffers, std::uint64_t /*handle*/) {
    Place* found = place(buffers.at);
    if (found == nullptr) return;
    found->buffers_due = false;
    deliver(buffers.at, BuffersReturned{});
}

}  // namespace detente::sim
