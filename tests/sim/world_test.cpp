// The simulated runtime's own promises, where the common contracts do not reach.
#include "common/runtime/sim/world.h"

#include <catch2/catch.hpp>

namespace detente::test {
namespace {

class PartPerWork final : public Computer {
  public:
    WorkResult run(const Work&, const std::atomic<bool>&,
                   const std::function<void(std::uint32_t, Payload)>& part) override {
        part(0, copy_of({}));
        GradientOutcome outcome;
        return outcome;
    }
};

// Asks for `more` pieces of work when the first part of the first one is there.
class AsksAtAPart final : public Node {
  public:
    explicit AsksAtAPart(int more, std::vector<Time>& ends) : more_(more), ends_(ends) {}
    void on(Event&& event, Time now, Effects& effects) override {
        if (std::holds_alternative<Started>(event)) effects.compute(GradientWork{});
        if (std::holds_alternative<ComputePart>(event)) {
            for (; more_ > 0; --more_) effects.compute(GradientWork{});
        }
        if (std::holds_alternative<ComputeEnded>(event)) ends_.push_back(now);
    }

  private:
    int more_;
    std::vector<Time>& ends_;
};

TEST_CASE("world: work asked for at a part of other work starts once and takes its own time") {
    std::vector<std::uint64_t> started;
    sim::WorldOptions options;
    options.compute_time = [&](NodeId, const Work&, std::uint64_t count) {
        started.push_back(count);
        return Nanos(1000);
    };
    sim::World world(options);
    PartPerWork computer;
    std::vector<Time> ends;
    world.add(node_of(WorkerId{0}), Incarnation{1}, std::make_unique<AsksAtAPart>(2, ends),
              &computer);
    world.run_until([&] { return ends.size() == 3; }, Time(std::chrono::seconds(1)));
    CHECK(started == std::vector<std::uint64_t>{0, 1, 2});
    CHECK(ends == std::vector<Time>{Time(Nanos(1000)), Time(Nanos(2000)), Time(Nanos(3000))});
}

// Says hello to the other at once, and writes down what it is handed.
class Greets final : public Node {
  public:
    Greets(NodeId other, std::vector<std::string>& heard) : other_(other), heard_(heard) {}
    void on(Event&& event, Time /*now*/, Effects& effects) override {
        if (std::holds_alternative<Started>(event)) {
            Message message;
            message.body = CancelNote{Step{1}, CancelReason::dropped, Step{0}};
            effects.send(other_, std::move(message));
            effects.after(Nanos(1000), {7, 0});
        }
        if (const auto* received = std::get_if<Received>(&event)) {
            heard_.push_back("generation " +
                             std::to_string(received->message.envelope.generation.value));
        }
        if (std::holds_alternative<TimerFired>(event)) heard_.emplace_back("timer");
    }

  private:
    NodeId other_;
    std::vector<std::string>& heard_;
};

TEST_CASE("world: what an older generation sent is refused and its timers are nobody's") {
    sim::WorldOptions options;
    options.network.latency = Nanos(100);
    sim::World world(options);
    const NodeId shard = node_of(ShardId{0});
    const NodeId worker = node_of(WorkerId{0});
    std::vector<std::string> before;
    world.add(shard, Incarnation{1}, std::make_unique<Greets>(worker, before));
    world.add(worker, Incarnation{1}, std::make_unique<Greets>(shard, before));
    world.run_until([] { return false; }, Time(Nanos(50)));
    world.crash(shard);
    world.crash(worker);
    world.begin_generation(Generation{2});
    std::vector<std::string> heard;
    // The same incarnation: the generation alone tells them from those before.
    world.add(shard, Incarnation{1}, std::make_unique<Greets>(worker, heard));
    world.run_until([] { return false; }, Time(Nanos(5000)));
    CHECK(before.empty());
    CHECK(world.traffic().older == 1);
    CHECK(heard == std::vector<std::string>{"timer"});
}

// Answers every message at once.
class Answers final : public Node {
  public:
    void on(Event&& event, Time /*now*/, Effects& effects) override {
        const auto* received = std::get_if<Received>(&event);
        if (received == nullptr) return;
        Message message;
        message.body = CancelReply{Step{1}};
        effects.send(received->message.envelope.from, std::move(message));
    }
};

// Asks once, and writes down when it was answered and how long that took over there.
class Asks final : public Node {
  public:
    Asks(std::vector<Time>& when, std::vector<Nanos>& handled) : when_(when), handled_(handled) {}
    void on(Event&& event, Time now, Effects& effects) override {
        if (std::holds_alternative<Started>(event)) {
            Message message;
            message.body = CancelNote{Step{1}, CancelReason::dropped, Step{0}};
            effects.send(node_of(ShardId{0}), std::move(message));
        }
        if (const auto* received = std::get_if<Received>(&event)) {
            when_.push_back(now);
            handled_.push_back(received->message.envelope.handled);
        }
    }

  private:
    std::vector<Time>& when_;
    std::vector<Nanos>& handled_;
};

TEST_CASE("world: messages wait their turn at a node that takes time over each") {
    sim::WorldOptions options;
    options.network.latency = Nanos(100);
    options.service_time = [](NodeId node, const Message&) {
        return node.role == Role::shard ? Nanos(1000) : Nanos(0);
    };
    sim::World world(options);
    std::vector<Time> when;
    std::vector<Nanos> handled;
    world.add(node_of(ShardId{0}), Incarnation{1}, std::make_unique<Answers>());
    for (std::uint32_t i = 0; i < 3; ++i) {
        world.add(node_of(WorkerId{i}), Incarnation{1}, std::make_unique<Asks>(when, handled));
    }
    REQUIRE(world.run_until([&] { return when.size() == 3; }, Time(std::chrono::seconds(1))));
    CHECK(when == std::vector<Time>{Time(Nanos(1200)), Time(Nanos(2200)), Time(Nanos(3200))});
    CHECK(handled == std::vector<Nanos>(3, Nanos(1000)));
}

}  // namespace
}  // namespace detente::test
