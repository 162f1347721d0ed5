// What a running job says of itself over HTTP.
#include <signal.h>

#include <catch2/catch.hpp>

#include "tests/runtime/raw_dealer.h"
#include "tests/system/exposition.h"
#include "tests/system/launched.h"

namespace detente::test {
namespace {

using std::chrono::seconds;
namespace json = boost::json;

TEST_CASE("pages: the reader of Prometheus text refuses what the format refuses") {
    const std::string up = "# HELP up Is it.\n# TYPE up gauge\n";
    CHECK(read_exposition(up + "up{a=\"b\"} 1\n").mistakes.empty());
    for (const std::string wrong :
         {"up 1", "up{a=b} 1\n", "up{a=\"b\" 1\n", "up{a=\"b\",a=\"c\"} 1\n", "up one\n",
          "up nan\n", "up 1\nup 1\n", "other 1\n", "1up 1\n", "# TYPE up gauge\nup 1\n",
          "# a word\n", "up{a=\"\\x\"} 1\n"}) {
        INFO(wrong);
        CHECK_FALSE(read_exposition(up + wrong).mistakes.empty());
    }
    CHECK_FALSE(read_exposition("# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\n"
                                "h_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n")
                    .mistakes.empty());
}

TEST_CASE("pages: /metrics is valid Prometheus text whose counters only grow") {
    const TinyRun run("step_ms = 10");
    Launched launched(run.folder(), run.arguments());
    REQUIRE(run.reaches_training());
    Exposition before;
    REQUIRE(eventually(seconds(20), [&] {
        before = read_exposition(run.page("/metrics"));
        return before.value("detente_updates_applied_total") > 0 &&
               before.value("detente_samples_total") > 0;
    }));
    Exposition after;
    REQUIRE(eventually(seconds(20), [&] {
        after = read_exposition(run.page("/metrics"));
        return after.value("detente_steps_total") > before.value("detente_steps_total");
    }));
    for (const Exposition& read : {before, after}) {
        for (const std::string& mistake : read.mistakes) FAIL_CHECK(mistake);
        for (const char* process : {"shard:0", "shard:1", "worker:0", "worker:1"}) {
            std::size_t series = 0;
            for (const auto& [key, value] : read.samples) {
                if (key.first != "detente_up" || key.second.at("process") != process) continue;
                ++series;
                CHECK(value == 1);
            }
            CHECK(series == 1);
        }
        CHECK(read.value("detente_loss", {{"task", "left"}}) > 0);
    }
    CHECK(before.growing().size() > 8);
    const auto grown = after.growing();
    for (const auto& [key, value] : before.growing()) {
        INFO(key.first);
        const auto later = grown.find(key);
        REQUIRE(later != grown.end());
        CHECK(later->second >= value);
    }
}

TEST_CASE("pages: /status names every process, what it does, what it waits for and how long") {
    const TinyRun run("step_ms = 10");
    Launched launched(run.folder(), run.arguments());
    REQUIRE(run.reaches_training());
    // In training everybody has told of itself once.
    REQUIRE(eventually(seconds(20), [&] { return run.value("worker:1", "steps") > 0; }));
    const json::object status = run.status();
    CHECK(status.at("job").as_string() == "tiny");
    std::vector<std::string> names;
    for (const json::value& entry : status.at("processes").as_array()) {
        const json::object& one = entry.as_object();
        names.emplace_back(one.at("name").as_string());
        INFO(json::serialize(one));
        CHECK(one.at("phase").as_string() == "working");
        CHECK_FALSE(one.at("does").as_string().empty());
        CHECK(one.at("waits_for").is_string());
        CHECK(one.at("waited_s").to_number<double>() >= 0);
        CHECK(one.at("silent_s").to_number<double>() < 2);
        CHECK(alive(static_cast<pid_t>(one.at("pid").to_number<std::int64_t>())));
        CHECK_FALSE(one.at("host").as_string().empty());
    }
    CHECK(names == std::vector<std::string>{"shard:0", "shard:1", "worker:0", "worker:1"});
}

TEST_CASE("pages: garbage at a shard's port is counted in /metrics and in summary.json") {
    const TinyRun run("step_ms = 20");
    Launched launched(run.folder(), run.arguments());
    REQUIRE(run.reaches_training());
    std::string address;
    const json::object status = run.status();
    for (const json::value& entry : status.at("processes").as_array()) {
        const json::object& one = entry.as_object();
        if (one.at("name").as_string() == "shard:1") address = one.at("address").as_string();
    }
    detente::testing::RawDealer stranger(address, "");
    stranger.send({"this is no message of ours", "nor this"});
    const Labels counted{{"process", "shard:1"}, {"name", "refused.transport.bad_message"}};
    CHECK(eventually(seconds(20), [&] {
        return read_exposition(run.page("/metrics")).value("detente_process_value", counted) == 1;
    }));
    CHECK(run.value("shard:1", "refused.transport.bad_message") == 1);
    REQUIRE(launched.wait(seconds(60)) == 0);
    const json::object summary = run.summary();
    const json::object& refused = summary.at("refused").as_object();
    REQUIRE(refused.contains("transport.bad_message"));
    CHECK(refused.at("transport.bad_message").to_number<int>() == 1);
}

TEST_CASE("pages: /status says for whom a worker waits when its server is frozen") {
    const TinyRun run("step_ms = 10");
    Launched launched(run.folder(), run.arguments({"--set", "deadlines.peer_s=60"}));
    REQUIRE(run.reaches_training());
    ::kill(run.pids().at("shard:1"), SIGSTOP);
    CHECK(eventually(seconds(20), [&] {
        const json::object status = run.status();
        if (status.empty()) return false;
        for (const json::value& entry : status.at("processes").as_array()) {
            const json::object& one = entry.as_object();
            if (one.at("name").as_string() != "worker:0") continue;
            const std::string waits(one.at("waits_for").as_string());
            return waits.find("shard:1") != std::string::npos &&
                   one.at("waited_s").to_number<double>() > 0.2;
        }
        return false;
    }));
}

}  // namespace
}  // namespace detente::test
