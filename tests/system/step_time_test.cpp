// Where a step's time goes, in runs of real processes.
#include <catch2/catch.hpp>

#include "tests/system/launched.h"

namespace detente::test {
namespace {

namespace json = boost::json;

constexpr const char* kNames[] = {"compute_ms", "wait_ms", "wire_ms", "queue_ms", "apply_ms"};

double number(const json::value& times, const char* name) {
    return times.at(name).to_number<double>();
}

TEST_CASE("step time: the five add up to the training time of each worker") {
    for (const char* worker : {"", "push_pull = false\n", "pull_ahead = 1\n"}) {
        CAPTURE(worker);
        const TinyRun run("step_ms = 10", std::string("[worker]\n") + worker);
        Launched launched(run.folder(), run.arguments());
        REQUIRE(launched.wait(std::chrono::seconds(60)) == 0);
        const json::object summary = run.summary();
        CAPTURE(json::serialize(summary.at("workers")));
        const double training_ms = 1e3 * summary.at("training_s").to_number<double>();
        for (const json::value& one : summary.at("workers").as_array()) {
            const json::value& times = one.at("step_time");
            CHECK(number(times, "steps") == number(one, "steps"));
            double step_ms = 0;
            for (const char* name : kNames) {
                CHECK(number(times, name) >= 0);
                step_ms += number(times, name);
            }
            // Before its first gradient, and after its last verdict, there is no step.
            const double told_ms = step_ms * number(times, "steps");
            CHECK(told_ms <= training_ms + 10);  // two clocks' words, a message apart
            CHECK(told_ms >= 0.9 * training_ms);
            CHECK(number(times, "compute_ms") >= 10);  // what the model sleeps
        }
        const json::value& all = summary.at("step_time");
        CHECK(number(all, "steps") == summary.at("steps").to_number<double>());
        if (std::string(worker).find("pull_ahead") == std::string::npos) {  // or it may be hidden
            CHECK(number(all, "apply_ms") > 0);
            CHECK(number(all, "wire_ms") > 0);
        }
        CHECK_THAT(launched.output(), Catch::Contains(" ms a step: compute "));
    }
}

}  // namespace
}  // namespace detente::test
