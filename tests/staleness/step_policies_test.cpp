// Policies that decide whole steps, event by event.
#include <algorithm>
#include <catch2/catch.hpp>

#include "common/staleness/policy.h"

namespace detente {
namespace {

// Plays the lead shard: members, versions, and what has become of each subject.
class Table {
  public:
    Table(const PolicyConfig& config, std::uint32_t workers) {
        auto made = make_policy(config);
        REQUIRE(made.has_value());
        policy_ = std::move(*made);
        CHECK(policy_->scope() == Scope::step);
        state_ = policy_->initial_state();
        for (std::uint32_t worker = 0; worker < workers; ++worker) {
            on(Joined{WorkerId{worker}});
        }
    }
    void on(const PolicyEvent& event) {
        outcomes.clear();
        policy_->on(event, state_, outcomes);
        for (const PolicyOutcome& outcome : outcomes) {
            if (std::holds_alternative<ApplyThese>(outcome)) ++version;
        }
    }
    Subject arrive(std::uint32_t worker, std::uint64_t staleness = 0, double at_s = 0,
                   double progress = 0) {
        Arrived arrived;
        arrived.subject = ++subjects_;
        arrived.worker = WorkerId{worker};
        arrived.staleness = staleness;
        arrived.updates = version;
        arrived.at_s = at_s;
        arrived.progress = progress;
        on(arrived);
        return arrived.subject;
    }
    template <class Outcome>
    std::vector<Outcome> of() const {
        std::vector<Outcome> found;
        for (const PolicyOutcome& outcome : outcomes) {
            if (const auto* one = std::get_if<Outcome>(&outcome)) found.push_back(*one);
        }
        return found;
    }
    // Subjects of the one update the last event led to; empty if there was none.
    std::vector<Subject> applied() const {
        std::vector<Subject> subjects;
        for (const ApplyThese& apply : of<ApplyThese>()) {
            for (const Contribution& one : apply.pushes) subjects.push_back(one.subject);
        }
        return subjects;
    }
    std::vector<PolicyOutcome> outcomes;
    std::uint64_t version = 0;

