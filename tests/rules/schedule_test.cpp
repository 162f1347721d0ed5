#include "common/rules/schedule.h"

#include <catch2/catch.hpp>
#include <limits>

namespace detente {
namespace {

ScheduleConfig named(const char* name) {
    ScheduleConfig config;
    config.name = name;
    return config;
}
std::string refusal(const ScheduleConfig& config) {
    const auto checked = check_schedule(config);
    if (checked.has_value()) return "accepted";
    CHECK(checked.error().code == ErrorCode::bad_job);
    return checked.error().text;
}

TEST_CASE("schedule: constant stays at 1, after a linear warm-up if there is one") {
    ScheduleConfig config = named("constant");
    CHECK(schedule_factor(config, 0) == 1);
    config.warmup_samples = 400;
    CHECK(refusal(config) == "accepted");
    CHECK(schedule_factor(config, 0) == 0);
    CHECK(schedule_factor(config, 100) == 0.25);
    CHECK(schedule_factor(config, 399) < 1);
    CHECK(schedule_factor(config, 400) == 1);
    CHECK(schedule_factor(config, std::numeric_limits<std::uint64_t>::max()) == 1);
}

TEST_CASE(
    "schedule: step multiplies by gamma every so many samples, counted from the warm-up's end") {
    ScheduleConfig config = named("step");
    config.warmup_samples = 10;
    config.step_samples = 100;
    config.gamma = 0.5;
    CHECK(refusal(config) == "accepted");
    CHECK(schedule_factor(config, 5) == 0.5);
    CHECK(schedule_factor(config, 10) == 1);
    CHECK(schedule_factor(config, 109) == 1);
    CHECK(schedule_factor(config, 110) == 0.5);
    CHECK(schedule_factor(config, 310) == 0.125);
}

TEST_CASE("schedule: cosine falls from 1 to its floor, warm-up included in its length, and stays") {
    ScheduleConfig config = named("cosine");
    config.warmup_samples = 100;
    config.total_samples = 500;
    config.floor = 0.2;
    CHECK(refusal(config) == "accepted");
    CHECK(schedule_factor(config, 50) == 0.5);
    CHECK(schedule_factor(config, 100) == 1);
    CHECK(schedule_factor(config, 300) == Approx(0.6));
    CHECK(schedule_factor(config, 200) == Approx(0.2 + 0.8 * (1 + std::sqrt(0.5)) / 2));
    CHECK(schedule_factor(config, 500) == Approx(0.2));
    CHECK(schedule_factor(config, 90000) == Approx(0.2));
    for (std::uint64_t s = 100; s < 500; ++s) {
        CHECK(schedule_factor(config, s + 1) <= schedule_factor(config, s));
    }
}

TEST_CASE("schedule: what cannot work is refused, by key") {
    CHECK(refusal(named("cosin")).find("did you mean 'cosine'") != std::string::npos);
    CHECK(refusal(named("step")).find("step_samples") != std::string::npos);
    CHECK(refusal(named("cosine")).find("total_samples") != std::string::npos);
    ScheduleConfig config = named("cosine");
    config.warmup_samples = 50;
    config.total_samples = 50;
    CHECK(refusal(config).find("above warmup_samples = 50") != std::string::npos);
    config = named("constant");
    config.gamma = 0;
    CHECK(refusal(config).find("gamma") != std::string::npos);
    config.gamma = std::numeric_limits<double>::quiet_NaN();
    CHECK(refusal(config).find("gamma") != std::string::npos);
    config = named("constant");
    config.floor = 1.5;
    CHECK(refusal(config).find("floor") != std::string::npos);
}

TEST_CASE("schedule: every name it lists passes once its keys are given") {
    for (const std::string& name : schedule_names()) {
        ScheduleConfig config = named(name.c_str());
        config.step_samples = 10;
        config.total_samples = 10;
        CHECK(refusal(config) == "accepted");
    }
}

}  // namespace
TEST_CASE("schedule: it is known of each whether its factor reaches 0") {
    ScheduleConfig config;
    CHECK_FALSE(reaches_zero(config));
    config.warmup_samples = 10;
    CHECK(reaches_zero(config));
    CHECK(schedule_factor(config, 0) == 0);
    config = {"step", 0, 100, 0.5, 0, 0};
    CHECK_FALSE(reaches_zero(config));
    CHECK(schedule_factor(config, 10'000) > 0);
    config = {"cosine", 0, 0, 0.1, 1000, 0};
    CHECK(reaches_zero(config));
    CHECK(schedule_factor(config, 1000) == Approx(0).margin(1e-12));
    config.floor = 0.01;
    CHECK_FALSE(reaches_zero(config));
    CHECK(schedule_factor(config, 1000) > 0.009);
}

}  // namespace detente
