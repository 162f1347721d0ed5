// Replaying a run directory: what `detente replay` does, over simulated runs.
#include <filesystem>

#include "launch/replay/arrivals.h"
#include "tests/launch/left_behind.h"

namespace detente::test {
namespace {

std::vector<std::string> with_policy(const std::string& policy) {
    std::vector<std::string> all = {"staleness.policy=" + policy, "model.options.samples=960",
                                    "workers=4", "worker.clip_norm=0.5"};
    return all;
}

}  // namespace

TEST_CASE("replay: a run directory of any policy gives its checkpoint again bit for bit") {
    for (const std::string& policy : policy_names()) {
        INFO(policy);
        require_replays(with_policy(policy));
    }
}

TEST_CASE(
    "replay: so it does after losses on the way, jitter, momentum, schedules and recomputing") {
    for (const char* policy : {"bounded_reject", "dc_asgd", "dana_zero", "fedbuff", "ssp"}) {
        INFO(policy);
        auto overrides = with_policy(policy);
        const bool plain = std::string(policy).starts_with("dana");
        for (const char* more :
             {"rule.schedule.name=cosine", "rule.schedule.total_samples=4000",
              "worker.on_rejection=recompute", "simulate.network.drop=0.05",
              "simulate.network.duplicate=0.05", "simulate.network.jitter_s=0.005",
              "simulate.compute.distribution=pareto"}) {
            overrides.emplace_back(more);
        }
        if (!plain) overrides.emplace_back("rule.momentum=0.5");
        require_replays(overrides);
    }
}

TEST_CASE("replay: rejected gradients that were compensated are carried again") {
    for (const char* policy : {"bounded_reject", "ringmaster"}) {
        INFO(policy);
        auto overrides = with_policy(policy);
        overrides.emplace_back(std::string(policy) == "ringmaster" ? "staleness.r=2"
                                                                   : "staleness.tau_max=1");
        overrides.emplace_back("worker.on_rejection=compensate");
        overrides.emplace_back("simulate.network.drop=0.03");
        const LeftBehind left(overrides);
        const Recording recording = left.recording();
        const auto replay = replay_of(recording, left);
        const auto figures = replay->run();
        INFO((figures ? "" : figures.error().text));
        REQUIRE(figures.has_value());
        CHECK(figures->carried > 0);
        CHECK(figures->applied == left.books().applied);
        require_same_as_checkpoint(left, *replay);
    }
}

TEST_CASE("replay: a worker that is lost takes its policy's vectors with it here too") {
    for (const char* policy :
         {"dana_zero", "delayed_nesterov", "dc_asgd", "gap_aware", "fedbuff"}) {
        INFO(policy);
        require_replays(with_policy(policy), R"([[simulate.fault]]
kind = "crash"
node = "worker:2"
at_s = 0.2
)");
    }
}

TEST_CASE("replay: weights that were older than those handed out are found by their version") {
    auto overrides = with_policy("async");
    overrides.emplace_back("simulate.staleness.distribution=constant");
    overrides.emplace_back("simulate.staleness.mean=5");
    require_replays(overrides);
}

TEST_CASE("replay: the first gradient that comes out otherwise is named") {
    const LeftBehind left(with_policy("async"));
    const std::string other = to_toml(left.job());
    const std::string noise = "noise = 0.1";
    REQUIRE(other.find(noise) != std::string::npos);
    std::string altered = other;
    altered.replace(altered.find(noise), noise.size(), "noise = 0.2");
    write_file(left.run().job_file(), altered);
    const Recording recording = left.recording();
    const auto replay = replay_of(recording, left);
    const auto figures = replay->run();
    REQUIRE(figures.has_error());
    CHECK(figures.error().code == ErrorCode::internal);
    CHECK_THAT(figures.error().text, Catch::Contains("step 1, batch") &&
                                         Catch::Contains("the first that differs, after 0"));
}

TEST_CASE("replay: a ledger that lacks its end is named, with what it lacks") {
    // As a kill leaves it: the file's chunks are there up to some point.
    auto overrides = with_policy("async");
    overrides.emplace_back("model.options.samples=48000");
    const LeftBehind left(overrides);
    const std::string file = left.run().ledger_dir() + "/shard-1.1.ledger";
    std::filesystem::resize_file(file, std::filesystem::file_size(file) / 2);
    const Recording recording = left.recording();
    CHECK(recording.remarks.size() == 1);
    const auto figures = replay_of(recording, left)->run();
    REQUIRE(figures.has_error());
    INFO(figures.error().text);
    CHECK(figures.error().code == ErrorCode::bad_message);
    CHECK_THAT(figures.error().text, Catch::Contains("shard:1 is at its end") &&
                                         Catch::Contains("which was computed at"));
}

TEST_CASE("replay: a ledger that no run of this job left is refused before anything is computed") {
    const LeftBehind left(with_policy("async"));
    for (const int what : {0, 1, 2}) {
        Recording recording = left.recording();
        for (LedgerEntry& entry : recording.shards[1].entries) {
            auto* push = std::get_if<VerdictRecord>(&entry.record);
            if (push == nullptr) continue;
            if (what == 0) push->rows.clear();
            if (what == 1) push->rows[0].block = BlockId{1'000'000};
            if (what == 2) push->rows[0].block = left.plan().by_shard[0].front();
            break;
        }
        const auto replay = Replay::create(recording, left.plan(), engines_for(recording.job), {});
        REQUIRE(replay.has_error());
        CHECK(replay.error().code == ErrorCode::bad_message);
        CHECK_THAT(replay.error().text, Catch::Contains("is not of this job and model"));
    }
}

TEST_CASE("replay: gaps grow with staleness, and a gradient without any is the present one") {
    auto overrides = with_policy("async");
    overrides.emplace_back("model.options.noise=0");
    overrides.emplace_back("model.options.samples=3200");
    overrides.emplace_back("simulate.staleness.distribution=uniform");
    overrides.emplace_back("simulate.staleness.mean=3");
    const LeftBehind left(overrides);
    const Recording recording = left.recording();
    ReplayOptions options;
    options.gaps = true;
    const auto figures = replay_of(recording, left, std::move(options))->run();
    INFO((figures ? "" : figures.error().text));
    REQUIRE(figures.has_value());
    REQUIRE(figures->gaps.size() > 3);
    std::uint64_t gradients = 0;
    for (const auto& [staleness, gap] : figures->gaps) {
        gradients += gap.gradients;
        CHECK((gap.gap_sum > 0) == (staleness > 0));
        if (staleness == 0) CHECK(gap.cosine_sum == Approx(static_cast<double>(gap.gradients)));
    }
    CHECK(gradients == figures->gradients);
    const auto mean = [&](std::uint64_t staleness) {
        const StalenessGap& gap = figures->gaps.at(staleness);
        return gap.gap_sum / static_cast<double>(gap.gradients);
    };
    CHECK(mean(4) > mean(1));
}

TEST_CASE("replay: recorded arrivals judged by the same policy come to the same updates") {
    const LeftBehind left(with_policy("async"));
    const auto times = arrival_times(left.recording());
    REQUIRE(times.has_value());
    const TemporaryFolder folder;
    write_file(folder / "times.txt", *times);
    std::vector<std::string> overrides = with_policy("async");
    overrides.emplace_back("simulate.compute.distribution=trace");
    overrides.push_back("simulate.compute.trace=" + (folder / "times.txt"));
    overrides.emplace_back("simulate.network.latency_s=0");
    const LeftBehind again(overrides);
    CHECK(again.books().applied == left.books().applied);
    const auto order = [](const Recording& recording) {
        std::vector<std::pair<std::uint32_t, std::uint64_t>> all;
        for (const LedgerEntry& entry : recording.shards[0].entries) {
            const auto* push = std::get_if<VerdictRecord>(&entry.record);
            if (push != nullptr) all.emplace_back(push->worker.value, push->rows[0].staleness);
        }
        return all;
    };
    const auto a = order(again.recording());
    const auto b = order(left.recording());
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
        INFO("arrival " << i);
        REQUIRE(a[i] == b[i]);
    }
}

