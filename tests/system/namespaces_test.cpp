// Three hosts: rendezvous, training, a host cut off and back, a slow link, layers in step.
#include "tests/system/namespaces.h"

#include <array>
#include <catch2/catch.hpp>
#include <chrono>

#include "launch/exit_code.h"

namespace detente::test {
namespace {

using std::chrono::seconds;

// Skips, with one line, where namespaces are not to be had.
#define REQUIRE_NAMESPACES()                                                 \
    if (const std::string why = NetworkOfHosts::hindrance(); !why.empty()) { \
        WARN("skipped: no network namespaces here: " << why);                \
        return;                                                              \
    }                                                                        \
    static_cast<void>(0)

// Two servers on h1 and h2 and three workers on h2, h3 and h3, or as `ranks` says of the five
// behind the coordinator, told apart as a launcher would.
class ThreeHosts {
  public:
    explicit ThreeHosts(const std::string& tables,
                        const std::string& ranks = "servers = 2\nworkers = 3\n") {
        write_file(job(), "name = \"three\"\n" + ranks + "\n" + tables +
                              "\n[deadlines]\npeer_s = 2.0\nheartbeat_s = 0.1\nreply_s = 0.5\n");
    }
    void start() {
        for (std::size_t rank = 0; rank < kHosts.size(); ++rank) {
            ranks.push_back(network.start(
                kHosts[rank],
                {"DETENTE_RANK=" + std::to_string(rank), "DETENTE_SIZE=6", "DETENTE_LOCAL_SIZE=2"},
                {"join", job(), "--out", run_dir()}));
        }
    }
    bool reaches_training() const {
        return eventually(seconds(30), [this] {
            return ranks[0]->output().find("\ntrain") != std::string::npos;
        });
    }
    bool ends(seconds limit) { return ranks[0]->wait(limit) == 0; }
    boost::json::object summary() const {
        const std::string text = bytes_of_file(run_dir() + "/summary.json");
        return text.empty() ? boost::json::object() : boost::json::parse(text).as_object();
    }
    double of_worker(std::size_t worker, const char* what) const {
        return summary()
            .at("workers")
            .as_array()
            .at(worker)
            .as_object()
            .at(what)
            .to_number<double>();
    }
    std::string log(const std::string& name) const {
        return bytes_of_file(run_dir() + "/" + name + ".log");
    }
    std::string job() const { return folder_ / "three.toml"; }
    std::string run_dir() const { return folder_ / "run"; }

    static constexpr std::array<int, 6> kHosts = {1, 1, 2, 2, 3, 3};
    NetworkOfHosts network{3};
    std::vector<std::unique_ptr<Launched>> ranks;

