#include <catch2/catch.hpp>
#include <map>
#include <set>
#include <utility>

#include "tests/contracts/runtime_under_test.h"
#include "tests/contracts/scripted_node.h"
#include "tests/temporary_folder.h"

namespace detente::testing {

TEST_CASE(
    "runtime: every store ends in one Stored, its pieces are given back, and BuffersReturned "
    "says so") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    constexpr NodeId kShard = node_of(ShardId{0});
    const TemporaryFolder folder;
    auto buffer = std::make_shared<AlignedBuffer>(100);
    std::set<std::uint64_t> asked;
    std::vector<std::uint64_t> stored;
    bool all_good = true;
    bool returned = false;
    long uses_at_end = 0;
    ScriptedNode shard([&](Event&& event, Time, Effects& effects) {
        if (std::holds_alternative<Started>(event)) {
            for (const char* name : {"one", "two"}) {
                StoreOp operation{folder / name, {payload_of(buffer)}};
                asked.insert(effects.store(std::move(operation)).value);
            }
        } else if (const auto* done = std::get_if<Stored>(&event)) {
            stored.push_back(done->ticket.value);
            all_good = all_good && done->result.has_value();
            if (stored.size() == 2) uses_at_end = buffer.use_count();
        } else if (std::holds_alternative<BuffersReturned>(event)) {
            returned = true;
            if (stored.size() == 2) effects.finish({});
        }
    });
    runtime->spawn(kShard, shard, nullptr);
    REQUIRE(runtime->run(std::chrono::seconds(60)));
    CHECK(all_good);
    CHECK(stored.size() == 2);
    CHECK(std::set(stored.begin(), stored.end()) == asked);
    CHECK(returned);
    CHECK(uses_at_end == 1);
}

TEST_CASE(
    "runtime: a store that finds the disk full ends in one Stored that says so, gives its pieces "
    "back, and leaves the next one alone") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    constexpr NodeId kShard = node_of(ShardId{0});
    const TemporaryFolder folder;
    const std::string full = folder / "full";
    runtime->fill_disk(full);
    // More than is given back at a time while it is written.
    auto buffer = std::make_shared<AlignedBuffer>(3U << 20U);
    const Payload piece = payload_of(buffer);
    const long uses_before = buffer.use_count();
    std::map<std::uint64_t, std::vector<Result<void>>> ended;  // by ticket
    std::vector<std::uint64_t> asked;
    long uses_at_end = 0;
    bool returned = false;
    ScriptedNode shard([&](Event&& event, Time, Effects& effects) {
        if (std::holds_alternative<Started>(event)) {
            asked.push_back(effects.store({full, {piece, piece}}).value);
            asked.push_back(effects.store({folder / "good", {piece}}).value);
        } else if (auto* done = std::get_if<Stored>(&event)) {
            ended[done->ticket.value].push_back(std::move(done->result));
            if (ended.size() == 2) uses_at_end = buffer.use_count();
        } else if (std::holds_alternative<BuffersReturned>(event) && ended.size() == 2) {
            if (!std::exchange(returned, true)) effects.after(std::chrono::milliseconds(5), {});
        } else if (std::holds_alternative<TimerFired>(event)) {
            effects.finish({});
        }
    });
    runtime->spawn(kShard, shard, nullptr);
    REQUIRE(runtime->run(std::chrono::seconds(60)));
    REQUIRE(ended.size() == 2);
    REQUIRE(ended[asked.at(0)].size() == 1);
    const Result<void>& failed = ended[asked[0]][0];
    REQUIRE(failed.has_error());
    CHECK(failed.error().code == ErrorCode::io);
    CHECK_THAT(failed.error().text, Catch::Contains(full));
    REQUIRE(ended[asked.at(1)].size() == 1);
    CHECK(ended[asked[1]][0].has_value());
    CHECK(uses_at_end == uses_before);
    CHECK_FALSE(std::filesystem::exists(full));
    CHECK_FALSE(std::filesystem::exists(full + ".partial"));
}

}  // namespace detente::testing
