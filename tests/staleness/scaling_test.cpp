// Policies that scale the learning rate, against their formulas in double precision.
#include <catch2/catch.hpp>
#include <cmath>

#include "common/staleness/policy.h"

namespace detente {
namespace {

struct Case {
    std::uint64_t staleness = 0;
    std::uint64_t updates = 0;
    std::uint32_t members = 4;
    double learning_rate = 0.1;
};

// The factor of the learning rate; nothing if the gradient was rejected.
std::optional<double> scale_of(const PolicyConfig& config, const Case& one) {
    auto policy = make_policy(config);
    REQUIRE(policy.has_value());
    PolicyState state = (*policy)->initial_state();
    std::vector<PolicyOutcome> outcomes;
    Arrived arrived;
    arrived.subject = 1;
    arrived.staleness = one.staleness;
    arrived.updates = one.updates;
    arrived.members = one.members;
    arrived.learning_rate = one.learning_rate;
    (*policy)->on(arrived, state, outcomes);
    REQUIRE(outcomes.size() == 1);
    const auto* apply = std::get_if<ApplyThese>(&outcomes.front());
    if (apply == nullptr) {
        REQUIRE(std::get<RejectThis>(outcomes.front()).advice == Advice::refresh);
        return std::nullopt;
    }
    return static_cast<double>(apply->step_scale);
}

void require_scale(const PolicyConfig& config, const Case& one, double expected) {
    const std::optional<double> scale = scale_of(config, one);
    REQUIRE(scale.has_value());
    CHECK(*scale == Approx(expected).epsilon(1e-6));
}

}  // namespace

TEST_CASE("polynomial: (1 + staleness)^-a") {
    for (const std::uint64_t staleness : {0, 1, 2, 7, 100}) {
        const auto tau = static_cast<double>(staleness);
        require_scale({"polynomial", {}}, {staleness}, std::pow(1 + tau, -0.5));
        require_scale({"polynomial", {{"a", "2"}}}, {staleness}, std::pow(1 + tau, -2.0));
    }
}

TEST_CASE("hinge: the full rate up to b, 1 / (a(staleness - b) + 1) beyond") {
    require_scale({"hinge", {}}, {4}, 1);
    require_scale({"hinge", {}}, {5}, 1.0 / 11);
    require_scale({"hinge", {{"a", "0.5"}, {"b", "1"}}}, {4}, 1 / 2.5);
}

TEST_CASE("ada_delay: the rate is 1 / (L + c sqrt(updates + staleness))") {
    const double eta = 0.1;
    for (const std::uint64_t updates : {0, 10, 1000}) {
        for (const std::uint64_t staleness : {0, 3}) {
            const double root = std::sqrt(static_cast<double>(updates + staleness));
            require_scale({"ada_delay", {{"c", "2"}}}, {staleness, updates, 4, eta},
                          1 / (1 / eta + 2 * root) / eta);
            require_scale({"ada_delay", {{"c", "2"}, {"L", "5"}}}, {staleness, updates, 4, eta},
                          1 / (5 + 2 * root) / eta);
        }
    }
}

TEST_CASE("delay_adaptive: its three forms") {
    const PolicyConfig ratio{"delay_adaptive", {{"form", "ratio"}}};
    require_scale(ratio, {4, 0, 4}, 1);
    require_scale(ratio, {8, 0, 4}, 0.5);
    require_scale({"delay_adaptive", {{"form", "ratio"}, {"n", "2"}}}, {8, 0, 4}, 0.25);
    const PolicyConfig clip{"delay_adaptive", {{"form", "clip"}, {"L", "2"}}};
    require_scale(clip, {1, 0, 4, 0.1}, 1);
    require_scale(clip, {10, 0, 4, 0.1}, 1 / (4.0 * 2 * 10) / 0.1);
    const PolicyConfig drop{"delay_adaptive", {{"form", "drop"}, {"tau_c", "3"}}};
    require_scale(drop, {3}, 1);
    CHECK_FALSE(scale_of(drop, {4}).has_value());
}

TEST_CASE("easgd: the server adds what the worker sends, whatever the learning rate") {
    require_scale({"easgd", {}}, {2, 0, 4, 0.01}, 100);
}

}  // namespace detente
