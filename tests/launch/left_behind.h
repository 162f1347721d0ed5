// Runs whose directories are still there, and their replays: what `detente replay` does.
#pragma once

#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "launch/replay/replay.h"
#include "ps/checkpoint.h"
#include "ps/checkpoint_folder.h"
#include "tests/launch/simulated_run.h"

namespace detente::test {

// What happens to a run besides what its job says.
struct Course {
    std::string resume;                   // a run's folder; empty: begins anew
    std::vector<PolicyChange> changes{};  // one every 200 ms of virtual time
};

// A run of this job, left in a folder as a user's would be.
class LeftBehind {
  public:
    explicit LeftBehind(const std::vector<std::string>& overrides, const std::string& more = "",
                        const Course& course = {})
        : job_(job_of(kQuadraticJob + more, overrides)) {
        SimulationSetup setup = setup_of(job_, folder_ / "run");
        setup.resume = course.resume;
        run_ = setup.run;
        plan_ = setup.plan;
        write_file(run_.job_file(), to_toml(job_));
        auto simulation = Simulation::create(std::move(setup));
        INFO((simulation ? "" : simulation.error().text));
        REQUIRE(simulation.has_value());
        Time when{};
        for (const PolicyChange& change : course.changes) {
            when += std::chrono::milliseconds(200);
            sim::World& world = (*simulation)->world();
            world.at(when, [&world, change] {
                Message message;
                message.envelope.from = kCoordinator;
                message.body = change;
                world.post(node_of(kLeadShard), Received{std::move(message)});
            });
        }
        const Outcome outcome = (*simulation)->run([] { return std::nullopt; });
        INFO(outcome.error.text);
        REQUIRE_FALSE(outcome.failed);
        books_ = total_books((*simulation)->view());
        digest_ = (*simulation)->figures().digest;
    }
    Recording recording() const {
        auto read = read_recording(run_.path, {});
        INFO((read ? "" : read.error().text));
        REQUIRE(read.has_value());
        return *read;
    }
    const Job& job() const { return job_; }
    const Plan& plan() const { return plan_; }
    std::uint64_t digest() const { return digest_; }
    const Books& books() const { return books_; }
    const RunDirectory& run() const { return run_; }

  private:
    TemporaryFolder folder_;
    Job job_;
    Plan plan_;
    std::uint64_t digest_ = 0;
    Books books_;
    RunDirectory run_;
};

inline std::unique_ptr<Replay> replay_of(const Recording& recording, const LeftBehind& left,
                                         ReplayOptions options = {}) {
    options.checkpoints = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    auto replay =
        Replay::create(recording, left.plan(), engines_for(recording.job), std::move(options));
    INFO((replay ? "" : replay.error().text));
    REQUIRE(replay.has_value());
    return std::move(*replay);
}

inline void require_same_as_checkpoint(const LeftBehind& left, const Replay& replay) {
    REQUIRE(replay.checkpoint());
    auto checkpoint = Checkpoint::open(checkpoint_directory(left.run().path, *replay.checkpoint()));
    REQUIRE(checkpoint.has_value());
    for (const Block& block : left.plan().blocks) {
        const auto slices = checkpoint->read(std::vector{block.id});
        REQUIRE(slices.has_value());
        const Payload& here = replay.checkpoint_weights().at(block.id);
        const Payload& there = slices->front().weights;
        REQUIRE(here.size() == there.size());
        CHECK(std::memcmp(here.bytes.data(), there.bytes.data(), here.size()) == 0);
    }
}

// `before`: updates in the books that the checkpoint brought along.
inline void require_replays(const LeftBehind& left, std::uint64_t before = 0) {
    const Recording recording = left.recording();
    const auto replay = replay_of(recording, left);
    const auto figures = replay->run();
    INFO((figures ? "" : figures.error().text));
    REQUIRE(figures.has_value());
    CHECK(before + figures->applied == left.books().applied);
    CHECK(figures->gradients == recording.steps.size());
    CHECK(replay->digest() == left.digest());
    CHECK(figures->hashes + figures->carried == figures->gradients);
    require_same_as_checkpoint(left, *replay);
}

inline void require_replays(const std::vector<std::string>& overrides,
                            const std::string& more = "") {
    require_replays(LeftBehind(overrides, more));
}

}  // namespace detente::test
