// Live changes between block scope and step scope on whole simulated clusters under faults: a step
// is judged one way on all shards, and no batch and no worker is left behind.
#include <set>

#include "tests/sim/policy_changes.h"

namespace detente::test {
namespace {

void make_faulty(ClusterOptions& options) {
    options.world.network.drop = 0.05;
    options.world.network.duplicate = 0.05;
    options.world.network.jitter = Nanos(1'000'000);
}

// Steps by who judged them; and each shard's updates by decisions of the lead, in its order.
struct Judged {
    std::set<Applied> alone;
    std::set<Applied> decided;
    std::vector<std::vector<Applied>> order;
    std::uint64_t applied_alone = 0;
    std::uint64_t applied_decided = 0;
};

Judged judged_in(Cluster& cluster) {
    Judged judged;
    for (std::uint32_t i = 0; i < cluster.job().shards(); ++i) {
        if (cluster.plan().by_shard[i].empty()) continue;
        std::vector<Applied>& order = judged.order.emplace_back();
        for (const LedgerEntry& entry : cluster.world().ledger(node_of(ShardId{i}))) {
            const auto* record = std::get_if<VerdictRecord>(&entry.record);
            if (record == nullptr || record->rows.front().verdict == Verdict::lost) continue;
            const Applied one{record->worker.value, record->incarnation.value, record->step.value};
            const bool by_lead = record->decision != Sequence{};
            (by_lead ? judged.decided : judged.alone).insert(one);
            if (record->rows.front().verdict != Verdict::applied) continue;
            ++(by_lead ? judged.applied_decided : judged.applied_alone);
            if (by_lead && (order.empty() || order.back() != one)) order.push_back(one);
        }
    }
    return judged;
}

// Whatever changed in between.
Judged require_whole(Cluster& cluster, const ClusterOptions& options) {
    REQUIRE(cluster.run());
    require_no_failure(cluster);
    REQUIRE(cluster.books().in_flight == 0);
    REQUIRE(cluster.finished_batches == batches_of(options));
    Judged judged = judged_in(cluster);
    for (const Applied& step : judged.decided) {
        const auto& [worker, incarnation, number] = step;
        INFO("worker " << worker << " incarnation " << incarnation << " step " << number);
        REQUIRE_FALSE(judged.alone.contains(step));
    }
    for (const auto& order : judged.order) REQUIRE(order == judged.order.front());
    return judged;
}

// Whether every update behind the change was judged by the lead, or by the shard alone, and every
// one before it the other way.
void require_sharp(Cluster& cluster, bool to_steps) {
    for (std::uint32_t i = 0; i < cluster.job().shards(); ++i) {
        bool changed = false;
        for (const LedgerEntry& entry : cluster.world().ledger(node_of(ShardId{i}))) {
            const auto* control = std::get_if<ControlRecord>(&entry.record);
            changed =
                changed || (control != nullptr && control->what.starts_with("staleness policy"));
            const auto* record = std::get_if<VerdictRecord>(&entry.record);
            if (record == nullptr || record->rows.front().verdict != Verdict::applied) continue;
            const bool by_lead = record->decision != Sequence{};
            REQUIRE(by_lead == (changed == to_steps));
        }
    }
}

void require_one_change(Cluster& cluster) {
    const auto changes = changes_in_ledgers(cluster);
    for (const auto& one : changes) {
        REQUIRE(one.size() == 1);
        CHECK(one[0] == changes[0][0]);  // the same decision
    }
    const auto& answers = cluster.coordinator().changed;
    REQUIRE(answers.size() == 1);
    CHECK(answers[0].error.empty());
}

}  // namespace

TEST_CASE("scope change: from block scope to any policy that decides steps and under faults") {
    for (const std::string& policy : step_policies()) {
        for (std::uint64_t seed = 1; seed <= 4; ++seed) {
            INFO(policy << " seed " << seed);
            ClusterOptions options = cluster_of("async", seed);
            options.job.servers = 1 + static_cast<std::uint32_t>(seed % 3);
            options.job.data_epochs = 4;
            options.job.push_pull = seed % 2 == 0;
            make_faulty(options);
            Cluster cluster(options);
            ask_at(cluster, Nanos(8'000'000), to(policy));
            const Judged judged = require_whole(cluster, options);
            require_one_change(cluster);
            require_sharp(cluster, true);
            CHECK(cluster.books().lost == 0);
            CHECK(judged.applied_alone > 0);
            CHECK(judged.applied_decided > 0);
        }
    }
}

TEST_CASE("scope change: from any policy that decides steps to block scope and under faults") {
    for (const std::string& policy : step_policies()) {
        for (std::uint64_t seed = 1; seed <= 4; ++seed) {
            INFO(policy << " seed " << seed);
            ClusterOptions options = cluster_of(policy, seed);
            options.job.servers = 1 + static_cast<std::uint32_t>(seed % 3);
            options.job.data_epochs = 4;
            options.job.push_pull = seed % 2 == 0;
            make_faulty(options);
            Cluster cluster(options);
            ask_at(cluster, Nanos(8'000'000), to("async"));
            const Judged judged = require_whole(cluster, options);
            require_one_change(cluster);
            require_sharp(cluster, false);
            CHECK(cluster.books().lost == 0);
            CHECK(judged.applied_alone > 0);
        }
    }
}

TEST_CASE("scope change: by admission alone, the policy as it was, and under faults") {
    std::uint64_t decided_before = 0;  // a change to block scope may come before any step ended
    for (const std::string policy : {"async", "bounded_reject", "dc_asgd"}) {
        for (std::uint64_t seed = 1; seed <= 8; ++seed) {
            INFO(policy << " seed " << seed);
            const bool to_steps = seed % 2 == 0;
            ClusterOptions options = cluster_of(policy, seed);
            options.job.admission = to_steps ? Admission::block : Admission::step;
            options.job.servers = 1 + static_cast<std::uint32_t>(seed % 3);
            options.job.data_epochs = 4;
            options.job.push_pull = seed % 4 < 2;
            make_faulty(options);
            Cluster cluster(options);
            PolicyChange change = to(policy);
            change.admission = to_steps ? Admission::step : Admission::block;
            ask_at(cluster, Nanos(8'000'000), change);
            const Judged judged = require_whole(cluster, options);
            require_one_change(cluster);
            require_sharp(cluster, to_steps);
            CHECK(cluster.books().lost == 0);
            CHECK(judged.applied_alone > 0);
            if (to_steps) CHECK(judged.applied_decided > 0);
            if (!to_steps) decided_before += judged.applied_decided;
        }
    }
    CHECK(decided_before > 0);
}

TEST_CASE("scope change: there and back and there again, whenever it is asked for") {
    std::uint64_t all = 0;
    for (std::uint64_t seed = 1; seed <= 40; ++seed) {
        INFO("seed " << seed);
        ClusterOptions options = cluster_of("async", seed);
        options.job.servers = 3;
        options.job.data_epochs = 3;
        options.job.reply_deadline = std::chrono::milliseconds(4);
        options.job.push_pull = seed % 2 == 0;
        make_faulty(options);
        Cluster cluster(options);
        const Nanos first(1'000'000 + static_cast<std::int64_t>(seed) * 700'000);
        ask_at(cluster, first, to("ssp", 1));
        ask_at(cluster, first + Nanos(9'000'000), to("async", 2));
        ask_at(cluster, first + Nanos(15'000'000), to("bsp", 3));
        require_whole(cluster, options);
        // One that is asked for at the end of training may be made nowhere, or not by all.
        const auto changes = changes_in_ledgers(cluster);
        for (const auto& one : changes) {
            const std::size_t same = std::min(one.size(), changes[0].size());
            CHECK(std::equal(one.begin(), one.begin() + static_cast<std::ptrdiff_t>(same),
                             changes[0].begin()));
        }
        all += changes[0].size() == 3 ? 1 : 0;
    }
    CHECK(all > 5);
}

TEST_CASE("scope change: what was rejected in part is repaired whole where steps are decided") {
    for (std::uint64_t seed = 1; seed <= 30; ++seed) {
        INFO("seed " << seed);
        ClusterOptions options = cluster_of("bounded_reject", seed);
        options.job.policy.parameters = {{"tau_max", "0"}};
        options.job.servers = 2 + static_cast<std::uint32_t>(seed % 2);
        options.job.on_rejection = seed % 3 == 0 ? OnRejection::compensate : OnRejection::recompute;
        options.world.network.jitter = Nanos(1'500'000);
        if (seed > 15) make_faulty(options);
        Cluster cluster(options);
        ask_at(cluster, Nanos(4'000'000), to(seed % 2 == 0 ? "bsp" : "softsync"));
        require_whole(cluster, options);
        require_one_change(cluster);
        require_sharp(cluster, true);
    }
}

TEST_CASE("scope change: workers that stand still or are lost while it is made tear nothing") {
    for (std::uint64_t seed = 1; seed <= 24; ++seed) {
        INFO("seed " << seed);
        const bool to_steps = seed % 2 == 0;
        ClusterOptions options = cluster_of(to_steps ? "async" : "ssp", seed);
        options.job.data_epochs = 3;
        make_faulty(options);
        Cluster cluster(options);
        ask_at(cluster, Nanos(6'000'000), to(to_steps ? "bsp" : "async"));
        const WorkerId victim{1};
        const Nanos when(5'000'000 + static_cast<std::int64_t>(seed) * 100'000);
        cluster.after_start(when, [&] {
            sim::World& world = cluster.world();
            if (!world.alive(node_of(victim))) return;
            if (seed % 3 == 0) return world.pause(node_of(victim), Nanos(30'000'000));
            world.crash(node_of(victim));
            if (seed % 3 == 1) {
                return world.announce_down(node_of(victim), Incarnation{1}, "lost");
            }
            cluster.add_worker(victim, Incarnation{2}, options.model);
            Message welcome;
            welcome.envelope.from = kCoordinator;
            welcome.body = Welcome{};
            world.post(node_of(victim), Received{welcome});
            Message go = welcome;
            go.body = Go{};
            world.post(node_of(victim), Received{go});
        });
        require_whole(cluster, options);
        for (const auto& one : changes_in_ledgers(cluster)) CHECK(one.size() == 1);
    }
}

TEST_CASE("scope change: a checkpoint that is asked for meanwhile is one slice of each shard") {
    for (std::uint64_t seed = 1; seed <= 40; ++seed) {
        INFO("seed " << seed);
        const bool to_steps = seed % 2 == 0;
        ClusterOptions options = cluster_of(to_steps ? "async" : "ssp", seed);
        options.job.servers = 3;
        options.job.data_epochs = 3;
        make_faulty(options);
        Cluster cluster(options);
        ask_at(cluster, Nanos(6'000'000), to(to_steps ? "ssp" : "async"));
        cluster.after_start(Nanos(4'500'000 + static_cast<std::int64_t>(seed) * 100'000), [&] {
            cluster.send_to_coordinator(CheckpointRequest{1, "/checkpoints/1"});
        });
        require_whole(cluster, options);
        CHECK(cluster.coordinator().checkpoints.size() == options.job.shards());
        for (std::uint32_t i = 0; i < options.job.shards(); ++i) {
            std::size_t slices = 0;
            for (const LedgerEntry& entry : cluster.world().ledger(node_of(ShardId{i}))) {
                const auto* control = std::get_if<ControlRecord>(&entry.record);
                slices += control != nullptr && control->what.starts_with("checkpoint 1") ? 1 : 0;
            }
            CHECK(slices == 1);
        }
    }
}

TEST_CASE("scope change: while one is being made the next is refused, by name") {
    ClusterOptions options = cluster_of("async", 7);
    options.job.data_epochs = 3;
    Cluster cluster(options);
    ask_at(cluster, Nanos(6'000'000), to("bsp", 1));
    ask_at(cluster, Nanos(6'000'001), to("ssp", 2));
    require_whole(cluster, options);
    const auto& answers = cluster.coordinator().changed;
    REQUIRE(answers.size() == 2);
    CHECK(answers[0].error.empty());
    CHECK(answers[1].code == ErrorCode::not_supported);
    CHECK(answers[1].error.find("still being made: worker:") != std::string::npos);
    for (const auto& one : changes_in_ledgers(cluster)) CHECK(one.size() == 1);
}

TEST_CASE("scope change: bsp that was changed to averages all workers, and nothing is stale") {
    ClusterOptions options = cluster_of("async", 3);
    options.job.data_epochs = 4;
    Cluster cluster(options);
    ask_at(cluster, Nanos(6'000'000), to("bsp"));
    require_whole(cluster, options);
    std::map<Version, int> together;
    for (const LedgerEntry& entry : cluster.world().ledger(node_of(ShardId{0}))) {
        const auto* record = std::get_if<VerdictRecord>(&entry.record);
        if (record == nullptr || record->rows.front().verdict != Verdict::applied) continue;
        if (record->decision == Sequence{}) continue;
        CHECK(record->rows.front().staleness == 0);
        if (record->part.value == 0) ++together[record->rows.front().version];
    }
    int full = 0;
    for (const auto& [version, count] : together) full += count == 4 ? 1 : 0;
    REQUIRE(!together.empty());
    // At first those whose weights are older are rejected; at last there are fewer batches.
    CHECK(full + 8 >= static_cast<int>(together.size()));
    CHECK(full > 10);
}

}  // namespace detente::test
