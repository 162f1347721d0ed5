// Servers of several shards: one process, one thread and socket per shard.
#include <signal.h>

#include <catch2/catch.hpp>
#include <cstring>

#include "tests/system/launched.h"

namespace detente::test {
namespace {

using std::chrono::seconds;
namespace json = boost::json;

std::string weights_after(const TinyRun& run, const std::vector<std::string>& settings) {
    std::vector<std::string> more = {"--set", "workers=1", "--set", "rule.name=adam"};
    for (const std::string& setting : settings) {
        more.emplace_back("--set");
        more.push_back(setting);
    }
    Launched launched(run.folder(), run.arguments(more));
    const auto code = launched.wait(seconds(60));
    INFO(launched.output());
    REQUIRE(code == 0);
    // After the header, which names the run's generation: 8 bytes of length, then JSON.
    const std::string file = bytes_of_file(run.run_dir() + "/checkpoints/1/model.safetensors");
    std::uint64_t header = 0;
    REQUIRE(file.size() > sizeof(header));
    std::memcpy(&header, file.data(), sizeof(header));
    REQUIRE(file.size() > sizeof(header) + header);
    return file.substr(sizeof(header) + header);
}

TEST_CASE("shards: two servers of two shards train, and every shard's books balance") {
    const TinyRun run("step_ms = 2", "[checkpoint]\nevery = 1024\n");
    Launched launched(run.folder(), run.arguments({"--set", "shards_per_server=2"}));
    REQUIRE(run.reaches_training());
    const auto pids = run.pids();
    REQUIRE(pids.size() == 6);
    CHECK(pids.at("shard:0") == pids.at("shard:1"));
    CHECK(pids.at("shard:2") == pids.at("shard:3"));
    CHECK(pids.at("shard:0") != pids.at("shard:2"));
    REQUIRE(launched.wait(seconds(60)) == 0);
    const json::object summary = run.summary();
    const json::object& books = summary.at("updates").as_object();
    const auto count = [&](const char* name) { return books.at(name).to_number<std::uint64_t>(); };
    CHECK(count("applied") > 0);
    CHECK(count("computed") ==
          count("applied") + count("rejected") + count("cancelled") + count("lost"));
    CHECK(count("in_flight") == 0);
    CHECK(summary.at("batches").as_object().at("done").to_number<double>() == 1);
    for (const char* task : {"left", "right"}) {
        const auto& score = summary.at("tasks").as_object().at(task).as_object();
        CHECK(score.at("accuracy").to_number<double>() > 0.99);
    }
    for (const char* shard : {"0", "1", "2", "3"}) {
        CHECK(std::filesystem::exists(run.run_dir() + "/ledger/shard-" + shard + ".1.ledger"));
    }
}

TEST_CASE("shards: with one worker the weights are those of one shard, bit for bit") {
    const std::string one = weights_after(TinyRun(), {"servers=1"});
    REQUIRE(one.size() == 4 * (5000 + 2 * 64));
    CHECK((one == weights_after(TinyRun(), {"servers=1", "shards_per_server=3"})));
    CHECK((one == weights_after(TinyRun(), {"servers=2", "shards_per_server=2"})));
}

TEST_CASE("shards: a job of two shards a server goes on from its checkpoint") {
    const TinyRun run("step_ms = 10");
    Launched launched(run.folder(), run.arguments({"--set", "shards_per_server=2"}));
    REQUIRE(run.reaches_training());
    REQUIRE(eventually(seconds(20), [&] { return run.value("worker:0", "steps") > 5; }));
    launched.signal(SIGINT);
    REQUIRE(launched.wait(seconds(15)) == 130);
    Launched second(run.folder(), {"run", run.job_file(), "--out", run.folder() / "second",
                                   "--resume", run.run_dir(), "--set", "shards_per_server=2",
                                   "--set", "model.options.step_ms=0"});
    const auto code = second.wait(seconds(60));
    INFO(second.output());
    CHECK(code == 0);
}

TEST_CASE("shards: a frozen server of two shards is named once, as a server") {
    const TinyRun run("step_ms = 10");
    Launched launched(run.folder(), run.arguments({"--set", "shards_per_server=2"}));
    REQUIRE(run.reaches_training());
    const auto pids = run.pids();
    ::kill(pids.at("shard:2"), SIGSTOP);
    CHECK(launched.wait(seconds(10)) == 5);
    CHECK_THAT(launched.output(),
               Catch::Contains("no sign of life for 2.") && Catch::Contains("server-1.log"));
    for (const auto& [name, pid] : pids) CHECK_FALSE(alive(pid));
}

}  // namespace
}  // namespace detente::test
