// Live changes of the staleness policy on whole simulated clusters under faults: decided once by
// the lead shard, made by every shard at the same point of the order, and in every ledger.
#include "tests/sim/policy_changes.h"

namespace detente::test {

TEST_CASE("policy change: between any two policies that decide steps, under faults") {
    const std::vector<std::string>& policies = step_policies();
    for (std::size_t from = 0; from < policies.size(); ++from) {
        for (std::size_t at = 0; at < policies.size(); ++at) {
            INFO(policies[from] << " to " << policies[at]);
            ClusterOptions options = cluster_of(policies[from], 1 + from * 16 + at);
            options.world.network.drop = 0.05;
            options.world.network.duplicate = 0.05;
            options.world.network.jitter = Nanos(1'000'000);
            Cluster cluster(options);
            ask_at(cluster, Nanos(12'000'000), to(policies[at]));
            require_finished(cluster, options);
            require_no_failure(cluster);
            CHECK(cluster.books().lost == 0);
            const auto changes = changes_in_ledgers(cluster);
            for (const auto& one : changes) {
                REQUIRE(one.size() == 1);
                CHECK(one[0] == changes[0][0]);  // the same decision
                CHECK(one[0].find("by tester@here") != std::string::npos);
            }
            const auto& answers = cluster.coordinator().changed;
            REQUIRE(answers.size() == 1);
            CHECK(answers[0].error.empty());
            CHECK(answers[0].sequence.number > 0);
        }
    }
}

TEST_CASE("policy change: under step admission to policies that keep vectors, and away again") {
    for (const std::string policy :
         {"dc_asgd", "gap_aware", "delayed_nesterov", "dana_zero", "kardam", "bsp"}) {
        for (std::uint64_t seed = 1; seed <= 5; ++seed) {
            INFO(policy << " seed " << seed);
            ClusterOptions options = cluster_of("async", seed);
            options.job.admission = Admission::step;
            options.world.network.drop = 0.05;
            options.world.network.jitter = Nanos(1'000'000);
            Cluster cluster(options);
            ask_at(cluster, Nanos(8'000'000), to(policy, 1));
            ask_at(cluster, Nanos(16'000'000), to("async", 2));
            require_finished(cluster, options);
            require_no_failure(cluster);
            for (const auto& one : changes_in_ledgers(cluster)) CHECK(one.size() == 2);
        }
    }
}

TEST_CASE(
    "policy change: under block scope every shard makes it, though news are lost and doubled") {
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
        INFO("seed " << seed);
        ClusterOptions options = cluster_of("async", seed);
        options.job.servers = 3;
        options.job.data_epochs = 6;
        options.job.reply_deadline = std::chrono::milliseconds(4);
        options.world.network.drop = 0.3;
        options.world.network.duplicate = 0.1;
        options.world.network.jitter = Nanos(1'000'000);
        Cluster cluster(options);
        PolicyChange strict = to("bounded_reject");
        strict.parameters = {{"tau_max", "0"}};
        ask_at(cluster, Nanos(5'000'000), strict);
        REQUIRE(cluster.run());
        require_no_failure(cluster);
        CHECK(cluster.books().in_flight == 0);
        for (const auto& one : changes_in_ledgers(cluster)) CHECK(one.size() == 1);
        CHECK(cluster.books().rejected > 0);
        // Nothing staler than that is applied after it.
        for (std::uint32_t i = 0; i < 3; ++i) {
            bool changed = false;
            for (const LedgerEntry& entry : cluster.world().ledger(node_of(ShardId{i}))) {
                const auto* control = std::get_if<ControlRecord>(&entry.record);
                changed = changed ||
                          (control != nullptr && control->what.starts_with("staleness policy"));
                const auto* push = std::get_if<VerdictRecord>(&entry.record);
                if (!changed || push == nullptr) continue;
                for (const auto& row : push->rows) {
                    if (row.verdict == Verdict::applied) REQUIRE(row.staleness == 0);
                }
            }
        }
    }
}

TEST_CASE("policy change: what this run cannot change to is refused, and nothing changes") {
    struct Case {
        std::string from;
        std::string to;
        ErrorCode code;
        std::string says;
        std::function<void(Job&)> more = [](Job&) {};
    };
    const std::vector<Case> cases = {
        {"async", "bsp", ErrorCode::not_supported, "worker.pull_ahead",
         [](Job& job) {
             job.pull_ahead = 1;
             job.push_pull = false;
         }},
        {"bsp", "async", ErrorCode::not_supported, "worker.consistent_pulls",
         [](Job& job) { job.consistent_pulls = true; }},
        {"async", "easgd", ErrorCode::not_supported, "runs in the workers"},
        {"dana_slim", "async", ErrorCode::not_supported, "runs in the workers"},
        {"async", "asynk", ErrorCode::bad_job, "did you mean 'async'"}};
    for (const Case& one : cases) {
        INFO(one.from << " to " << one.to);
        ClusterOptions options = cluster_of(one.from, 3);
        one.more(options.job);
        Cluster cluster(options);
        ask_at(cluster, Nanos(5'000'000), to(one.to));
        REQUIRE(cluster.run());
        require_no_failure(cluster);
        const auto& answers = cluster.coordinator().changed;
        REQUIRE(answers.size() == 1);
        CHECK(answers[0].code == one.code);
        CHECK(answers[0].error.find(one.says) != std::string::npos);
        for (const auto& texts : changes_in_ledgers(cluster)) CHECK(texts.empty());
    }
}

}  // namespace detente::test
