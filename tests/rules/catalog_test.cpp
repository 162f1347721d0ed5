#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <limits>

#include "tests/rules/rule_cases.h"

namespace detente::test {
namespace {

std::string refusal(const std::string& name, const std::function<void(RuleConfig&)>& set) {
    RuleConfig config;
    config.name = name;
    set(config);
    const auto made = make_rule(config);
    if (made.has_value()) return "accepted";
    CHECK(made.error().code == ErrorCode::bad_job);
    return made.error().text;
}

TEST_CASE("rule catalog: every name it lists makes a rule of that name, from its defaults") {
    REQUIRE(rule_names().size() == 5);
    for (const std::string& name : rule_names()) {
        const auto defaults = rule_defaults(name);
        REQUIRE(defaults.has_value());
        CHECK(make_rule(*defaults).value()->name() == name);
    }
}

TEST_CASE("rule catalog: defaults are torch.optim's") {
    CHECK(rule_defaults("sgd")->learning_rate == 1e-3);
    CHECK(rule_defaults("adagrad")->eps == 1e-10);
    CHECK(rule_defaults("adagrad")->learning_rate == 1e-2);
    CHECK(rule_defaults("rmsprop")->alpha == 0.99);
    CHECK(rule_defaults("adam")->learning_rate == 1e-3);
    CHECK(rule_defaults("adam")->weight_decay == 0);
    CHECK(rule_defaults("adamw")->weight_decay == 1e-2);
    CHECK(rule_defaults("adem").error().text.find("'adam'") != std::string::npos);
}

TEST_CASE("rule catalog: slots are those the form needs") {
    const auto slots_of = [](const char* title) {
        for (const RuleCase& rule_case : every_rule()) {
            if (rule_case.title == title) return make_rule(rule_case.config).value()->slots();
        }
        return -1;
    };
    CHECK(slots_of("sgd") == 0);
    CHECK(slots_of("sgd, momentum") == 1);
    CHECK(slots_of("adagrad") == 1);
    CHECK(slots_of("rmsprop") == 1);
    CHECK(slots_of("rmsprop, momentum, decay") == 2);
    CHECK(slots_of("adam") == 2);
    CHECK(slots_of("adamw") == 2);
}

TEST_CASE("rule catalog: an unknown name is refused with the nearest valid one") {
    const std::string text = refusal("adma", [](RuleConfig&) {});
    CHECK(text.find("'adma'") != std::string::npos);
    CHECK(text.find("did you mean 'adam'") != std::string::npos);
    CHECK(text.find("sgd, adagrad, rmsprop, adam, adamw") != std::string::npos);
}

TEST_CASE("rule catalog: Nesterov without momentum is refused") {
    const std::string text = refusal("sgd", [](RuleConfig& c) { c.nesterov = true; });
    CHECK(text.find("nesterov needs a momentum") != std::string::npos);
    CHECK(refusal("sgd", [](RuleConfig& c) {
              c.nesterov = true;
              c.momentum = 0.9;
          }) == "accepted");
}

TEST_CASE("rule catalog: parameters out of range are refused by name") {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const double infinite = std::numeric_limits<double>::infinity();
    const std::vector<std::pair<std::string, double RuleConfig::*>> keys = {
        {"learning_rate", &RuleConfig::learning_rate},
        {"momentum", &RuleConfig::momentum},
        {"weight_decay", &RuleConfig::weight_decay},
        {"beta1", &RuleConfig::beta1},
        {"beta2", &RuleConfig::beta2},
        {"eps", &RuleConfig::eps},
        {"alpha", &RuleConfig::alpha},
        {"initial_accumulator_value", &RuleConfig::initial_accumulator_value},
        {"clip_value", &RuleConfig::clip_value}};
    for (const auto& [key, member] : keys) {
        for (const double bad : {-0.1, nan, infinite}) {
            const std::string text =
                refusal("sgd", [&, at = member](RuleConfig& c) { c.*at = bad; });
            CHECK(text.find(key) != std::string::npos);
        }
    }
    CHECK(refusal("adam", [](RuleConfig& c) { c.beta1 = 1; }).find("beta1") != std::string::npos);
    CHECK(refusal("adam", [](RuleConfig& c) { c.beta2 = 0; }) == "accepted");
}

TEST_CASE("rule catalog: a parameter the rule does not have is refused, not ignored") {
    CHECK(refusal("adam", [](RuleConfig& c) { c.momentum = 0.9; }).find("no momentum") !=
          std::string::npos);
    CHECK(refusal("rmsprop", [](RuleConfig& c) { c.nesterov = true; }).find("no nesterov") !=
          std::string::npos);
    CHECK(refusal("sgd", [](RuleConfig& c) {
              c.initial_accumulator_value = 1;
          }).find("only adagrad") != std::string::npos);
}

}  // namespace
}  // namespace detente::test
