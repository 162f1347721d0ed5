// The resolver: when an earlier step's weights serve again, and what it remembers across a restart.
#include "worker/resolver.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

namespace detente {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

Job job_with(const std::string& method, std::uint32_t every = 1, double drift = 0.1) {
    Job job;
    job.aggregator = {method, {}};
    job.conflict_every = every;
    job.conflict_drift = drift;
    return job;
}

Resolver resolver_for(const Job& job, std::size_t tasks = 2) {
    auto resolver = Resolver::create(job, tasks);
    REQUIRE(resolver.has_value());
    return *resolver;
}

// Gradients of lengths a and b at this cosine.
GradientOutcome outcome_of(double a, double b, double cosine) {
    GradientOutcome outcome;
    outcome.losses = {a, b};
    outcome.gramian = Gramian(2);
    outcome.gramian.at(0, 0) = a * a;
    outcome.gramian.at(1, 1) = b * b;
    outcome.gramian.at(0, 1) = outcome.gramian.at(1, 0) = a * b * cosine;
    return outcome;
}

// The same two gradients as those of two tasks out of several; the others own nothing of the group.
GradientOutcome as_members(const GradientOutcome& two, std::size_t tasks, std::size_t first,
                           std::size_t second) {
    const std::size_t places[] = {first, second};
    GradientOutcome outcome;
    outcome.losses.assign(tasks, 3.0);
    GroupInput group;
    group.gramian = group.cross = Gramian(tasks);
    group.excess.assign(tasks, 0.0);
    group.members = {};
    for (std::size_t i = 0; i < 2; ++i) {
        group.members.insert(TaskId{static_cast<std::uint32_t>(places[i])});
        outcome.losses[places[i]] = two.losses[i];
        group.excess[places[i]] = two.gramian.at(i, i);
        for (std::size_t j = 0; j < 2; ++j) {
            group.gramian.at(places[i], places[j]) = two.gramian.at(i, j);
            group.cross.at(places[i], places[j]) = two.gramian.at(i, j);
        }
    }
    outcome.gramian = group.gramian;
    outcome.groups.push_back(std::move(group));
    return outcome;
}

bool works_by_coordinates(const std::string& method) {
    const auto made = make_aggregator({method, {}});
    REQUIRE(made.has_value());
    return (*made)->needs().coordinates;
}

std::vector<double> weights_of(Resolver& resolver, const GradientOutcome& outcome) {
    GradientOutcome copy = outcome;
    auto work = resolver.resolve(std::move(copy), 1);
    REQUIRE(work.has_value());
    return work->weights;
}

TEST_CASE("resolver: without conflict.every each step has a solution of its own") {
    Resolver resolver = resolver_for(job_with("mgda"));
    const auto first = weights_of(resolver, outcome_of(1, 2, -0.5));
    const auto second = weights_of(resolver, outcome_of(1, 2.001, -0.5));
    CHECK_FALSE(resolver.reused());
    CHECK(first != second);
}

TEST_CASE("resolver: a solution serves conflict.every steps while the Gramian stays near") {
    Resolver resolver = resolver_for(job_with("mgda", 3));
    const auto first = weights_of(resolver, outcome_of(1, 2, -0.5));
    CHECK_FALSE(resolver.reused());
    for (int again = 0; again < 2; ++again) {
        CHECK(weights_of(resolver, outcome_of(1, 2.001, -0.5)) == first);
        CHECK(resolver.reused());
    }
    CHECK(weights_of(resolver, outcome_of(1, 2.001, -0.5)) != first);
    CHECK_FALSE(resolver.reused());
}

TEST_CASE(
    "resolver: a Gramian that has drifted is solved anew and is what later ones are near to") {
    Resolver resolver = resolver_for(job_with("mgda", 100, 0.05));
    const auto first = weights_of(resolver, outcome_of(1, 1, -0.5));
    // ‖G − G_then‖ of a factor f on one length: beyond .05 of ‖G_then‖ for f = 1.1, within
    // for 1.01.
    CHECK(weights_of(resolver, outcome_of(1, 1.01, -0.5)) == first);
    const auto second = weights_of(resolver, outcome_of(1, 1.1, -0.5));
    CHECK_FALSE(resolver.reused());
    CHECK(second != first);
    CHECK(weights_of(resolver, outcome_of(1, 1.11, -0.5)) == second);
}

TEST_CASE("resolver: layers drift one by one") {
    Job job = job_with("mgda", 100, 0.05);
    job.conflict_scope = ConflictScope::layer;
    Resolver resolver = resolver_for(job);
    const auto step = [&](double of_first, double of_second) {
        GradientOutcome outcome = outcome_of(1, 1, 0);
        for (const double length : {of_first, of_second}) {
            GroupInput group;
            group.gramian = outcome_of(1, length, -0.5).gramian;
            group.cross = Gramian(2);
            outcome.groups.push_back(std::move(group));
        }
        auto work = resolver.resolve(std::move(outcome), 1);
        REQUIRE(work.has_value());
        return work->group_weights;
    };
    const auto first = step(1, 2);
    const auto second = step(1.001, 3);
    CHECK(second[0] == first[0]);
    CHECK(second[1] != first[1]);
    CHECK_FALSE(resolver.reused());
}

TEST_CASE("resolver: NaN is refused also where weights could serve again") {
    Resolver resolver = resolver_for(job_with("mgda", 100, 1e6));
    weights_of(resolver, outcome_of(1, 2, 0.5));
    GradientOutcome broken = outcome_of(1, 2, 0.5);
    broken.gramian.at(1, 1) = kNone;
    const auto refused = resolver.resolve(std::move(broken), 1);
    REQUIRE(refused.has_error());
    CHECK(refused.error().code == ErrorCode::not_finite);
}

TEST_CASE("resolver: a loss of NaN is refused also where weights could serve again") {
    for (const ConflictScope scope : {ConflictScope::global, ConflictScope::layer}) {
        Job job = job_with("mgda", 100, 1e6);
        job.conflict_scope = scope;
        Resolver resolver = resolver_for(job);
        GradientOutcome outcome = outcome_of(1, 2, 0.5);
        if (scope == ConflictScope::layer) outcome = as_members(outcome, 2, 0, 1);
        weights_of(resolver, outcome);
        weights_of(resolver, outcome);
        REQUIRE(resolver.reused());
        outcome.losses[1] = kNone;
        const auto refused = resolver.resolve(std::move(outcome), 1);
        REQUIRE(refused.has_error());
        CHECK(refused.error().code == ErrorCode::not_finite);
        CHECK_THAT(refused.error().text, Catch::Contains("loss of task 1"));
    }
}

TEST_CASE("resolver: a task that owns nothing of a group is as if it were not there") {
    for (const std::string& method : aggregator_names()) {
        if (method == "krum" || works_by_coordinates(method)) continue;  // three tasks; no weights
        for (const std::uint32_t every : {1U, 2U}) {
            using Pair = std::pair<std::size_t, std::size_t>;
            for (const auto& [first, second] : {Pair{0, 1}, Pair{0, 2}, Pair{1, 2}}) {
                CAPTURE(method, every, first, second);
                const Job job = job_with(method, every);
                Resolver alone = resolver_for(job);
                Resolver among = resolver_for(job, 3);
                for (int step = 0; step < 5; ++step) {
                    const GradientOutcome two = outcome_of(1 + 0.3 * step, 2, -0.4);
                    const auto expected = weights_of(alone, as_members(two, 2, 0, 1));
                    const auto found = weights_of(among, as_members(two, 3, first, second));
                    REQUIRE(found.size() == 3);
                    CHECK(found[first] == expected[0]);
                    CHECK(found[second] == expected[1]);
                    CHECK(found[3 - first - second] == 1);
                    CHECK(among.reused() == alone.reused());
                    if (step != 2) continue;
                    const MethodState saved = among.saved();
                    Resolver resumed = resolver_for(job, 3);
                    REQUIRE(resumed.restore(saved).has_value());
                    CHECK(resumed.saved() == saved);
                    among = resumed;
                }
            }
        }
    }
}

TEST_CASE("resolver: a group's state is as long where it is of some tasks as where it is of all") {
    for (const char* method : {"moco", "famo", "gradvac", "excess_mtl"}) {
        for (const std::uint32_t every : {1U, 3U}) {
            CAPTURE(method, every);
            const Job job = job_with(method, every);
            Resolver some = resolver_for(job, 3);
            weights_of(some, as_members(outcome_of(1, 2, -0.4), 3, 0, 2));
            Resolver all = resolver_for(job, 3);
            GradientOutcome outcome = as_members(outcome_of(1, 2, -0.4), 3, 0, 2);
            outcome.groups.front().members = TaskSet{0b111};
            weights_of(all, outcome);
            CHECK(some.saved().values.size() == all.saved().values.size());
            // A run may be resumed with other owners.
            Resolver resumed = resolver_for(job, 3);
            REQUIRE(resumed.restore(some.saved()).has_value());
            for (const double weight : weights_of(resumed, outcome)) CHECK(std::isfinite(weight));
        }
    }
}

TEST_CASE("resolver: parameters per task are those of a group's members") {
    Job job = job_with("constant");
    job.aggregator.parameters = {{"weights", "5,6,7"}};
    Resolver constant = resolver_for(job, 3);
    CHECK(weights_of(constant, as_members(outcome_of(1, 2, -0.4), 3, 0, 2)) ==
          std::vector<double>{5, 1, 7});
    job.aggregator = {"sum", {{"preference", "5,6,7"}}};
    Resolver preferred = resolver_for(job, 3);
    CHECK(weights_of(preferred, as_members(outcome_of(1, 2, -0.4), 3, 1, 2)) ==
          std::vector<double>{1, 6, 7});
}

TEST_CASE("resolver: says which group its method found no solution for") {
    Job job = job_with("mgda");
    job.conflict_scope = ConflictScope::layer;
    Resolver resolver = resolver_for(job);
    const auto step = [&](const std::vector<GradientOutcome>& groups) {
        GradientOutcome outcome = as_members(groups.front(), 2, 0, 1);
        for (std::size_t i = 1; i < groups.size(); ++i) {
            outcome.groups.push_back(as_members(groups[i], 2, 0, 1).groups.front());
        }
        REQUIRE(resolver.resolve(std::move(outcome), 1).has_value());
        return resolver.undecided();
    };
    const GradientOutcome solved = outcome_of(1, 2, -0.5);
    const GradientOutcome zero = outcome_of(0, 0, 0);
    const GradientOutcome equal = outcome_of(1, 1, 1);
    CHECK_FALSE(step({solved, solved}).has_value());
    const auto first = step({solved, zero, equal});
    REQUIRE(first.has_value());
    CHECK(first->status == AggregatorStatus::degenerate);
    CHECK(first->group == 2);
    CHECK(first->groups == 3);
}

TEST_CASE("resolver: where nothing is shared no method is asked") {
    Resolver resolver = resolver_for(job_with("mgda"), 3);
    GradientOutcome outcome = as_members(outcome_of(1, 2, -0.4), 3, 0, 1);
    outcome.groups.front().members = {};
    CHECK(weights_of(resolver, outcome) == std::vector<double>{1, 1, 1});
}

TEST_CASE("resolver: a group of too few tasks for the method is refused with its tasks") {
    Resolver resolver = resolver_for(job_with("krum"), 3);
    const auto refused = resolver.resolve(as_members(outcome_of(1, 2, -0.4), 3, 0, 2), 1);
    REQUIRE(refused.has_error());
    CHECK(refused.error().code == ErrorCode::bad_job);
    CHECK_THAT(refused.error().text,
               Catch::Contains("krum") && Catch::Contains("(0, 2;") && Catch::Contains("are 2"));
}

TEST_CASE("resolver: goes on from what it has saved as if it had never stopped") {
    for (const char* method : {"gradvac", "gradnorm", "famo", "dwa", "uw", "imtl_l", "mgda"}) {
        for (const std::uint32_t every : {1U, 3U}) {
            INFO(method << ", every " << every);
            const Job job = job_with(method, every);
            Resolver stopped = resolver_for(job);
            for (int step = 0; step < 4; ++step) {
                weights_of(stopped, outcome_of(1 + 0.1 * step, 2, -0.3));
            }
            Resolver resumed = resolver_for(job);
            REQUIRE(resumed.restore(stopped.saved()).has_value());
            CHECK(resumed.saved() == stopped.saved());
            for (int step = 0; step < 4; ++step) {
                const GradientOutcome outcome = outcome_of(2, 1 + 0.1 * step, -0.6);
                CHECK(weights_of(resumed, outcome) == weights_of(stopped, outcome));
            }
        }
    }
}

TEST_CASE("resolver: methods that remember nothing save nothing") {
    Resolver resolver = resolver_for(job_with("pcgrad"));
    weights_of(resolver, outcome_of(1, 2, -0.5));
    CHECK(resolver.saved().groups == 0);
    CHECK(resolver.restore({}).has_value());
    CHECK(resolver.restore({"pcgrad", 4'000'000'000, {}}).has_value());
    CHECK(resolver.saved().groups == 0);
}

TEST_CASE("resolver: a first step that was refused leaves a state that fits") {
    Resolver stopped = resolver_for(job_with("famo", 5));
    GradientOutcome broken = outcome_of(1, 2, 0.5);
    broken.losses[1] = kNone;
    REQUIRE(stopped.resolve(std::move(broken), 1).has_error());
    Resolver resumed = resolver_for(job_with("famo", 5));
    CHECK(resumed.restore(stopped.saved()).has_value());
    const GradientOutcome outcome = outcome_of(1, 2, 0.5);
    CHECK(weights_of(resumed, outcome) == weights_of(stopped, outcome));
}

TEST_CASE("resolver: a state of several groups is refused where there is one") {
    Job job = job_with("famo");
    Resolver resolver = resolver_for(job);
    weights_of(resolver, outcome_of(1, 2, -0.5));
    MethodState saved = resolver.saved();
    saved.values.insert(saved.values.end(), saved.values.begin(), saved.values.end());
    saved.groups = 2;
    const auto refused = resolver.restore(saved);
    REQUIRE(refused.has_error());
    CHECK_THAT(refused.error().text, Catch::Contains("conflict.scope"));
    job.conflict_scope = ConflictScope::layer;
    CHECK(resolver_for(job).restore(saved).has_value());
}

TEST_CASE("resolver: what another method or another job has saved is refused by name") {
    Resolver famo = resolver_for(job_with("famo"));
    weights_of(famo, outcome_of(1, 2, -0.5));
    const MethodState saved = famo.saved();
    Resolver dwa = resolver_for(job_with("dwa"));
    const auto other = dwa.restore(saved);
    REQUIRE(other.has_error());
    CHECK_THAT(other.error().text, Catch::Contains("famo") && Catch::Contains("dwa"));
    Resolver reusing = resolver_for(job_with("famo", 5));
    const auto longer = reusing.restore(saved);
    REQUIRE(longer.has_error());
    CHECK_THAT(longer.error().text, Catch::Contains("conflict.every"));
    MethodState hostile = reusing.saved();
    hostile = {"famo", 1, std::vector<double>(saved.values.size() + 7, 1e300)};
    CHECK(reusing.restore(hostile).has_error());
}

}  // namespace
}  // namespace detente
