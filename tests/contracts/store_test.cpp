#include <catch2/catch.hpp>
#include <filesystem>
#include <set>

#include "tests/contracts/runtime_under_test.h"
#include "tests/contracts/scripted_node.h"

namespace detente::testing {

TEST_CASE(
    "runtime: every store ends in one Stored, its pieces are given back, and BuffersReturned "
    "says so") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    constexpr NodeId kShard = node_of(ShardId{0});
    const auto folder = std::filesystem::temp_directory_path() / "detente_contract_store";
    std::filesystem::create_directories(folder);
    auto buffer = std::make_shared<AlignedBuffer>(100);
    std::set<std::uint64_t> asked;
    std::vector<std::uint64_t> stored;
    bool all_good = true;
    bool returned = false;
    long uses_at_end = 0;
    ScriptedNode shard([&](Event&& event, Time, Effects& effects) {
        if (std::holds_alternative<Started>(event)) {
            for (const char* name : {"one", "two"}) {
                StoreOp operation{(folder / name).string(), {payload_of(buffer)}};
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
    const bool finished = runtime->run(std::chrono::seconds(60));
    std::filesystem::remove_all(folder);
    REQUIRE(finished);
    CHECK(all_good);
    CHECK(stored.size() == 2);
    CHECK(std::set(stored.begin(), stored.end()) == asked);
    CHECK(returned);
    CHECK(uses_at_end == 1);
}

}  // namespace detente::testing
