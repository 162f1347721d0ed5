// Whole runs on virtual time: the real coordinator, shards and workers.
#include "launch/simulation.h"

#include <catch2/catch.hpp>
#include <set>

#include "tests/launch/simulated_run.h"

namespace detente::test {
namespace {

TEST_CASE("simulate: a run ends with a checkpoint, scores, and balanced books") {
    const SimulatedRun run = simulate(kQuadraticJob, {});
    require_whole(run);
    CHECK(run.summary.books.applied == 200 * 4);  // batches times blocks
    CHECK(run.summary.steps == 200);
    CHECK(run.summary.samples == 3200);
    REQUIRE(run.summary.accuracy.size() == 2);
    REQUIRE(run.view.checkpoints.size() == 1);
    CHECK(run.loss() < 40);
    CHECK(run.summary.mean_cosine.has_value());
    CHECK(run.summary.staleness.mean == Approx(2).margin(0.2));
    // 200 gradients of 20 ms on three workers.
    CHECK(run.summary.training_s == Approx(200 * 0.02 / 3).epsilon(0.1));
}

TEST_CASE("simulate: the same seed gives the same digest and events, another seed others") {
    const SimulatedRun first = simulate(kQuadraticJob, {"seed=7"});
    const SimulatedRun again = simulate(kQuadraticJob, {"seed=7"});
    const SimulatedRun other = simulate(kQuadraticJob, {"seed=8"});
    CHECK(first.figures.digest == again.figures.digest);
    CHECK(first.figures.events == again.figures.events);
    CHECK(first.figures.virtual_s == again.figures.virtual_s);
    CHECK(first.figures.digest != other.figures.digest);
}

TEST_CASE("simulate: any number of threads gives the same digest and events") {
    for (const char* policy : {"async", "ringmaster", "easgd"}) {
        INFO(policy);
        const std::vector<std::string> job = {std::string("staleness.policy=") + policy,
                                              "simulate.network.drop=0.02"};
        const SimulatedRun one = simulate(kQuadraticJob, job, 1);
        const SimulatedRun two = simulate(kQuadraticJob, job, 2);
        require_whole(one);
        CHECK(one.figures.digest == two.figures.digest);
        CHECK(one.figures.events == two.figures.events);
    }
}

TEST_CASE("simulate: two runs are compared event by event, and the first that differs is named") {
    EventTrace first;
    simulate(job_of(kQuadraticJob), 1, &first);
    EventTrace same(first);
    const SimulatedRun run = simulate(job_of(kQuadraticJob), 2, &same);
    CHECK(first.events() == run.figures.events);
    CHECK_FALSE(same.difference().has_value());
    EventTrace noisier(first);
    simulate(job_of(kQuadraticJob, {"model.options.noise=0.1001"}), 1, &noisier);
    REQUIRE(noisier.difference().has_value());
    CHECK_THAT(*noisier.difference(), Catch::Contains("was handed push from worker:"));
    EventTrace longer(first);
    simulate(job_of(kQuadraticJob, {"deadlines.heartbeat_s=0.4"}), 1, &longer);
    CHECK(longer.difference().has_value());
}

TEST_CASE("simulate: faults of the network do not move the data") {
    // One worker's weights depend on its data only, not on when its messages arrive.
    const std::vector<std::string> job = {"workers=1", "deadlines.reply_s=0.1"};
    const SimulatedRun clean = simulate(kQuadraticJob, job);
    for (const char* fault :
         {"drop=0.05", "duplicate=0.05", "jitter_s=0.005", "corrupt=0.05", "bandwidth=100000"}) {
        INFO(fault);
        std::vector<std::string> faulty = job;
        faulty.push_back(std::string("simulate.network.") + fault);
        const SimulatedRun run = simulate(kQuadraticJob, faulty);
        require_whole(run);
        CHECK(run.figures.events > clean.figures.events);
        CHECK(run.figures.digest == clean.figures.digest);
    }
}

TEST_CASE("simulate: summary.json has every key of a real run's, and digest, events, virtual_s") {
    const SimulatedRun run = simulate(kQuadraticJob, {});
    const auto simulated = boost::json::parse(to_json(run.summary)).as_object();
    Summary real = run.summary;
    real.simulated.reset();
    const auto promised = boost::json::parse(to_json(real)).as_object();
    for (const auto& [key, value] : promised) {
        INFO(std::string(key));
        CHECK(simulated.contains(key));
    }
    CHECK(simulated.at("digest").as_string().size() == 16);
    CHECK(simulated.at("events").to_number<std::uint64_t>() == run.figures.events);
    CHECK(simulated.at("virtual_s").to_number<double>() == run.figures.virtual_s);
    CHECK(simulated.at("tasks").as_object().at("task0").as_object().contains("loss"));
    CHECK_THAT(table(run.summary), Catch::Contains("simulated:"));
}

TEST_CASE("simulate: a run says how torn its pulls were as far as versions tell it") {
    const auto pulls = [](const SimulatedRun& run) {
        return boost::json::parse(to_json(run.summary)).as_object().at("pulls").as_object();
    };
    const std::vector<std::string> apart = {"staleness.policy=ssp", "worker.push_pull=false",
                                            "simulate.network.jitter_s=0.05"};
    const SimulatedRun run = simulate(kQuadraticJob, apart);
    // Every update is of all blocks: what a gradient is based on has one version, or is torn.
    std::map<std::pair<std::uint32_t, std::uint64_t>, std::pair<std::uint64_t, std::uint64_t>> base;
    for (const LedgerEntry& entry : run.ledger) {
        const auto* verdict = std::get_if<VerdictRecord>(&entry.record);
        if (verdict == nullptr) continue;
        for (const VerdictRecord::Row& row : verdict->rows) {
            const std::uint64_t version = row.base.value;
            auto& [lowest, highest] =
                base.try_emplace({verdict->worker.value, verdict->step.value}, version, version)
                    .first->second;
            lowest = std::min(lowest, version);
            highest = std::max(highest, version);
        }
    }
    std::uint64_t torn = 0;
    for (const auto& [step, versions] : base) torn += versions.first < versions.second ? 1 : 0;
    REQUIRE(torn > 10);
    const TornPulls& told = run.summary.torn;
    // Gradients that were computed and not pushed, at the end, are told of too.
    CHECK(told.steps >= torn);
    CHECK(told.steps <= torn + (told.told - base.size()));
    CHECK(told.told >= base.size());
    CHECK(told.sum >= told.steps);
    CHECK(told.largest >= 1);
    CHECK(pulls(run).at("torn_share").to_number<double>() ==
          Approx(static_cast<double>(told.steps) / static_cast<double>(told.told)));
    CHECK(pulls(run).at("torn_mean").to_number<double>() >=
          pulls(run).at("torn_share").to_number<double>());

    std::vector<std::string> one_shard = apart;
    one_shard.emplace_back("servers=1");
    const SimulatedRun whole = simulate(kQuadraticJob, one_shard);
    CHECK(whole.summary.torn.told > 0);
    CHECK(whole.summary.torn.steps == 0);

    // Versions of blocks that are judged each for itself tell nothing.
    const SimulatedRun blocks =
        simulate(kQuadraticJob, {"worker.push_pull=false", "simulate.network.jitter_s=0.05"});
    CHECK(blocks.summary.torn.told == 0);
    CHECK_FALSE(pulls(blocks).contains("torn_share"));
}

TEST_CASE("simulate: the ledger on disk tells of every update") {
    const SimulatedRun run = simulate(kQuadraticJob, {});
    std::uint64_t applied = 0;
    for (const LedgerEntry& entry : run.ledger) {
        const auto* verdict = std::get_if<VerdictRecord>(&entry.record);
        if (verdict == nullptr) continue;
        for (const auto& row : verdict->rows) applied += row.verdict == Verdict::applied ? 1 : 0;
    }
    CHECK(applied == run.summary.books.applied);
}

TEST_CASE("simulate: evaluations during training take no virtual time") {
    const SimulatedRun plain = simulate(kQuadraticJob, {"data.epochs=4"});
    const SimulatedRun scored =
        simulate(kQuadraticJob, {"data.epochs=4", "evaluate.every=3200", "checkpoint.keep=1"});
    require_whole(scored);
    CHECK(scored.view.checkpoints.size() >= 3);
    for (const CheckpointView& checkpoint : scored.view.checkpoints) {
        CHECK(checkpoint.accuracy.size() == 2);
    }
    CHECK(scored.summary.training_s == Approx(plain.summary.training_s).epsilon(0.01));
}

TEST_CASE("simulate: a run that does not end is ended by limit_s, and says who waits") {
    const SimulatedRun run = simulate(kQuadraticJob, {"simulate.limit_s=0.5"});
    REQUIRE(run.outcome.failed);
    CHECK(run.outcome.error.code == ErrorCode::timed_out);
    CHECK_THAT(run.outcome.error.text, Catch::Contains("simulate.limit_s"));
}

TEST_CASE("simulate: every policy runs to its end, and its books balance") {
    for (const std::string& policy : policy_names()) {
        INFO(policy);
        const SimulatedRun run =
            simulate(kQuadraticJob, {"staleness.policy=" + policy, "simulate.network.drop=0.01",
                                     "worker.on_rejection=recompute",
                                     "simulate.compute.distribution=exponential"});
        require_whole(run);
        CHECK(run.loss() < 40);
    }
}

// ---- faults ----

const char* const kFault = R"(
[[simulate.fault]]
)";

TEST_CASE("simulate: a live change of admission in the job file puts the policy under the lead") {
    const SimulatedRun run =
        simulate(kQuadraticJob +
                     "[[simulate.change]]\npolicy = \"async\"\nadmission = \"step\"\nat_s = 0.3\n",
                 {"simulate.thorough=true"});
    CHECK_FALSE(run.outcome.failed);
    std::size_t changes = 0;
    std::size_t decided = 0;
    for (const LedgerEntry& entry : run.ledger) {
        const auto* control = std::get_if<ControlRecord>(&entry.record);
        if (control != nullptr && changes_policy(*control)) {
            ++changes;
            CHECK_THAT(control->what, Catch::Contains("'async', admission step, by"));
        }
        const auto* verdict = std::get_if<VerdictRecord>(&entry.record);
        decided += verdict != nullptr && verdict->decision != Sequence{} ? 1 : 0;
    }
    CHECK(changes == 2);  // of two shards
    CHECK(decided > 0);
}

TEST_CASE("simulate: a live change of the job file is made on every shard, between scopes too") {
    const SimulatedRun run = simulate(kQuadraticJob +
                                          "[[simulate.change]]\npolicy = \"bsp\"\nat_s = 0.3\n"
                                          "[[simulate.change]]\npolicy = \"inverse\"\nat_s = 0.9\n"
                                          // Training is over.
                                          "[[simulate.change]]\npolicy = \"async\"\nat_s = 900\n",
                                      {"simulate.thorough=true"});
    CHECK_FALSE(run.outcome.failed);
    std::size_t to_steps = 0;
    std::size_t changes = 0;
    for (const LedgerEntry& entry : run.ledger) {
        const auto* control = std::get_if<ControlRecord>(&entry.record);
        if (control == nullptr || !changes_policy(*control)) continue;
        ++changes;
        if (control->what.find(
                "'bsp' in place of 'async', admission block, by simulate.change.0") !=
            std::string::npos) {
            ++to_steps;
        }
    }
    CHECK(to_steps == 2);  // of two shards
    CHECK(changes == 4);
}

TEST_CASE("simulate: a crashed worker is lost with its reason, and its batches are leased again") {
    const SimulatedRun run = simulate(
        kQuadraticJob + kFault + "kind = \"crash\"\nnode = \"worker:1\"\nat_s = 0.5\n", {});
    require_whole(run);
    CHECK(run.summary.books.lost > 0);
    CHECK(run.summary.processes_lost == 1);
    CHECK(run.summary.batches_done == 1);
    CHECK(run.summary.batches_leased_again > 0);
    CHECK_THAT(run.view.failures.front().text, Catch::Contains("crashed at 0.500 s"));
}

TEST_CASE("simulate: a crashed server ends the run, and is named first") {
    const SimulatedRun run = simulate(
        kQuadraticJob + kFault + "kind = \"crash\"\nnode = \"server:1\"\nat_s = 0.5\n", {});
    REQUIRE(run.outcome.failed);
    CHECK(run.outcome.error.code == ErrorCode::peer_lost);
    CHECK(run.view.first_failure()->node == node_of(ShardId{1}));
    CHECK(run.figures.virtual_s < 10.5);
}

TEST_CASE("simulate: a worker that stands still goes on, one given up comes back as a zombie") {
    const std::string pause = "kind = \"pause\"\nnode = \"worker:2\"\nat_s = 0.3\nlasts_s = ";
    const SimulatedRun brief = simulate(kQuadraticJob + kFault + pause + "0.7\n", {});
    require_whole(brief);
    CHECK(brief.summary.processes_lost == 0);
    CHECK(brief.summary.books.lost == 0);
    CHECK(brief.summary.staleness.max > 40);  // what it computed before is late
    const SimulatedRun zombie =
        simulate(kQuadraticJob + kFault + pause + "7\n", {"data.epochs=20"});
    require_whole(zombie);
    CHECK(zombie.summary.processes_lost == 1);
    CHECK(zombie.summary.batches_done == 1);
    CHECK_THAT(zombie.view.failures.front().text, Catch::Contains("no sign of life"));
    double refused = 0;
    for (const ProcessView& process : zombie.view.processes) {
        refused += process.value("refused.peer_lost").value_or(0);
    }
    CHECK(refused > 0);
}

TEST_CASE("simulate: a partition heals, whether it cuts both ways or one") {
    const std::string cut =
        "kind = \"partition\"\nnode = \"worker:0\"\npeer = \"server:1\"\nat_s = 0.2\nlasts_s = "
        "0.5\n";
    for (const char* ways : {"both_ways = true\n", "both_ways = false\n"}) {
        const SimulatedRun run =
            simulate(kQuadraticJob + kFault + cut + ways, {"deadlines.reply_s=0.1"});
        require_whole(run);
        CHECK(run.traffic.dropped > 0);
        CHECK(run.summary.books.lost == 0);
        CHECK(run.summary.batches_done == 1);
    }
}

TEST_CASE("simulate: a clog delays, and loses nothing") {
    const SimulatedRun plain = simulate(kQuadraticJob, {"workers=1"});
    const SimulatedRun run = simulate(
        kQuadraticJob + kFault +
            "kind = \"clog\"\nnode = \"worker:0\"\nat_s = 0.5\nlasts_s = 1\ndelay_s = 0.05\n",
        {"workers=1"});
    require_whole(run);
    CHECK(run.traffic.dropped == 0);
    CHECK(run.figures.digest == plain.figures.digest);
    CHECK(run.summary.training_s > plain.summary.training_s + 0.5);
}

TEST_CASE("simulate: a gradient with a NaN is refused, counted, and everything else goes on") {
    const SimulatedRun run =
        simulate(kQuadraticJob + kFault + "kind = \"nan\"\nnode = \"worker:1\"\nat_s = 0.5\n", {});
    require_whole(run);
    CHECK(run.summary.books.rejected > 0);
    CHECK(run.summary.batches_done == 1);
    CHECK(std::isfinite(run.loss()));
}

}  // namespace
}  // namespace detente::test