TEST_CASE("replay: what made the recorded arrivals is not done again when they are judged") {
    auto overrides = with_policy("async");
    for (const char* more :
         {"model.options.samples=3200", "simulate.shard.message_s=0.002",
          "simulate.compute.factors=[1, 2]", "simulate.staleness.distribution=constant",
          "simulate.staleness.mean=5"}) {
        overrides.emplace_back(more);
    }
    const auto judged_again = [&](const LeftBehind& left) {
        const auto times = arrival_times(left.recording());
        REQUIRE(times.has_value());
        const TemporaryFolder folder;
        write_file(folder / "times.txt", *times);
        // As the verb hands it on: by way of a file.
        const Job job = job_of(to_toml(job_of_arrivals(left.job(), folder / "times.txt")));
        const SimulatedRun again = simulate(job);
        require_whole(again);
        return again;
    };
    SECTION("queues, a pause and imposed staleness") {
        const LeftBehind left(overrides, R"([[simulate.fault]]
kind = "pause"
node = "worker:2"
at_s = 0.2
lasts_s = 0.3
)");
        const SimulatedRun again = judged_again(left);
        CHECK(again.figures.virtual_s ==
              Approx(simulate(left.job()).figures.virtual_s).epsilon(0.04));
        double staleness = 0;
        double rows = 0;
        for (const LedgerEntry& entry : again.ledger) {
            const auto* push = std::get_if<VerdictRecord>(&entry.record);
            if (push == nullptr) continue;
            staleness += static_cast<double>(push->rows[0].staleness);
            rows += 1;
        }
        CHECK(staleness / rows < 4);  // three others: that of the arrivals alone
    }
    SECTION("a crash") {
        const LeftBehind left(overrides, R"([[simulate.fault]]
kind = "crash"
node = "worker:2"
at_s = 0.2
)");
        const SimulatedRun again = judged_again(left);
        CHECK(again.summary.books.lost == 0);
        for (const ProcessView& process : again.view.processes) {
            INFO(to_string(process.node));
            CHECK(process.phase != Phase::lost);
        }
    }
}

}  // namespace detente::test
