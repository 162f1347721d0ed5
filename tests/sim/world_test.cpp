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

}  // namespace
}  // namespace detente::test
