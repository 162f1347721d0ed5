// Replays of runs that went on from a checkpoint, and of runs whose policy was changed while they
// went on.
#include <filesystem>

#include "common/ledger_controls.h"
#include "tests/launch/left_behind.h"

namespace detente::test {
namespace {

std::vector<std::string> settings(const std::string& policy,
                                  const std::vector<std::string>& more = {}) {
    std::vector<std::string> all = {"staleness.policy=" + policy,
                                    "model.options.samples=960",
                                    "workers=3",
                                    "rule.name=adam",
                                    "simulate.network.drop=0.03",
                                    "simulate.network.jitter_s=0.004",
                                    "rule.learning_rate=0.01",
                                    "worker.clip_norm=0.5"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
}

PolicyChange change(std::uint64_t number, const std::string& policy,
                    std::vector<std::pair<std::string, std::string>> parameters = {}) {
    return {number, policy, std::move(parameters), "tester@here"};
}

PolicyChange under(PolicyChange change, Admission admission) {
    change.admission = admission;
    return change;
}

std::size_t changes_in(const Recording& recording) {
    std::size_t count = 0;
    for (const RecordedShard& shard : recording.shards) {
        for (const LedgerEntry& entry : shard.entries) {
            const auto* control = std::get_if<ControlRecord>(&entry.record);
            if (control != nullptr && changes_policy(*control)) ++count;
        }
    }
    return count;
}

}  // namespace

TEST_CASE("replay: a run that went on from a checkpoint comes out again bit for bit") {
    for (const char* policy : {"async", "bounded_reject", "dc_asgd", "bsp", "fedbuff"}) {
        INFO(policy);
        const LeftBehind first(settings(policy));
        Course course;
        course.resume = first.run().path;
        const LeftBehind second(settings(policy, {"data.epochs=2"}), "", course);
        const Recording recording = second.recording();
        REQUIRE(recording.shards.front().restored);
        CHECK(recording.shards.front().restored->epoch == Epoch{2});
        CHECK(second.digest() != first.digest());
        require_replays(second, first.books().applied);
    }
}

TEST_CASE("replay: so it does where workers' conflict methods went on from what they remembered") {
    const std::vector<std::vector<std::string>> methods = {
        {"conflict.method=famo", "conflict.w_lr=0.5"},
        {"conflict.method=moco"},
        {"conflict.method=excess_mtl"}};
    for (const std::vector<std::string>& method : methods) {
        INFO(method.front());
        const LeftBehind first(settings("async", method));
        std::vector<std::string> twice = method;
        twice.emplace_back("data.epochs=2");
        Course course;
        course.resume = first.run().path;
        require_replays(LeftBehind(settings("async", twice), "", course), first.books().applied);
    }
}

TEST_CASE("replay: the checkpoint that a run began with is named where it is gone") {
    const LeftBehind first(settings("async"));
    Course course;
    course.resume = first.run().path;
    const LeftBehind second(settings("async", {"data.epochs=2"}), "", course);
    std::filesystem::remove_all(first.run().path + "/checkpoints");
    const Recording recording = second.recording();
    const auto replay = Replay::create(recording, second.plan(), engines_for(recording.job), {});
    REQUIRE(replay.has_error());
    CHECK_THAT(replay.error().text, Catch::Contains("this run began with checkpoint") &&
                                        Catch::Contains(first.run().path) &&
                                        Catch::Contains("a replay needs it where it was"));
}

TEST_CASE("replay: ledgers of which only some begin with a checkpoint are not of one run") {
    const LeftBehind first(settings("async"));
    Course course;
    course.resume = first.run().path;
    const LeftBehind second(settings("async", {"data.epochs=2"}), "", course);
    const std::string lead = "/" + ledger_file_name(node_of(ShardId{0}), Incarnation{1});
    std::filesystem::copy_file(first.run().ledger_dir() + lead, second.run().ledger_dir() + lead,
                               std::filesystem::copy_options::overwrite_existing);
    const auto recording = read_recording(second.run().path, {});
    REQUIRE(recording.has_error());
    CHECK(recording.error().code == ErrorCode::bad_message);
    CHECK_THAT(recording.error().text, Catch::Contains("shard:0 with the first weights") &&
                                           Catch::Contains("are not of one run"));
}

TEST_CASE("replay: a run whose policy was changed while it went on comes out again bit for bit") {
    struct Case {
        const char* from;
        std::vector<PolicyChange> to;
        std::vector<std::string> more;
    };
    const std::vector<Case> cases = {
        {"async", {change(1, "dc_asgd", {{"lambda", "0.1"}}), change(2, "inverse")}, {}},
        {"dc_asgd", {change(1, "gap_aware"), change(2, "bounded_reject", {{"tau_max", "1"}})}, {}},
        {"bsp", {change(1, "fedbuff"), change(2, "ssp", {{"s", "2"}})}, {}},
        {"async", {change(1, "dc_asgd")}, {"staleness.admission=step"}},
        // Between the scopes: nothing is lost, or the first would still be made at the second's
        // time.
        {"async",
         {change(1, "bsp"), change(2, "dc_asgd", {{"lambda", "0.1"}})},
         {"simulate.network.drop=0", "data.epochs=2"}},
        {"fedbuff",
         {change(1, "gap_aware"), change(2, "ssp", {{"s", "2"}})},
         {"simulate.network.drop=0", "data.epochs=2"}},
        // By admission; another policy keeps to it.
        {"async",
         {under(change(1, "dc_asgd", {{"lambda", "0.1"}}), Admission::step), change(2, "inverse")},
         {"simulate.network.drop=0", "data.epochs=2"}},
        {"dc_asgd",
         {under(change(1, "dc_asgd"), Admission::block)},
         {"staleness.admission=step", "simulate.network.drop=0"}},
    };
    for (const Case& one : cases) {
        INFO(one.from << " to " << one.to.front().policy);
        Course course;
        course.changes = one.to;
        const LeftBehind left(settings(one.from, one.more), "", course);
        CHECK(changes_in(left.recording()) == one.to.size() * left.job().shards());
        require_replays(left);
    }
}

TEST_CASE("policy change: a run that is watched thoroughly holds each policy to its own bound") {
    struct Case {
        const char* from;
        std::vector<PolicyChange> to;
        std::vector<std::string> more;
    };
    const std::vector<Case> cases = {
        {"bounded_reject",
         {change(1, "bounded_reject", {{"tau_max", "0"}}),
          change(2, "delay_adaptive", {{"form", "drop"}, {"tau_c", "1"}})},
         {}},
        {"bounded_reject",
         {change(1, "ringmaster", {{"r", "2"}}), change(2, "bsp")},
         {"staleness.admission=step"}},
        {"bsp", {change(1, "fedbuff", {{"k", "2"}}), change(2, "ringmaster", {{"r", "1"}})}, {}},
        {"async", {change(1, "dc_asgd"), change(2, "rennala")}, {"staleness.admission=step"}},
        {"bounded_reject",
         {change(1, "bsp"), change(2, "bounded_reject", {{"tau_max", "0"}})},
         {"simulate.network.drop=0"}},
        {"ssp",
         {change(1, "bounded_reject", {{"tau_max", "1"}}), change(2, "ssp")},
         {"simulate.network.drop=0"}},
        {"bounded_reject",
         {under(change(1, "bounded_reject", {{"tau_max", "1"}}), Admission::step),
          under(change(2, "bounded_reject", {{"tau_max", "0"}}), Admission::block)},
         {"simulate.network.drop=0"}},
    };
    for (const Case& one : cases) {
        INFO(one.from << " to " << one.to.front().policy);
        std::vector<std::string> more = one.more;
        more.emplace_back("simulate.thorough=true");
        more.emplace_back("data.epochs=2");
        Course course;
        course.changes = one.to;
        const LeftBehind left(settings(one.from, more), "", course);
        CHECK(changes_in(left.recording()) == one.to.size() * left.job().shards());
    }
}

TEST_CASE("ledger: a change of policy and a restore are read back as they were written") {
    const PolicyChange plain = change(1, "async");
    const PolicyChange full = change(2, "cipher", {{"a", "1"}, {"mode", "two words"}, {"b", "x"}});
    PolicyChange to_step = full;
    to_step.admission = Admission::step;
    PolicyChange to_block = plain;
    to_block.admission = Admission::block;
    to_block.by = "me, admission step, by somebody's leave";
    for (const PolicyChange& one : {plain, full, to_step, to_block}) {
        const auto read = changed_policy(policy_changed(one, "ssp", {Epoch{1}, 7}));
        REQUIRE(read);
        CHECK(read->policy.name == one.policy);
        CHECK(read->policy.parameters == one.parameters);
        CHECK(read->admission == one.admission);
        // Neither half of one that is made later is taken for the change.
        for (const ControlRecord& other : {policy_change_decided(one, {Epoch{1}, 7}),
                                           policy_change_overtaken(one, {Epoch{1}, 7})}) {
            CHECK_FALSE(changes_policy(other));
            CHECK_FALSE(changed_policy(other));
        }
    }
    const RestoredFrom from{"/a folder under epoch 3: of mine/checkpoints/4", Epoch{5}};
    CHECK(restored_from(restored_shard(from, 12)) == from);
    for (const char* other : {"started", "restored", "restored x under epoch 1", "staleness policy",
                              "staleness policy 'a"}) {
        CHECK_FALSE(restored_from({other}));
        CHECK_FALSE(changed_policy({other}));
    }
}

}  // namespace detente::test