  private:
    TemporaryFolder folder_;
};

const std::string kQuadratic =
    "[model]\nlibrary = \"builtin:quadratic\"\n[model.options]\ndimension = 2000\ntasks = 2\n"
    "samples = 4000\n[data]\nbatch = 4\nlease_batches = 4\n";

// As long as a cut takes to be noticed, on this machine.
const std::string kLong = "[model]\nlibrary = \"" TINY_MODEL
                          "\"\n[model.options]\nsamples = 8192\nstep_ms = 10\n[data]\nbatch = 8\n"
                          "lease_batches = 4\n";

TEST_CASE("namespaces: three hosts find each other and train with nothing said of addresses") {
    REQUIRE_NAMESPACES();
    ThreeHosts three(kQuadratic);
    three.start();
    CAPTURE(three.ranks[0]->output());
    REQUIRE(three.ends(seconds(60)));
    for (const auto& rank : three.ranks) CHECK(rank->wait(seconds(20)) == 0);
    CHECK_THAT(three.ranks[0]->output(), Catch::Contains("found at 10.77.0.1:"));
    CHECK_THAT(three.log("server-0"), Catch::Contains("is connected to at 10.77.0.1"));
    CHECK_THAT(three.log("server-1"), Catch::Contains("is connected to at 10.77.0.2"));
    for (std::size_t worker = 0; worker < 3; ++worker) CHECK(three.of_worker(worker, "steps") > 0);
}

TEST_CASE("namespaces: a host that is cut off is named and the job goes on and it ends when back") {
    REQUIRE_NAMESPACES();
    ThreeHosts three(kLong);
    three.start();
    REQUIRE(three.reaches_training());
    three.network.cut(3);
    // Both, before the host is back: each has a heartbeat of its own, and who is heard again in
    // time is not lost.
    REQUIRE(eventually(seconds(20), [&three] {
        const std::string said = three.ranks[0]->output();
        return said.find("worker:1 lost: no sign of life") != std::string::npos &&
               said.find("worker:2 lost: no sign of life") != std::string::npos;
    }));
    three.network.mend(3);
    REQUIRE(three.ends(seconds(60)));
    CAPTURE(three.ranks[0]->output());
    const auto summary = three.summary();
    CHECK(summary.at("processes_lost").to_number<int>() == 2);
    CHECK(summary.at("batches").as_object().at("done").to_number<double>() == 1);
    CHECK_THAT(three.ranks[0]->output(), Catch::Contains("worker:1 lost: no sign of life") &&
                                             Catch::Contains("cut off from the coordinator on h1"));
    for (std::size_t rank = 4; rank < 6; ++rank) {
        CHECK(three.ranks[rank]->wait(seconds(30)) == value_of(ExitCode::process_lost));
    }
}

TEST_CASE("namespaces: a slow link slows the worker behind it and nobody else") {
    REQUIRE_NAMESPACES();
    ThreeHosts three(kQuadratic);
    three.network.slow_down(3, "4mbit");
    three.start();
    CAPTURE(three.ranks[0]->output());
    REQUIRE(three.ends(seconds(90)));
    CHECK(three.of_worker(0, "steps") > 2 * three.of_worker(1, "steps"));
    CHECK(three.summary().at("processes_lost").to_number<int>() == 0);
}

TEST_CASE("namespaces: the workers of each of two hosts keep layers in step among themselves") {
    REQUIRE_NAMESPACES();
    ThreeHosts three(kQuadratic + "[sync]\nlayers = [\"*\"]\n[staleness]\npolicy = \"async\"\n",
                     "servers = 1\nworkers = 4\n");
    three.start();
    CAPTURE(three.ranks[0]->output());
    REQUIRE(three.ends(seconds(90)));
    CHECK_THAT(three.ranks[0]->output(),
               Catch::Contains("in step, epoch 1: worker:0 and worker:1") &&
                   Catch::Contains("in step, epoch 2: worker:2 and worker:3"));
    const auto summary = three.summary();
    CHECK(summary.at("processes_lost").to_number<int>() == 0);
    CHECK(summary.at("batches").as_object().at("done").to_number<double>() == 1);
    for (std::size_t worker = 0; worker < 4; ++worker) CHECK(three.of_worker(worker, "steps") > 0);
    // Each host's push stands for two workers, of which one counts its part as cancelled.
    CHECK(summary.at("sync").as_object().at("member_rounds").to_number<double>() > 0);
    CHECK(summary.at("updates").as_object().at("cancelled").to_number<double>() > 0);
}

TEST_CASE("namespaces: a server on loopback beside other hosts is refused and both are named") {
    REQUIRE_NAMESPACES();
    ThreeHosts three(kQuadratic + "[transport]\nadvertise_address = \"127.0.0.1\"\n");
    // Rank 0 itself is found by its host's address.
    for (std::size_t rank = 0; rank < ThreeHosts::kHosts.size(); ++rank) {
        three.ranks.push_back(
            three.network.start(ThreeHosts::kHosts[rank],
                                {"DETENTE_RANK=" + std::to_string(rank), "DETENTE_SIZE=6",
                                 "DETENTE_LOCAL_SIZE=2", "DETENTE_COORDINATOR=10.77.0.1:5555"},
                                {"join", three.job(), "--out", three.run_dir()}));
    }
    CHECK(three.ranks[0]->wait(seconds(30)) == value_of(ExitCode::usage));
    CHECK_THAT(three.ranks[0]->output(),
               Catch::Contains("FAILED: shard:0 on h1 listens on tcp://127.0.0.1:") &&
                   Catch::Contains("so that shard:1 on h2 cannot reach it"));
}

}  // namespace
}  // namespace detente::test
