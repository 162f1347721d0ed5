// `detente simulate` as a user starts it, beside a real run of the same job.
#include <signal.h>

#include <catch2/catch.hpp>
#include <filesystem>

#include "tests/system/launched.h"

namespace detente::test {
namespace {

using std::chrono::seconds;
namespace json = boost::json;

std::vector<std::string> simulate_arguments(const TinyRun& run, const std::string& out,
                                            std::vector<std::string> more = {}) {
    std::vector<std::string> all = {"simulate", run.job_file(), "--out", run.folder() / out};
    all.insert(all.end(), more.begin(), more.end());
    return all;
}

json::object summary_in(const TinyRun& run, const std::string& out) {
    return json::parse(bytes_of_file(run.folder() / out + "/summary.json")).as_object();
}

TEST_CASE("simulate: leaves the run directory of a real run, whose model scores as well") {
    const TinyRun run("step_ms = 1");
    Launched real(run.folder(), run.arguments());
    REQUIRE(real.wait(seconds(60)) == 0);
    Launched simulated(run.folder(), simulate_arguments(run, "simulated"));
    const auto code = simulated.wait(seconds(60));
    INFO(simulated.output());
    REQUIRE(code == 0);
    const json::object expected = run.summary();
    const json::object found = summary_in(run, "simulated");
    for (const auto& [key, value] : expected) {
        INFO(std::string(key));
        CHECK(found.contains(key));
    }
    for (const char* key : {"digest", "events", "virtual_s"}) CHECK(found.contains(key));
    CHECK(found.at("updates") == expected.at("updates"));
    for (const auto& [task, scores] : expected.at("tasks").as_object()) {
        const auto accuracy = [&task = task](const json::object& summary) {
            const json::object& tasks = summary.at("tasks").as_object();
            return tasks.at(task).as_object().at("accuracy").to_number<double>();
        };
        CHECK(accuracy(found) == Approx(accuracy(expected)).margin(0.05));
    }
    Launched evaluated(run.folder(), {"evaluate", run.folder() / "simulated"});
    CHECK(evaluated.wait(seconds(30)) == 0);
    Launched ledger(run.folder(), {"ledger", run.folder() / "simulated"});
    CHECK(ledger.wait(seconds(30)) == 0);
}

TEST_CASE("replay: a real run comes out again bit for bit, and its arrivals can be judged anew") {
    const TinyRun run("step_ms = 1");
    Launched real(run.folder(), run.arguments());
    REQUIRE(real.wait(seconds(60)) == 0);
    Launched again(run.folder(), {"replay", run.run_dir(), "--gaps"});
    const auto code = again.wait(seconds(60));
    INFO(again.output());
    REQUIRE(code == 0);
    CHECK(again.output().find("each with the hash that was recorded") != std::string::npos);
    CHECK(again.output().find("bit for bit those of checkpoint") != std::string::npos);
    CHECK(std::filesystem::exists(run.run_dir() + "/staleness_gaps.json"));
    // By the link that the new run takes for itself.
    Launched other(run.folder(),
                   {"replay", run.folder() / "latest", "--set", "staleness.policy=fedbuff", "--set",
                    "staleness.k=2", "--out", run.folder() / "other"});
    const auto other_code = other.wait(seconds(60));
    INFO(other.output());
    REQUIRE(other_code == 0);
    CHECK(summary_in(run, "other").at("updates").at("computed").to_number<std::uint64_t>() ==
          run.summary().at("updates").at("computed").to_number<std::uint64_t>());
}

TEST_CASE("simulate: the seed decides, and --check-determinism says that nothing else does") {
    // The tiny model draws nothing and comes to rest: what the seed moves is when.
    const TinyRun run("", "[simulate.compute]\ndistribution = \"exponential\"\n");
    for (const char* out : {"one", "two"}) {
        Launched launched(run.folder(),
                          simulate_arguments(run, out, {"--seed", "4", "--threads", "2"}));
        REQUIRE(launched.wait(seconds(60)) == 0);
    }
    Launched other(run.folder(), simulate_arguments(run, "other", {"--check-determinism"}));
    REQUIRE(other.wait(seconds(60)) == 0);
    CHECK_THAT(other.output(), Catch::Contains("events and the digest are the same"));
    CHECK(summary_in(run, "one").at("digest") == summary_in(run, "two").at("digest"));
    CHECK(summary_in(run, "one").at("events") == summary_in(run, "two").at("events"));
    CHECK(summary_in(run, "one").at("virtual_s") == summary_in(run, "two").at("virtual_s"));
    CHECK(summary_in(run, "one").at("virtual_s") != summary_in(run, "other").at("virtual_s"));
}

TEST_CASE("simulate: Ctrl-C drains, writes a checkpoint and a summary, and ends with 130") {
    const TinyRun run;
    Launched launched(run.folder(),
                      simulate_arguments(run, "out", {"--set", "data.epochs=1000000"}));
    REQUIRE(eventually(seconds(30),
                       [&] { return launched.output().find("training") != std::string::npos; }));
    launched.signal(SIGINT);
    const auto code = launched.wait(seconds(30));
    INFO(launched.output());
    CHECK(code == 130);
    const json::object summary = summary_in(run, "out");
    CHECK(summary.at("failed").as_bool());
    CHECK(summary.at("updates").as_object().at("in_flight").to_number<std::uint64_t>() == 0);
    CHECK(std::filesystem::exists(run.folder() / "out/checkpoints/1/model.safetensors"));
}

TEST_CASE("simulate: a model that needs no library trains in real processes too") {
    const TemporaryFolder folder;
    write_file(folder / "job.toml",
               "workers = 2\n[model]\nlibrary = \"builtin:quadratic\"\n[model.options]\n"
               "samples = 640\n[data]\nbatch = 16\n[rule]\nname = \"sgd\"\nlearning_rate = 0.1\n");
    Launched launched(folder, {"run", folder / "job.toml", "--out", folder / "run"});
    const auto code = launched.wait(seconds(60));
    INFO(launched.output());
    REQUIRE(code == 0);
    const auto summary = json::parse(bytes_of_file(folder / "run/summary.json")).as_object();
    const json::object& task = summary.at("tasks").as_object().at("task0").as_object();
    CHECK(task.at("accuracy").to_number<double>() > 0.9);
    CHECK(task.at("loss").to_number<double>() < 5);
}

}  // namespace
}  // namespace detente::test
