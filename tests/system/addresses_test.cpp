// Bound and advertised address apart: servers listen on one address of this machine and the others
// connect to another, where a proxy stands, as before a container.
#include <catch2/catch.hpp>

#include "launch/exit_code.h"
#include "tests/system/proxied_run.h"

namespace detente::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_CASE("addresses: servers bound to one address are reached at another with latency between") {
    const Between between(milliseconds(15));
    const TinyRun run;
    const auto ranks = join_by_hand(run, ports_and(between, "127.0.0.1", "127.0.0.2"));
    for (const auto& rank : ranks) {
        CAPTURE(rank->output());
        CHECK(rank->wait(seconds(60)) == 0);
    }
    CHECK_THAT(bytes_of_file(run.run_dir() + "/server-1.log"),
               Catch::Contains("listens on 127.0.0.1, and is connected to at 127.0.0.2"));
    // Every push and pull went through it, and took two ways of 15 ms at least.
    const auto summary = run.summary();
    CHECK(between.proxy->passed_bytes() > 1'000'000);
    for (const auto& worker : summary.at("workers").as_array()) {
        const auto& one = worker.as_object();
        CHECK(one.at("waiting_s").to_number<double>() >
              0.03 * one.at("steps").to_number<double>() * 0.9);
    }
}

TEST_CASE(
    "addresses: a rank's own flags go before the job and a wrong one says what the host has") {
    const TinyRun run;
    const auto ranks =
        join_by_hand(run, {"--bind", "lo", "--set", "transport.bind_address=no-interface"});
    for (const auto& rank : ranks) CHECK(rank->wait(seconds(40)) == 0);
    const TinyRun other;
    const Launched* first = nullptr;
    const auto refused = join_by_hand(other, {"--set", "transport.bind_address=no-interface"});
    first = refused.front().get();
    CHECK(refused.front()->wait(seconds(20)) == value_of(ExitCode::usage));
    CHECK_THAT(first->output(), Catch::Contains("transport.bind_address = 'no-interface': expected "
                                                "an address, an interface's name") &&
                                    Catch::Contains("lo 127.0.0.1"));
}

}  // namespace
}  // namespace detente::test
