// What every runtime promises of peers that come and go, as the coordinator tells it.
#include <catch2/catch.hpp>
#include <map>

#include "tests/contracts/runtime_under_test.h"
#include "tests/contracts/scripted_node.h"

namespace detente::testing {
namespace {
constexpr Nanos kDeadline = std::chrono::seconds(60);
constexpr Nanos kAWhile = std::chrono::milliseconds(5);
constexpr NodeId kShard = node_of(ShardId{0});
constexpr NodeId kOtherShard = node_of(ShardId{1});
constexpr NodeId kWorker = node_of(WorkerId{0});
constexpr NodeId kOtherWorker = node_of(WorkerId{1});
constexpr NodeId kStranger = node_of(WorkerId{7});

// "worker:7.3 up", "worker:1.1 down: silent for 5 s"; empty if the event is no word of a peer.
std::string word_of(const Event& event) {
    const auto named = [](NodeId node, Incarnation incarnation) {
        return to_string(node) + "." + std::to_string(incarnation.value);
    };
    if (const auto* up = std::get_if<PeerUp>(&event)) {
        return named(up->node, up->incarnation) + " up";
    }
    if (const auto* down = std::get_if<PeerDown>(&event)) {
        return named(down->node, down->incarnation) + " down: " + down->reason;
    }
    return "";
}

}  // namespace

TEST_CASE("runtime: word of a peer reaches every other node once, in order, with its reason") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    const std::string last = "worker:7.3 down: killed by signal 9";
    std::map<NodeId, std::vector<std::string>> heard{
        {kShard, {}}, {kWorker, {}}, {kOtherWorker, {}}};
    const auto listener = [&](NodeId self, bool announces) {
        return ScriptedNode([&, self, announces](Event&& event, Time, Effects& effects) {
            if (announces && std::holds_alternative<Started>(event)) {
                runtime->announce_up(kStranger, Incarnation{3});
                runtime->announce_down(kOtherWorker, Incarnation{1}, "silent for 5 s");
                runtime->announce_down(kStranger, Incarnation{3}, "killed by signal 9");
            }
            if (std::holds_alternative<TimerFired>(event)) effects.finish({});
            const std::string word = word_of(event);
            if (word.empty()) return;
            heard.at(self).push_back(word);
            // A little longer, to see that nothing comes twice.
            if (word == last) effects.after(kAWhile, {});
        });
    };
    ScriptedNode shard = listener(kShard, true);
    ScriptedNode worker = listener(kWorker, false);
    ScriptedNode other = listener(kOtherWorker, false);
    runtime->spawn(kShard, shard, nullptr);
    runtime->spawn(kWorker, worker, nullptr);
    runtime->spawn(kOtherWorker, other, nullptr);
    REQUIRE(runtime->run(kDeadline));
    const std::vector<std::string> all{"worker:7.3 up", "worker:1.1 down: silent for 5 s", last};
    CHECK(heard.at(kShard) == all);
    CHECK(heard.at(kWorker) == all);
    CHECK(heard.at(kOtherWorker) == std::vector<std::string>{all[0], all[2]});
}

TEST_CASE("runtime: a peer can be spoken to from its PeerUp on, and answers") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    bool answered = false;
    ScriptedNode shard([&](Event&& event, Time, Effects& effects) {
        if (!std::holds_alternative<Started>(event)) return;
        runtime->announce_up(kOtherShard, Incarnation{1});
        effects.finish({});
    });
    ScriptedNode late([&](Event&& event, Time, Effects& effects) {
        if (number_of(event) != 1) return;
        effects.send(kWorker, numbered(2));
        effects.finish({});
    });
    ScriptedNode worker([&](Event&& event, Time, Effects& effects) {
        if (word_of(event) == "shard:1.1 up") effects.send(kOtherShard, numbered(1));
        if (number_of(event) != 2) return;
        answered = true;
        effects.finish({});
    });
    runtime->spawn(kShard, shard, nullptr);
    runtime->spawn(kOtherShard, late, nullptr);
    runtime->spawn(kWorker, worker, nullptr);
    runtime->keep_unknown(kOtherShard);
    REQUIRE(runtime->run(kDeadline));
    CHECK(answered);
}

TEST_CASE("runtime: word of an earlier incarnation's end leaves its successor within reach") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    bool answered = false;
    ScriptedNode shard([&](Event&& event, Time, Effects& effects) {
        if (number_of(event) == 1) {
            // It speaks with the worker already when the word comes, and still does after it.
            runtime->announce_down(kWorker, Incarnation{0}, "replaced");
            runtime->announce_down(kShard, Incarnation{0}, "replaced");
        }
        if (word_of(event) == "worker:0.0 down: replaced") effects.send(kWorker, numbered(2));
        if (number_of(event) == 3) effects.finish({});
    });
    bool told = false;
    ScriptedNode worker([&](Event&& event, Time, Effects& effects) {
        if (std::holds_alternative<Started>(event)) effects.send(kShard, numbered(1));
        told = told || word_of(event) == "shard:0.0 down: replaced";
        answered = answered || number_of(event) == 2;
        if (!told || !answered) return;
        effects.send(kShard, numbered(3));
        effects.finish({});
    });
    runtime->spawn(kShard, shard, nullptr);
    runtime->spawn(kWorker, worker, nullptr);
    CHECK(runtime->run(kDeadline));
    CHECK(answered);
}

}  // namespace detente::testing