  private:
    std::unique_ptr<const Policy> policy_;
    PolicyState state_;
    Subject subjects_ = 0;
};

}  // namespace

TEST_CASE("step policies: steps are decided whole where the policy does or the job asks for it") {
    for (const std::string& name : policy_names()) {
        INFO(name);
        const auto policy = make_policy({name, {}});
        REQUIRE(policy.has_value());
        const bool by_itself = (*policy)->scope() == Scope::step;
        CHECK(decides_steps(Admission::block, **policy) == by_itself);
        CHECK(decides_steps(Admission::step, **policy));
        CHECK(check_asked(Admission::block, **policy).has_error() == by_itself);
        CHECK(check_asked(Admission::step, **policy).has_value());
        Job job;
        job.policy.name = name;
        CHECK(decides_steps(job) == by_itself);
        job.admission = Admission::step;
        CHECK(decides_steps(job));
    }
}

TEST_CASE("bsp: applies the average of all members' gradients once the last is there") {
    Table table({"bsp", {}}, 3);
    table.arrive(2);
    CHECK(table.applied().empty());
    REQUIRE(table.of<BufferThis>().size() == 1);
    CHECK(table.of<BufferThis>()[0].worker_waits);
    table.arrive(0);
    CHECK(table.applied().empty());
    table.arrive(1);
    CHECK(table.applied() == std::vector<Subject>{2, 3, 1});  // in the workers' order
    CHECK(table.of<ApplyThese>()[0].denominator == 3);
}

TEST_CASE("bsp: does not wait for a worker that has left, and keeps what it sent before") {
    Table table({"bsp", {}}, 3);
    table.arrive(0);
    table.arrive(1);
    table.on(Left{WorkerId{2}});
    CHECK(table.applied() == std::vector<Subject>{1, 2});
    table.arrive(0);
    table.on(Left{WorkerId{0}});
    CHECK(table.applied().empty());  // worker 1 is still awaited
    table.arrive(1);
    CHECK(table.applied() == std::vector<Subject>{3, 4});
}

TEST_CASE("bsp: a gradient computed before the last update is rejected, to be refreshed") {
    Table table({"bsp", {}}, 2);
    table.arrive(0, 1);
    REQUIRE(table.of<RejectThis>().size() == 1);
    CHECK(table.of<RejectThis>()[0].advice == Advice::refresh);
}

TEST_CASE("backup_workers: the first N of N + b make the step, the late ones are rejected") {
    Table table({"backup_workers", {{"b", "1"}}}, 3);
    table.arrive(1);
    CHECK(table.applied().empty());
    table.arrive(2);
    CHECK(table.applied() == std::vector<Subject>{1, 2});
    CHECK(table.of<ApplyThese>()[0].denominator == 2);
    table.arrive(0, 1);
    CHECK(table.of<RejectThis>().size() == 1);
}

TEST_CASE("sync_switch: bsp up to its share of the job, each gradient at once after it") {
    Table table({"sync_switch", {{"p", "0.5"}}}, 2);
    table.arrive(0, 0, 0, 0.4);
    CHECK(table.applied().empty());
    table.arrive(1, 0, 0, 0.6);  // a step that has begun is finished first
    CHECK(table.applied().size() == 2);
    table.arrive(1, 0, 0, 0.6);
    CHECK(table.applied() == std::vector<Subject>{3});
    table.arrive(0, 5, 0, 0.7);
    CHECK(table.applied() == std::vector<Subject>{4});
}

TEST_CASE("ssp: a worker s clocks ahead of the slowest is held until that one catches up") {
    Table table({"ssp", {{"s", "2"}}}, 2);
    for (int clock = 1; clock <= 2; ++clock) {
        table.arrive(0);
        CHECK(table.applied().size() == 1);
        CHECK(table.of<HoldPull>().empty());
    }
    table.arrive(0);  // clock 3, the slowest stands at 0
    CHECK(table.applied().size() == 1);
    REQUIRE(table.of<HoldPull>().size() == 1);
    CHECK(table.of<HoldPull>()[0].worker == WorkerId{0});
    CHECK(table.of<ReleasePull>().empty());
    table.arrive(1);
    REQUIRE(table.of<ReleasePull>().size() == 1);
    CHECK(table.of<ReleasePull>()[0].worker == WorkerId{0});
}

TEST_CASE("ssp: with s = 0 nobody starts a clock before all have finished the one before") {
    Table table({"ssp", {{"s", "0"}}}, 3);
    table.arrive(0);
    CHECK(table.of<HoldPull>().size() == 1);
    table.arrive(1);
    CHECK(table.of<HoldPull>().size() == 1);
    CHECK(table.of<ReleasePull>().empty());
    table.arrive(2);
    CHECK(table.of<ReleasePull>().size() == 2);
}

TEST_CASE("ssp: a worker that leaves holds nobody up, one that joins starts where the slowest is") {
    Table table({"ssp", {{"s", "1"}}}, 2);
    table.arrive(0);
    table.arrive(0);
    CHECK(table.of<HoldPull>().size() == 1);
    table.on(Left{WorkerId{1}});
    CHECK(table.of<ReleasePull>().size() == 1);
    table.on(Joined{WorkerId{2}});
    table.arrive(0);
    CHECK(table.of<HoldPull>().empty());
}

TEST_CASE("dssp: the fastest is granted clocks beyond s_l when the slowest is far, up to r_max") {
    const auto clocks_before_hold = [](const std::string& r_max) {
        Table table({"dssp", {{"s_l", "1"}, {"r_max", r_max}}}, 2);
        table.arrive(1, 0, 10);  // the slowest takes 10 s a clock
        table.arrive(1, 0, 20);
        int clocks = 0;
        for (double at_s = 20.5; clocks < 100; at_s += 1) {
            ++clocks;
            table.arrive(0, 0, at_s);
            if (!table.of<HoldPull>().empty()) break;
        }
        return clocks;
    };
    CHECK(clocks_before_hold("0") == 4);   // clock 2 of the slowest + s_l, and the one that is held
    CHECK(clocks_before_hold("12") > 6);   // about the 9 that fit before the slowest's next
    CHECK(clocks_before_hold("12") < 17);  // 2 + s_l + r_max + the one that is held
    CHECK(clocks_before_hold("4") <= 9);
}

TEST_CASE("softsync: averages floor(N/n) gradients, each with the rate over its staleness") {
    Table table({"softsync", {{"n", "2"}}}, 4);
    table.arrive(0, 4);
    REQUIRE(table.of<BufferThis>().size() == 1);
    CHECK_FALSE(table.of<BufferThis>()[0].worker_waits);
    table.arrive(1, 1);
    const auto apply = table.of<ApplyThese>();
    REQUIRE(apply.size() == 1);
    // Under SGD: (g/4 + g/1) / 2.
    const double scale = apply[0].step_scale / apply[0].denominator;
    CHECK(scale * apply[0].pushes[0].gradient_weight == Approx(0.125).epsilon(1e-6));
    CHECK(scale * apply[0].pushes[1].gradient_weight == Approx(0.5).epsilon(1e-6));
}

TEST_CASE("fedbuff: K weighted gradients over K, with K = 1 it is polynomial with a = .5") {
    Table table({"fedbuff", {{"k", "2"}}}, 4);
    table.arrive(0, 3);
    table.arrive(0, 0);
    const auto apply = table.of<ApplyThese>();
    REQUIRE(apply.size() == 1);
    const double scale = apply[0].step_scale / apply[0].denominator;
    CHECK(scale * apply[0].pushes[0].gradient_weight == Approx(0.25).epsilon(1e-6));
    CHECK(scale * apply[0].pushes[1].gradient_weight == Approx(0.5).epsilon(1e-6));
    Table single({"fedbuff", {{"k", "1"}}}, 4);
    single.arrive(0, 8);
    REQUIRE(single.of<ApplyThese>().size() == 1);
    CHECK(single.of<ApplyThese>()[0].pushes[0].gradient_weight == 1.0F);
    CHECK(single.of<ApplyThese>()[0].denominator == 1);
    CHECK(single.of<ApplyThese>()[0].step_scale == Approx(1.0 / 3));
}

TEST_CASE("averages: what is left when the last member leaves is applied") {
    for (const std::string name : {"fedbuff", "rennala", "softsync"}) {
        Table table({name, {}}, 4);
        table.arrive(0);
        if (!table.applied().empty()) continue;
        for (std::uint32_t worker = 0; worker < 4; ++worker) table.on(Left{WorkerId{worker}});
        INFO(name);
        CHECK(table.version == 1);
    }
}

TEST_CASE("step policies: no more is kept of workers that go on than is said beforehand") {
    const std::vector<std::pair<PolicyConfig, std::size_t>> all{
        {{"bsp", {}}, 0},
        {{"ssp", {}}, 0},
        {{"softsync", {}}, 4},
        {{"softsync", {{"n", "2"}}}, 2},
        {{"softsync", {{"n", "9"}}}, 1},
        {{"fedbuff", {{"k", "6"}}}, 6},
        {{"rennala", {}}, 4},
        {{"rennala", {{"b", "7"}}}, 7},
        {{"capacity", {{"eta_s", "1"}}}, 2},
        {{"capacity", {{"b", "3"}}}, 3},
    };
    for (const auto& [config, most] : all) {
        INFO(config.name);
        const auto policy = make_policy(config);
        REQUIRE(policy.has_value());
        CHECK((*policy)->most_kept(4) == most);
        Table table(config, 4);
        std::size_t going_on = 0;
        for (std::uint32_t i = 0; i < 12 && table.version == 0; ++i) {
            table.arrive(i % 4);
            for (const BufferThis& kept : table.of<BufferThis>()) {
                if (!kept.worker_waits) ++going_on;
            }
        }
        CHECK(table.version == 1);
        CHECK(going_on + 1 == std::max<std::size_t>(1, most));  // the last comes with the update
    }
}

TEST_CASE("rennala: gathers B gradients at the current point, rejects all others") {
    Table table({"rennala", {{"b", "2"}}}, 3);
    table.arrive(0);
    table.arrive(1, 1);
    CHECK(table.of<RejectThis>().size() == 1);
    table.arrive(0);
    CHECK(table.applied() == std::vector<Subject>{1, 3});
}

TEST_CASE("ringmaster: rejects from delay R on, and restarts a worker that has fallen R behind") {
    Table table({"ringmaster", {{"r", "2"}}}, 2);
    table.on(Pulled{WorkerId{0}, Step{1}, 0});
    table.on(Pulled{WorkerId{1}, Step{1}, 0});
    table.arrive(0);
    CHECK(table.of<CancelWorker>().empty());
    table.on(Pulled{WorkerId{0}, Step{2}, 1});
    table.arrive(0);
    REQUIRE(table.of<CancelWorker>().size() == 1);
    CHECK(table.of<CancelWorker>()[0].worker == WorkerId{1});
    table.arrive(1, 2);
    CHECK(table.of<RejectThis>().size() == 1);
    table.arrive(1, 1);
    CHECK(table.applied().size() == 1);
}

TEST_CASE(
    "ringmaster: taken up by a model that has versions already, it restarts as from the start") {
    Table table({"ringmaster", {{"r", "2"}}}, 2);
    table.on(Pulled{WorkerId{0}, Step{9}, 100});
    table.on(Pulled{WorkerId{1}, Step{9}, 100});
    table.arrive(0);
    CHECK(table.of<CancelWorker>().empty());
    table.on(Pulled{WorkerId{0}, Step{10}, 101});
    table.arrive(0);
    REQUIRE(table.of<CancelWorker>().size() == 1);
    CHECK(table.of<CancelWorker>()[0].worker == WorkerId{1});
}
TEST_CASE("ringmaster: without a bound it is async") {
    Table table({"ringmaster", {{"r", "0"}}}, 2);
    for (std::uint64_t staleness = 0; staleness < 100; ++staleness) {
        table.arrive(0, staleness);
        REQUIRE(table.applied().size() == 1);
        CHECK(table.of<CancelWorker>().empty());
    }
}

TEST_CASE("capacity: no more is under way than eta_s and one updates take") {
    Table table({"capacity", {{"eta_s", "0"}, {"b", "2"}}}, 2);
    table.on(Pulled{WorkerId{0}, Step{1}, 0});
    table.on(Pulled{WorkerId{1}, Step{1}, 0});
    table.arrive(0);  // one kept, one running: no room in this update's two
    CHECK(table.of<HoldPull>().size() == 1);
    CHECK(table.of<ReleasePull>().empty());
    table.arrive(1);  // the update: room for two
    CHECK(table.applied().size() == 2);
    CHECK(table.of<ReleasePull>().size() == 2);
}

TEST_CASE("capacity: first starts are gated too") {
    Table table({"capacity", {{"eta_s", "0"}, {"b", "1"}}}, 1);
    CHECK(table.of<ReleasePull>().size() == 1);
    table.on(Joined{WorkerId{1}});
    CHECK(table.of<HoldPull>().size() == 1);
    CHECK(table.of<ReleasePull>().empty());
    Table limited({"capacity", {{"limit", "2"}}}, 3);
    CHECK(limited.of<ReleasePull>().empty());  // the third waits
}

TEST_CASE("capacity: it bounds how many are under way, not how often a slow one is overtaken") {
    Table table({"capacity", {{"eta_s", "1"}, {"b", "1"}}}, 2);
    for (int round = 0; round < 20; ++round) {
        table.arrive(1);
        REQUIRE(table.applied().size() == 1);
        REQUIRE(table.of<ReleasePull>().size() == 1);
    }
    CHECK(table.version == 20);  // and worker 0 computes since version 0
}

TEST_CASE("capacity: left to itself an update is so small that some of the workers wait") {
    Table table({"capacity", {}}, 0);
    std::size_t started = 0;
    for (std::uint32_t worker = 0; worker < 8; ++worker) {
        table.on(Joined{WorkerId{worker}});
        started += table.of<ReleasePull>().size();
    }
    CHECK(started == 5);  // eta_s = 4, and an update of one gradient
}

TEST_CASE("capacity: when a member leaves, as many go on at once as before") {
    Table table({"capacity", {{"eta_s", "0"}}}, 3);
    for (int round = 0; round < 50; ++round) {
        for (std::uint32_t worker = 0; worker < 3; ++worker) table.arrive(worker);
    }
    table.on(Left{WorkerId{2}});
    int held = 0;
    for (int round = 0; round < 10; ++round) {
        for (std::uint32_t worker = 0; worker < 2; ++worker) {
            table.arrive(worker);
            held += static_cast<int>(table.of<HoldPull>().size());
            held -= static_cast<int>(table.of<ReleasePull>().size());
        }
    }
    CHECK(held == 0);
}

}  // namespace detente
