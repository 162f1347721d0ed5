// Runs on virtual time that lose a server and are begun again from their last checkpoint.
#include <filesystem>
#include <map>

#include "launch/conflict_ledger.h"
#include "launch/fuzz_case.h"
#include "ps/checkpoint.h"
#include "tests/launch/simulated_run.h"

namespace detente::test {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRestart =
    "\n[checkpoint]\nevery = 320\n[deadlines]\nheartbeat_s = 0.02\n[simulate]\nthorough = true\n"
    "[[simulate.fault]]\nkind = \"restart\"\nnode = \"server:1\"\nat_s = 0.7\nlasts_s = 0.01\n";

std::string fault(const std::string& kind, double at_s, double lasts_s = 0.01) {
    return "[[simulate.fault]]\nkind = \"" + kind +
           "\"\nnode = \"server:1\"\nat_s = " + std::to_string(at_s) +
           (kind == "restart" ? "\nlasts_s = " + std::to_string(lasts_s) : "") + "\n";
}

// A simulation whose files are still there to be looked at.
class Simulated {
  public:
    explicit Simulated(const Job& job, const std::string& resume = "") : job_(job) {
        SimulationSetup setup = setup_of(job_, folder_ / "run");
        setup.resume = resume;
        auto made = Simulation::create(std::move(setup));
        if (made.has_error()) {
            outcome = {true, made.error()};
            return;
        }
        simulation_ = std::move(*made);
        outcome = simulation_->run([] { return std::nullopt; });
    }
    const ClusterView& view() const { return simulation_->view(); }
    SimulatedRestarts restarts() const { return simulation_->restarts(); }
    std::string folder() const { return folder_ / "run"; }

    // Of the shards of the newest generation.
    template <class Record>
    std::vector<Record> recorded() const {
        std::vector<Record> records;
        for (const LedgerEntry& entry : ledger_of(simulation_->directory(), job_)) {
            if (const auto* record = std::get_if<Record>(&entry.record)) records.push_back(*record);
        }
        return records;
    }
    std::uint64_t blocks_lost() const {
        std::uint64_t blocks = 0;
        for (const LostRecord& lost : recorded<LostRecord>()) blocks += lost.blocks.size();
        for (const ClosedRecord& closed : recorded<ClosedRecord>()) {
            blocks += closed.lost ? closed.blocks : 0;
        }
        for (const VerdictRecord& verdict : recorded<VerdictRecord>()) {
            for (const auto& row : verdict.rows) blocks += row.verdict == Verdict::lost ? 1 : 0;
        }
        return blocks;
    }
    Outcome outcome;

