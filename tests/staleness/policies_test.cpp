#include <catch2/catch.hpp>
#include <set>

#include "common/staleness/parameters.h"
#include "common/staleness/policy.h"

namespace detente {
namespace {

std::unique_ptr<const Policy> policy_of(const PolicyConfig& config) {
    Result<std::unique_ptr<const Policy>> made = make_policy(config);
    INFO((made.has_error() ? made.error().text : ""));
    REQUIRE(made.has_value());
    return std::move(*made);
}

std::vector<PolicyOutcome> judge(const Policy& policy, const PolicyEvent& event) {
    PolicyState state = policy.initial_state();
    std::vector<PolicyOutcome> outcomes;
    policy.on(event, state, outcomes);
    return outcomes;
}

Arrived arrival(std::uint64_t staleness, Subject subject = 7) {
    Arrived arrived;
    arrived.subject = subject;
    arrived.staleness = staleness;
    return arrived;
}

// The learning rate's factor, or nothing if the gradient was not applied alone and once.
std::optional<float> scale_of(const Policy& policy, std::uint64_t staleness) {
    const std::vector<PolicyOutcome> outcomes = judge(policy, arrival(staleness));
    if (outcomes.size() != 1) return std::nullopt;
    const auto* applied = std::get_if<ApplyThese>(&outcomes[0]);
    if (applied == nullptr || applied->pushes.size() != 1) return std::nullopt;
    if (applied->pushes[0].subject != 7 || applied->pushes[0].gradient_weight != 1) {
        return std::nullopt;
    }
    if (applied->denominator != 1) return std::nullopt;
    return applied->step_scale;
}

void require_refused(const PolicyConfig& config, const std::string& named) {
    const Result<std::unique_ptr<const Policy>> made = make_policy(config);
    REQUIRE(made.has_error());
    CHECK(made.error().code == ErrorCode::bad_job);
    CHECK_THAT(made.error().text, Catch::Contains(named));
}

// Those that apply or reject each gradient by itself and keep nothing.
const std::vector<std::string>& plain_policies() {
    static const std::vector<std::string> names = {
        "async", "bounded_reject", "inverse", "polynomial", "hinge", "ada_delay", "delay_adaptive"};
    return names;
}

TEST_CASE("policies: every one in the catalog makes itself with its defaults and says its name") {
    const std::vector<std::string> all = policy_names();
    CHECK(std::set<std::string>(all.begin(), all.end()).size() == all.size());
    for (const std::string& name : policy_names()) CHECK(policy_of({name, {}})->name() == name);
    for (const std::string& name : plain_policies()) {
        const PolicyNeeds needs = policy_of({name, {}})->needs();
        CHECK_FALSE(needs.corrects);
        CHECK_FALSE(needs.stale_weights);
        CHECK_FALSE(needs.step_averages);
        CHECK_FALSE(needs.look_ahead);
    }
}

TEST_CASE("policies: a fresh gradient is applied unscaled, so one worker alone is plain SGD") {
    for (const std::string& name : plain_policies()) {
        CHECK(scale_of(*policy_of({name, {}}), 0) == 1.0F);
    }
    for (const std::string name : {"dc_asgd", "gap_aware"}) {
        CHECK(scale_of(*policy_of({name, {}}), 0) == 1.0F);
    }
}

TEST_CASE("policies: block scope answers arrivals only, pulls and membership change nothing") {
    for (const std::string& name : policy_names()) {
        const auto policy = policy_of({name, {}});
        if (policy->scope() == Scope::step) continue;
        CHECK(judge(*policy, Pulled{WorkerId{1}, Step{1}}).empty());
        CHECK(judge(*policy, Joined{WorkerId{1}}).empty());
        CHECK(judge(*policy, Left{WorkerId{1}}).empty());
    }
}

TEST_CASE("async: applies a gradient of any age unscaled, without a bound") {
    const auto policy = policy_of({"async", {}});
    CHECK(scale_of(*policy, 1) == 1.0F);
    CHECK(scale_of(*policy, 1'000'000'000) == 1.0F);
    CHECK_FALSE(policy->bound().has_value());
}

TEST_CASE("bounded_reject: applies up to the bound and rejects one beyond it, advising refresh") {
    const auto policy = policy_of({"bounded_reject", {{"tau_max", "3"}}});
    CHECK(policy->bound() == std::uint64_t{3});
    CHECK(scale_of(*policy, 3) == 1.0F);
    const std::vector<PolicyOutcome> outcomes = judge(*policy, arrival(4));
    REQUIRE(outcomes.size() == 1);
    const auto* rejected = std::get_if<RejectThis>(&outcomes[0]);
    REQUIRE(rejected != nullptr);
    CHECK(rejected->subject == 7);
    CHECK(rejected->advice == Advice::refresh);
    CHECK(rejected->reason == ErrorCode::over_limit);
}

TEST_CASE("bounded_reject: the bound is 8 unless the job says otherwise, and may be 0") {
    CHECK(policy_of({"bounded_reject", {}})->bound() == std::uint64_t{8});
    const auto strict = policy_of({"bounded_reject", {{"tau_max", "0"}}});
    CHECK(scale_of(*strict, 0) == 1.0F);
    CHECK_FALSE(scale_of(*strict, 1).has_value());
}

TEST_CASE("inverse: scales the learning rate by 1/max(1, staleness)") {
    const auto policy = policy_of({"inverse", {}});
    CHECK(scale_of(*policy, 1) == 1.0F);
    CHECK(scale_of(*policy, 2) == 0.5F);
    CHECK(scale_of(*policy, 8) == 0.125F);
    CHECK(scale_of(*policy, 10) == 0.1F);
    CHECK_FALSE(policy->bound().has_value());
}

TEST_CASE("policies: judging leaves no trace, the same arrival twice gets the same outcome") {
    for (const std::string& name : plain_policies()) {
        const auto policy = policy_of({name, {}});
        PolicyState state = policy->initial_state();
        std::vector<PolicyOutcome> outcomes;
        for (int i = 0; i < 3; ++i) policy->on(arrival(5), state, outcomes);
        REQUIRE(outcomes.size() == 3);
        CHECK(state.values == policy->initial_state().values);
        CHECK(outcomes[0].index() == outcomes[2].index());
    }
}

TEST_CASE("catalog: an unknown policy or parameter names the nearest valid one") {
    require_refused({"bounded_rejct", {}}, "did you mean 'bounded_reject'");
    require_refused({"", {}}, "Valid: async, bounded_reject, bsp");
    require_refused({"bounded_reject", {{"taumax", "3"}}}, "did you mean 'tau_max'");
    require_refused({"async", {{"tau_max", "3"}}}, "takes no parameters");
}

TEST_CASE("catalog: values that are no whole number, negative, or given twice are refused") {
    for (const std::string text :
         {"", "-1", "2.5", "8x", " 8", "nan", "1e30", "99999999999999999999999999"}) {
        INFO(text);
        require_refused({"bounded_reject", {{"tau_max", text}}}, "tau_max must be a whole number");
    }
    require_refused({"bounded_reject", {{"tau_max", "1"}, {"tau_max", "1"}}}, "given twice");
}

TEST_CASE("catalog: every parameter is explained with its range and default") {
    const auto explained = policy_parameters("bounded_reject");
    REQUIRE(explained.size() == 1);
    CHECK(explained[0].name == "tau_max");
    CHECK_THAT(explained[0].meaning, Catch::Contains("default 8"));
    CHECK(explained[0].standard == "8");
    CHECK(policy_parameters("async").empty());
    CHECK(policy_parameters("no such policy").empty());
}

TEST_CASE("parameters: real numbers and choices are parsed and bounded as declared") {
    const std::vector<ParameterSpec> specs = {
        {"lambda", "strength", 0.04, 0, 1, {}},
        {"variant", "which form", std::string("c"), 0, 0, {"c", "a"}}};
    const auto standard = Parameters::parse({"dc_asgd", {}}, specs);
    REQUIRE(standard.has_value());
    CHECK(standard->real("lambda") == 0.04);
    CHECK(standard->choice("variant") == "c");
    const auto given =
        Parameters::parse({"dc_asgd", {{"lambda", "5e-1"}, {"variant", "a"}}}, specs);
    REQUIRE(given.has_value());
    CHECK(given->real("lambda") == 0.5);
    CHECK(given->choice("variant") == "a");
    for (const std::string text : {"1.5", "-0.1", "nan", "inf", "x"}) {
        INFO(text);
        CHECK(Parameters::parse({"dc_asgd", {{"lambda", text}}}, specs).has_error());
    }
    const auto bad = Parameters::parse({"dc_asgd", {{"variant", "b"}}}, specs);
    REQUIRE(bad.has_error());
    CHECK_THAT(bad.error().text, Catch::Contains("one of c, a"));
}

TEST_CASE("policies: a scope prints as job files and errors write it") {
    CHECK(std::string(name_of(Scope::block)) == "block");
    CHECK(std::string(name_of(Scope::step)) == "step");
}

}  // namespace
}  // namespace detente
