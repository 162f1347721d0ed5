// `detente plan JOB` as a user runs it: what it prints is true of the run that follows.
#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <set>
#include <sstream>

#include "launch/exit_code.h"
#include "tests/system/launched.h"

namespace detente::test {
namespace {

using std::chrono::seconds;
namespace json = boost::json;

struct PlannedBlock {
    std::uint64_t block = 0;
    std::uint64_t shard = 0;
    std::string tensor;
    std::uint64_t first = 0;
    std::uint64_t elements = 0;
    std::uint64_t bytes = 0;
};

// The table up to the empty line, without its heads.
std::vector<PlannedBlock> planned_blocks(const std::string& output) {
    std::vector<PlannedBlock> rows;
    std::istringstream lines(output);
    std::string line;
    std::getline(lines, line);
    CHECK_THAT(line, Catch::StartsWith("block  shard  tensor"));
    while (std::getline(lines, line) && !line.empty()) {
        PlannedBlock row;
        std::istringstream(line) >> row.block >> row.shard >> row.tensor >> row.first >>
            row.elements >> row.bytes;
        rows.push_back(std::move(row));
    }
    return rows;
}

// What `detente plan JOB` shows.
std::string plan_of(const TinyRun& run, const std::vector<std::string>& more = {}) {
    const TemporaryFolder folder;
    Launched planned(folder, words({"plan", run.job_file()}, more));
    REQUIRE(planned.wait(seconds(20)) == 0);
    return planned.output();
}

// Blocks that each shard's ledger has verdicts on.
std::map<std::uint64_t, std::set<std::uint64_t>> judged_blocks(const TinyRun& run) {
    const TemporaryFolder folder;
    Launched ledger(folder, {"ledger", run.run_dir(), "--json"});
    REQUIRE(ledger.wait(seconds(20)) == 0);
    std::map<std::uint64_t, std::set<std::uint64_t>> judged;
    std::istringstream lines(ledger.output());
    for (std::string line; std::getline(lines, line);) {
        if (!line.starts_with("{")) continue;
        const json::object entry = json::parse(line).as_object();
        if (entry.at("kind").as_string() != "verdict") continue;
        const std::string node(entry.at("node").as_string());
        auto& blocks = judged[std::stoull(node.substr(node.find(':') + 1))];
        for (const json::value& block : entry.at("blocks").as_array()) {
            blocks.insert(count(block.as_object(), "block"));
        }
    }
    return judged;
}

TEST_CASE("plan: prints each block's shard and the balance, as they add up and as a run has them") {
    const TinyRun run;
    const std::string shown = plan_of(run);
    CAPTURE(shown);
    const std::vector<PlannedBlock> blocks = planned_blocks(shown);
    std::map<std::string, std::uint64_t> elements;  // by tensor
    std::map<std::uint64_t, std::set<std::uint64_t>> by_shard;
    std::map<std::uint64_t, std::uint64_t> shard_bytes;
    std::uint64_t parameters = 0;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        const PlannedBlock& block = blocks[i];
        CHECK(block.block == i);
        CHECK(block.bytes == block.elements * sizeof(float));
        CHECK(block.bytes <= 4096);  // the job's blocks.bytes
        CHECK(block.first == elements[block.tensor]);
        elements[block.tensor] += block.elements;
        by_shard[block.shard].insert(block.block);
        shard_bytes[block.shard] += block.bytes;
        parameters += block.elements;
    }
    CHECK(elements == std::map<std::string, std::uint64_t>{{"trunk.weight", 5000},
                                                           {"head.left.weight", 64},
                                                           {"head.right.weight", 64}});
    REQUIRE(by_shard.size() == 2);
    const double mean = static_cast<double>(parameters * sizeof(float)) / 2;
    double largest = 0;
    for (const auto& [shard, bytes] : shard_bytes) {
        const double share = static_cast<double>(bytes) / mean;
        largest = std::max(largest, share);
        CHECK_THAT(shown, Catch::Contains(
                              fmt::format("\nshard {}: {} blocks, {} bytes, {:.3f} of the mean\n",
                                          shard, by_shard[shard].size(), bytes, share)));
    }
    CHECK_THAT(shown,
               Catch::EndsWith(fmt::format(
                   "{} parameters in {} blocks on 2 shards; largest shard {:.3f} of the mean\n",
                   parameters, blocks.size(), largest)));

    Launched launched(run.folder(), run.arguments());
    REQUIRE(launched.wait(seconds(60)) == 0);
    CHECK(judged_blocks(run) == by_shard);
}

TEST_CASE("plan: is the same twice, and another for another number of servers") {
    const TinyRun run;
    const std::string first = plan_of(run);
    CHECK(plan_of(run) == first);
    const std::string three = plan_of(run, {"--set", "servers=3"});
    CHECK(plan_of(run, {"--set", "servers=3"}) == three);
    // Blocks are cut the same for any number of shards; only their homes are others.
    const auto on_two = planned_blocks(first);
    const auto on_three = planned_blocks(three);
    CHECK(std::equal(on_two.begin(), on_two.end(), on_three.begin(), on_three.end(),
                     [](const PlannedBlock& a, const PlannedBlock& b) {
                         return a.tensor == b.tensor && a.first == b.first &&
                                a.elements == b.elements;
                     }));
    std::set<std::uint64_t> homes;
    for (const PlannedBlock& block : on_three) homes.insert(block.shard);
    CHECK(homes == std::set<std::uint64_t>{0, 1, 2});
}

TEST_CASE("plan: refuses a bad job and says where and why, and prints no plan") {
    struct Refused {
        std::string tables;
        std::vector<std::string> more;
        std::vector<std::string> told;
    };
    const auto refused = GENERATE(values<Refused>(
        {{"[worker]\npul_ahead = 1\n", {}, {"tiny.toml:", "pul_ahead", "'worker.pull_ahead'"}},
         {"", {"--set", "servers=0"}, {"servers: must be a whole number from 1 to 1024"}},
         {"", {"--set", "model.library=/nowhere/libmine.so"}, {"'/nowhere/libmine.so'"}}}));
    const TemporaryFolder folder;
    const TinyRun run("", refused.tables);
    Launched planned(folder, words({"plan", run.job_file()}, refused.more));
    CHECK(planned.wait(seconds(20)) == value_of(ExitCode::usage));
    const std::string shown = planned.output();
    CHECK_THAT(shown, Catch::StartsWith("detente plan: ") && !Catch::Contains("of the mean"));
    for (const std::string& told : refused.told) CHECK_THAT(shown, Catch::Contains(told));
    CHECK_FALSE(std::filesystem::exists(run.run_dir()));
}

}  // namespace
}  // namespace detente::test