  private:
    Job job_;
    TemporaryFolder folder_;
    std::unique_ptr<Simulation> simulation_;
};

Job restarted(const std::vector<std::string>& overrides = {}, const std::string& more = "") {
    return job_of(kQuadraticJob + kRestart + more, overrides);
}

TEST_CASE("restart: a run that loses a server goes on from its checkpoint and lists what is lost") {
    std::uint64_t taken_back = 0;
    for (const char* policy : {"async", "bounded_reject", "bsp", "ssp", "fedbuff", "kardam"}) {
        INFO(policy);
        const Simulated run(restarted({std::string("staleness.policy=") + policy}));
        INFO(run.outcome.error.text);
        REQUIRE_FALSE(run.outcome.failed);
        CHECK(run.restarts().done == 1);
        CHECK(run.restarts().older_messages > 0);
        CHECK(batches_done(run.view()) == 1);
        CHECK_FALSE(run.view().resumed_from.empty());
        const Books books = total_books(run.view());
        CHECK(books.in_flight == 0);
        CHECK(books.lost == run.blocks_lost());
        CHECK(books.lost > 0);
        taken_back += total_taken_back(run.view());
        for (const VerdictRecord& record : run.recorded<VerdictRecord>()) {
            REQUIRE(record.epoch == Epoch{2});
            REQUIRE(record.incarnation == Incarnation{2});
        }
    }
    CHECK(taken_back > 0);
}

TEST_CASE("restart: a second one makes a third epoch and incarnation") {
    const Simulated run(restarted({}, fault("restart", 1.2)));
    INFO(run.outcome.error.text);
    REQUIRE_FALSE(run.outcome.failed);
    CHECK(run.restarts().done == 2);
    CHECK(batches_done(run.view()) == 1);
    const auto verdicts = run.recorded<VerdictRecord>();
    REQUIRE_FALSE(verdicts.empty());
    CHECK(verdicts.front().epoch == Epoch{3});
    CHECK(verdicts.front().incarnation == Incarnation{3});
}

TEST_CASE("restart: the same job is begun again in the same way") {
    const Simulated first(restarted());
    const Simulated again(restarted());
    CHECK(total_books(first.view()).lost == total_books(again.view()).lost);
    CHECK(first.view().now == again.view().now);
    CHECK(first.recorded<VerdictRecord>().size() == again.recorded<VerdictRecord>().size());
}

TEST_CASE("restart: without a checkpoint there is nothing to go on from") {
    const Simulated run(restarted({"checkpoint.every=0"}));
    REQUIRE(run.outcome.failed);
    CHECK(run.outcome.error.code == ErrorCode::bad_checkpoint);
    CHECK_THAT(run.outcome.error.text, Catch::Contains("has no complete checkpoint"));
    CHECK(run.restarts().expected);
}

// With seed 3 the flipped bit is in a tensor's name: the slice that no longer had its block's
// weights ended the program by an invariant before its checksum was looked at.
TEST_CASE("restart: a torn or altered slice is refused by one error that names the file") {
    for (const char* kind : {"torn_slice", "altered_slice"}) {
        for (const char* seed : {"seed=1", "seed=2", "seed=3", "seed=4"}) {
            INFO(kind << ' ' << seed);
            const Simulated run(restarted({seed}, fault(kind, 0)));
            REQUIRE(run.outcome.failed);
            CHECK(run.outcome.error.code == ErrorCode::bad_checkpoint);
            CHECK_THAT(run.outcome.error.text, Catch::Contains("shard-1.safetensors"));
            CHECK_THAT(run.outcome.error.text, Catch::Contains("use another checkpoint"));
            CHECK(run.restarts().expected);
            CHECK(run.restarts().done == 0);
        }
    }
}

TEST_CASE("restart: a checkpoint whose manifest was not renamed is none and the one before it is") {
    const Simulated whole(restarted());
    const Simulated lost(restarted({}, fault("lost_manifest", 0)));
    INFO(lost.outcome.error.text);
    REQUIRE_FALSE(lost.outcome.failed);
    CHECK(whole.view().samples_before > lost.view().samples_before);
    CHECK(total_taken_back(lost.view()) > total_taken_back(whole.view()));
    SECTION("if there is one") {
        const Simulated none(restarted({"checkpoint.keep=1"}, fault("lost_manifest", 0)));
        REQUIRE(none.outcome.failed);
        CHECK(none.outcome.error.code == ErrorCode::bad_checkpoint);
        CHECK(none.restarts().expected);
    }
}

TEST_CASE("resume: a simulated run goes on from the checkpoint of another") {
    const Job job = job_of(kQuadraticJob, {"simulate.thorough=true"});
    const Simulated first(job);
    REQUIRE_FALSE(first.outcome.failed);
    const Simulated longer(job_of(kQuadraticJob, {"data.epochs=2", "simulate.thorough=true"}),
                           first.folder());
    INFO(longer.outcome.error.text);
    REQUIRE_FALSE(longer.outcome.failed);
    CHECK(longer.view().samples_before == 3200);
    CHECK(total_samples(longer.view()) == 6400);
    CHECK(batches_done(longer.view()) == 1);
    const Simulated other(job_of(kQuadraticJob, {"model.options.dimension=44"}), first.folder());
    REQUIRE(other.outcome.failed);
    CHECK(other.outcome.error.code == ErrorCode::bad_checkpoint);
    const Simulated nowhere(job, first.folder() + "/ledger");
    REQUIRE(nowhere.outcome.failed);
    CHECK_THAT(nowhere.outcome.error.text, Catch::Contains("has no complete checkpoint"));
}

// Of each worker, in its first step of a run.
std::map<std::uint32_t, std::vector<float>> first_weights(const std::string& folder) {
    std::map<std::uint32_t, std::vector<float>> weights;
    const auto read =
        read_resolved_steps(RunDirectory{folder}, [&](const auto&, const ResolvedStep& step) {
            weights.emplace(step.worker.value, step.weights.at(0));
        });
    REQUIRE(read.has_value());
    return weights;
}

TEST_CASE("resume: workers' conflict methods go on from what they remembered") {
    const std::vector<std::string> famo = {"conflict.method=famo", "conflict.w_lr=0.5"};
    std::vector<std::string> twice = famo;
    twice.emplace_back("data.epochs=2");
    const Simulated first(job_of(kQuadraticJob, famo));
    REQUIRE_FALSE(first.outcome.failed);
    const auto manifest = read_manifest(first.folder() + "/checkpoints/1");
    REQUIRE(manifest.has_value());
    REQUIRE(manifest->methods.size() == 3);
    CHECK(manifest->methods[1].worker == WorkerId{1});
    CHECK(manifest->methods[1].state.method == "famo");
    const Simulated longer(job_of(kQuadraticJob, twice), first.folder());
    INFO(longer.outcome.error.text);
    REQUIRE_FALSE(longer.outcome.failed);
    const auto fresh = first_weights(first.folder());
    const auto resumed = first_weights(longer.folder());
    REQUIRE(resumed.size() == 3);
    for (const auto& [worker, weights] : fresh) {
        INFO("worker " << worker);
        CHECK(weights != resumed.at(worker));
    }
    // Another method begins anew, and the run goes on.
    const Simulated other(job_of(kQuadraticJob, {"data.epochs=2", "conflict.method=dwa"}),
                          first.folder());
    CHECK_FALSE(other.outcome.failed);
}

TEST_CASE("restart: a conflict method's state is in checkpoints made while training goes on") {
    const Simulated run(restarted({"conflict.method=famo", "conflict.w_lr=0.5"}));
    INFO(run.outcome.error.text);
    REQUIRE_FALSE(run.outcome.failed);
    CHECK(run.restarts().done == 1);
    const auto manifest = read_manifest(run.view().resumed_from);
    REQUIRE(manifest.has_value());
    REQUIRE(manifest->methods.size() == 3);
    for (const WorkerMethod& saved : manifest->methods) CHECK(saved.state.groups == 1);
}

TEST_CASE("fuzz: restarts in its cases come about and some are refused as they should be") {
    std::map<std::string, int> seen;
    for (std::uint64_t seed = 1; seed <= 250; ++seed) {
        const Job job = fuzz_case(seed);
        const bool restarts =
            std::any_of(job.simulate.faults.begin(), job.simulate.faults.end(),
                        [](const FaultConfig& one) { return one.kind == FaultKind::restart; });
        if (!restarts) continue;
        const Simulated run(job);
        ++seen["cases"];
        seen["done"] += run.restarts().done > 0 ? 1 : 0;
        seen["twice"] += run.restarts().done > 1 ? 1 : 0;
        seen["refused"] += run.restarts().refused ? 1 : 0;
        seen["heard late"] += run.restarts().older_messages > 0 ? 1 : 0;
        if (run.restarts().done > 0) seen["lost"] += total_taken_back(run.view()) > 0 ? 1 : 0;
    }
    CAPTURE(seen);
    CHECK(seen["cases"] > 60);
    CHECK(seen["done"] > 25);
    CHECK(seen["twice"] > 0);
    CHECK(seen["refused"] > 3);
    CHECK(seen["heard late"] > 25);
    CHECK(seen["lost"] > 15);
}

TEST_CASE("restart: a server that is lost around a change between scopes costs no batch") {
    for (const bool to_steps : {true, false}) {
        for (const char* at_s : {"0.45", "0.6", "0.66", "0.68", "0.69", "0.699"}) {
            INFO((to_steps ? "to steps" : "to blocks") << " at " << at_s);
            const std::string change = std::string("[[simulate.change]]\npolicy = \"") +
                                       (to_steps ? "ssp" : "async") + "\"\nat_s = " + at_s + "\n";
            const Simulated run(
                restarted({to_steps ? "staleness.policy=async" : "staleness.policy=ssp"}, change));
            INFO(run.outcome.error.text);
            REQUIRE_FALSE(run.outcome.failed);
            CHECK(run.restarts().done == 1);
            CHECK(total_books(run.view()).in_flight == 0);
            CHECK(batches_done(run.view()) == 1);
            // The job that is begun again has its own policy, and so have all its shards.
            for (const ControlRecord& one : run.recorded<ControlRecord>()) {
                CHECK_FALSE(changes_policy(one));
            }
        }
    }
}

}  // namespace
}  // namespace detente::test
