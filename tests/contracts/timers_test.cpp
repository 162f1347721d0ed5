#include <catch2/catch.hpp>
#include <map>

#include "tests/contracts/runtime_under_test.h"
#include "tests/contracts/scripted_node.h"

namespace detente::testing {
namespace {
constexpr Nanos kDeadline = std::chrono::seconds(60);
constexpr NodeId kShard = node_of(ShardId{0});
constexpr Nanos milliseconds(int count) { return std::chrono::milliseconds(count); }
}  // namespace

TEST_CASE(
    "runtime: timers fire once each, in the order of their times, never before, with their "
    "tag") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    struct Due {
        Time at;
        std::uint64_t subject;
    };
    std::map<std::uint64_t, Due> due;
    std::vector<std::uint64_t> fired;
    bool too_early = false;
    bool right_tag = true;
    ScriptedNode shard([&](Event&& event, Time now, Effects& effects) {
        if (std::holds_alternative<Started>(event)) {
            for (const int delay_ms : {7, 3, 5, 0, 20}) {
                const auto subject = static_cast<std::uint64_t>(delay_ms);
                const TimerId id = effects.after(milliseconds(delay_ms), {1, subject});
                due[id.value] = {now + milliseconds(delay_ms), subject};
            }
            return;
        }
        const auto& timer = std::get<TimerFired>(event);
        too_early = too_early || now < due.at(timer.id.value).at;
        right_tag =
            right_tag && timer.tag.kind == 1 && timer.tag.subject == due.at(timer.id.value).subject;
        fired.push_back(timer.tag.subject);
        if (timer.tag.subject == 20) effects.finish({});
    });
    runtime->spawn(kShard, shard, nullptr);
    REQUIRE(runtime->run(kDeadline));
    CHECK(fired == std::vector<std::uint64_t>{0, 3, 5, 7, 20});
    CHECK_FALSE(too_early);
    CHECK(right_tag);
}

TEST_CASE("runtime: a cancelled timer never fires, cancelling a fired or unknown one is nothing") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    std::vector<std::uint64_t> fired;
    TimerId early;
    TimerId middle;
    ScriptedNode shard([&](Event&& event, Time, Effects& effects) {
        if (std::holds_alternative<Started>(event)) {
            early = effects.after(milliseconds(1), {0, 1});
            middle = effects.after(milliseconds(4), {0, 4});
            effects.cancel(effects.after(milliseconds(2), {0, 2}));  // in the same on()
            effects.after(milliseconds(8), {0, 8});
            return;
        }
        const auto& timer = std::get<TimerFired>(event);
        fired.push_back(timer.tag.subject);
        effects.cancel(early);
        effects.cancel(middle);
        effects.cancel(TimerId{123456});
        if (timer.tag.subject == 8) effects.finish({});
    });
    runtime->spawn(kShard, shard, nullptr);
    REQUIRE(runtime->run(kDeadline));
    CHECK(fired == std::vector<std::uint64_t>{1, 8});
}

TEST_CASE("runtime: the time a node sees never falls") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    Time last{};
    bool fell = false;
    int events = 0;
    ScriptedNode shard([&](Event&&, Time now, Effects& effects) {
        fell = fell || now < last;
        last = now;
        if (++events == 50) {
            effects.finish({});
        } else {
            effects.after(Nanos{events % 3 == 0 ? 100000 : 0}, {});
        }
    });
    runtime->spawn(kShard, shard, nullptr);
    REQUIRE(runtime->run(kDeadline));
    CHECK_FALSE(fell);
}

}  // namespace detente::testing
