// Collects a node's effects during on(); they are released afterwards, in order. One object serves
// all nodes of a world: events are handed over one after the other.
#pragma once

#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "common/invariant.h"
#include "common/runtime/sim/world.h"

namespace detente::sim {

class World::NodeEffects final : public Effects {
  public:
    explicit NodeEffects(World& world) : world_(world) {}

    void begin(Place& place) { place_ = &place; }

    void send(NodeId to, Message message) override {
        // Nodes of one world know each other: addresses of ten thousand peers, ten thousand times,
        // are not kept.
        if (auto* welcome = std::get_if<Welcome>(&message.body)) welcome->peers = {};
        later_.emplace_back(Send{to, std::move(message)});
    }
    TimerId after(Nanos delay, Tag tag) override {
        return {world_.queue_.push(world_.now_ + delay, TimerDue{whose(*place_), tag})};
    }
    void cancel(TimerId timer) override {
        Due* due = world_.queue_.find(timer.value);
        if (due != nullptr && std::holds_alternative<TimerDue>(*due)) *due = std::monostate{};
    }
    Ticket compute(Work work) override {
        const Ticket ticket{++world_.tickets_};
        later_.emplace_back(Compute{ticket, std::move(work)});
        return ticket;
    }
    void cancel(Ticket ticket) override { later_.emplace_back(Cancel{ticket}); }
    Ticket store(StoreOp operation) override {
        const Ticket ticket{++world_.tickets_};
        later_.emplace_back(Store{ticket, std::move(operation)});
        return ticket;
    }
    void form(Group group, Nanos deadline) override {
        later_.emplace_back(Form{std::move(group), deadline});
    }
    void reduce(CollectiveKey key, GradientShare share, Nanos deadline) override {
        later_.emplace_back(Reduce{key, std::move(share), deadline});
    }
    void record(LedgerEntry entry) override {
        if (world_.options_.record) {
            world_.options_.record(place_->id, place_->incarnation, entry);
        } else {
            world_.ledgers_[place_->id].push_back(std::move(entry));
        }
    }
    void log(LogLevel level, std::string text) override {
        if (world_.options_.log) {
            world_.options_.log(place_->id, world_.now_, level, text);
        } else {
            world_.log_.push_back(to_string(place_->id) + ": " + std::move(text));
        }
    }
    void finish(Outcome outcome) override { finished_ = std::move(outcome); }

    void release() {
        Place& place = *place_;
        for (Later& effect : later_) {
            if (auto* sent = std::get_if<Send>(&effect)) {
                world_.transmit(place, sent->to, std::move(sent->message));
            } else if (auto* asked = std::get_if<Compute>(&effect)) {
                world_.compute(place, asked->ticket, std::move(asked->work));
            } else if (const auto* cancel = std::get_if<Cancel>(&effect)) {
                world_.cancel_compute(place, cancel->ticket);
            } else if (auto* store = std::get_if<Store>(&effect)) {
                world_.store(place, store->ticket, std::move(store->operation));
            } else if (auto* form = std::get_if<Form>(&effect)) {
                world_.groups_.form(member(place), std::move(form->group), form->deadline);
            } else if (auto* reduce = std::get_if<Reduce>(&effect)) {
                world_.groups_.reduce(member(place), reduce->key, std::move(reduce->share),
                                      reduce->deadline);
            }
        }
        later_.clear();
        if (!finished_) return;
        world_.outcomes_[place.id] = std::move(*finished_);
        finished_.reset();
        world_.remove(place.id);
    }

  private:
    struct Send {
        NodeId to;
        Message message;
    };
    struct Compute {
        Ticket ticket;
        Work work;
    };
    struct Cancel {
        Ticket ticket;
    };
    struct Store {
        Ticket ticket;
        StoreOp operation;
    };
    struct Form {
        Group group;
        Nanos deadline;
    };
    struct Reduce {
        CollectiveKey key;
        GradientShare share;
        Nanos deadline;
    };
    using Later = std::variant<Send, Compute, Cancel, Store, Form, Reduce>;

    static Groups::Member member(const Place& place) {
        invariant(place.id.role == Role::worker, "only workers average gradients");
        return {WorkerId{place.id.index}, place.life};
    }

    World& world_;
    Place* place_ = nullptr;
    std::vector<Later> later_;
    std::optional<Outcome> finished_;
};

}  // namespace detente::sim
