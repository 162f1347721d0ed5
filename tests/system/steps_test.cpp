// Policies that decide whole steps, with real processes: the lead shard and the others are
// different servers.
#include <catch2/catch.hpp>

#include "tests/system/launched.h"

namespace detente::test {
namespace {

using std::chrono::seconds;
namespace json = boost::json;

json::object trained_under(const std::vector<std::string>& settings) {
    const TinyRun run("step_ms = 1");
    std::vector<std::string> more = {"--set", "workers=3", "--set", "servers=2"};
    for (const std::string& setting : settings) {
        more.emplace_back("--set");
        more.push_back(setting);
    }
    Launched launched(run.folder(), run.arguments(more));
    const auto code = launched.wait(seconds(60));
    INFO(launched.output());
    REQUIRE(code == 0);
    return run.summary();
}

void require_whole(const json::object& summary) {
    const json::object& books = summary.at("updates").as_object();
    const auto count = [&](const char* name) { return books.at(name).to_number<std::uint64_t>(); };
    CHECK(count("applied") > 0);
    CHECK(count("in_flight") == 0);
    CHECK(count("lost") == 0);
    CHECK(summary.at("batches").as_object().at("done").to_number<double>() == 1);
}

TEST_CASE("steps: bsp over two servers: every gradient is fresh") {
    const json::object summary = trained_under({"staleness.policy=bsp"});
    require_whole(summary);
    const json::object& staleness = summary.at("staleness").as_object();
    CHECK(staleness.at("max").to_number<std::uint64_t>() == 0);
    CHECK(summary.at("updates").as_object().at("rejected").to_number<std::uint64_t>() == 0);
}

TEST_CASE("steps: bounded_reject with one verdict for all shards of a push") {
    require_whole(trained_under({"staleness.admission=step"}));
}

TEST_CASE("steps: averages and held workers over two servers") {
    for (const std::string policy : {"fedbuff", "ssp", "capacity"}) {
        INFO(policy);
        require_whole(trained_under({"staleness.policy=" + policy}));
    }
}

}  // namespace
}  // namespace detente::test
