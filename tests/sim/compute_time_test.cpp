// How long simulated gradients take.
#include "common/runtime/sim/compute_time.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <sstream>

#include "tests/temporary_folder.h"

namespace detente::test {
namespace {

sim::ComputeTimes times_of(const ComputeTimeConfig& config, std::uint64_t seed = 1) {
    auto times = sim::ComputeTimes::create(config, seed);
    INFO((times ? "" : times.error().text));
    REQUIRE(times.has_value());
    return *times;
}

std::vector<double> drawn(const ComputeTimeConfig& config, std::uint32_t worker,
                          std::uint64_t count, std::uint64_t seed = 1) {
    sim::ComputeTimes times = times_of(config, seed);
    std::vector<double> seconds;
    for (std::uint64_t i = 0; i < count; ++i) {
        seconds.push_back(std::chrono::duration<double>(times.next(worker, i)).count());
    }
    return seconds;
}

double mean_of(const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) sum += value;
    return sum / static_cast<double>(values.size());
}

double spread_of(const std::vector<double>& values) {
    const double mean = mean_of(values);
    double squares = 0;
    for (const double value : values) squares += (value - mean) * (value - mean);
    return std::sqrt(squares / static_cast<double>(values.size())) / mean;
}

TEST_CASE("compute times: each distribution has the mean and the spread it should") {
    struct Expected {
        const char* name;
        double spread;
    };
    for (const auto& [name, spread] :
         {Expected{"constant", 0}, Expected{"gamma", 0.5}, Expected{"exponential", 1},
          Expected{"half_normal", 0.7555}, Expected{"lognormal", 0.5},
          Expected{"pareto", 1 / std::sqrt(4.5 * 2.5)}}) {
        INFO(name);
        ComputeTimeConfig config;
        config.distribution = name;
        config.spread = 0.5;
        config.alpha = 4.5;
        const std::vector<double> seconds = drawn(config, 3, 40'000);
        CHECK(mean_of(seconds) == Approx(0.02).epsilon(0.02));
        CHECK(spread_of(seconds) == Approx(spread).epsilon(0.08).margin(1e-6));
    }
}

TEST_CASE("compute times: gamma keeps its mean and spread where its shape is below 1") {
    ComputeTimeConfig config;
    config.spread = 2;
    const std::vector<double> seconds = drawn(config, 0, 100'000);
    CHECK(mean_of(seconds) == Approx(0.02).epsilon(0.03));
    CHECK(spread_of(seconds) == Approx(2).epsilon(0.05));
}

TEST_CASE("compute times: markov is slow for a while, then fast, in the shares of its rates") {
    ComputeTimeConfig config;
    config.distribution = "markov";
    config.spread = 0.01;
    const std::vector<double> seconds = drawn(config, 0, 40'000);
    std::size_t slow = 0;
    std::size_t turns = 0;
    for (std::size_t i = 0; i < seconds.size(); ++i) {
        slow += seconds[i] > 0.1 ? 1 : 0;
        turns += i > 0 && (seconds[i] > 0.1) != (seconds[i - 1] > 0.1) ? 1 : 0;
    }
    CHECK(static_cast<double>(slow) / 40'000 == Approx(0.02 / 0.22).epsilon(0.1));
    CHECK(static_cast<double>(turns) / 40'000 == Approx(2 * 0.2 * 0.02 / 0.22).epsilon(0.1));
}

TEST_CASE("compute times: index grows with the worker's number") {
    ComputeTimeConfig config;
    config.distribution = "index";
    for (const std::uint32_t worker : {0U, 15U, 99U}) {
        const double deviation = std::pow(worker + 1.0, 0.25);
        const double expected = 1 + std::sqrt(worker) + deviation * std::sqrt(2 / std::acos(-1.0));
        CHECK(mean_of(drawn(config, worker, 20'000)) == Approx(0.02 * expected).epsilon(0.02));
    }
}

TEST_CASE("compute times: an index formula is what it says") {
    const auto value = [](const std::string& text, double i) {
        auto formula = sim::IndexFormula::parse(text);
        INFO(text << ": " << (formula ? "" : formula.error().text));
        REQUIRE(formula.has_value());
        Random random(1);
        return formula->at(i, random);
    };
    CHECK(value("1 + 2 * i - 6 / 3", 4) == 7);
    CHECK(value("-2^2 + (i - 1)^2^0.5", 2) == -3);
    CHECK(value("min(i, 3) + max(i, 3) + abs(-1) + sqrt(16)", 5) == 13);
    CHECK(value("log(exp(2e0))", 0) == Approx(2));
    CHECK(value("10 - 2 - 3", 0) == 5);
    ComputeTimeConfig config;
    config.distribution = "index";
    config.formula = "2 + i * uniform(0, 1) + exponential(0.5) + normal(1, 0.04)";
    CHECK(mean_of(drawn(config, 3, 20'000)) == Approx(0.02 * 5).epsilon(0.02));
    config.formula = "i - 1";
    CHECK(drawn(config, 0, 1).front() == Approx(1e-9));
    CHECK(drawn(config, 3, 1).front() == Approx(0.04));
}

TEST_CASE("compute times: what is wrong in an index formula is said with its place") {
    const auto mistake = [](const std::string& text) {
        const auto formula = sim::IndexFormula::parse(text);
        return formula ? std::string("no mistake") : formula.error().text;
    };
    CHECK_THAT(mistake("1 + "), Catch::Contains("a number, i, a function or '('") &&
                                    Catch::Contains("character 5, found its end"));
    CHECK_THAT(mistake("1 + sqr(i)"), Catch::Contains("one of sqrt, abs") &&
                                          Catch::Contains("character 5, found 'sqr(i)'"));
    // Every function there is, each of which is then missing no more than its values.
    const std::string offered = mistake("sqr(i)");
    const std::size_t from = offered.find("one of ") + 7;
    std::istringstream names(offered.substr(from, offered.find(" at ") - from));
    std::size_t count = 0;
    for (std::string name; std::getline(names >> std::ws, name, ','); ++count) {
        CHECK_THAT(mistake(name + "()"), Catch::Contains("a number, i, a function or '('"));
    }
    CHECK(count == 9);
    CHECK_THAT(mistake("normal(0)"), Catch::Contains("expected ',' at character 9"));
    CHECK_THAT(mistake("(1"), Catch::Contains("expected ')' at character 3"));
    CHECK_THAT(mistake("1 2"), Catch::Contains("an operator or the end at character 3"));
    CHECK_THAT(mistake(std::string(501, '(')), Catch::Contains("at most 500 characters"));
    ComputeTimeConfig config;
    config.distribution = "index";
    config.formula = "";
    const auto times = sim::ComputeTimes::create(config, 1);
    REQUIRE(times.has_error());
    CHECK_THAT(times.error().text, Catch::Contains("simulate.compute.formula: expected"));
}

TEST_CASE("compute times: factors go by worker, and one worker may be a straggler") {
    ComputeTimeConfig config;
    config.distribution = "constant";
    config.factors = {1, 2.5};
    config.straggler = 1;
    config.straggler_factor = 10;
    CHECK(drawn(config, 0, 1).front() == Approx(0.02));
    CHECK(drawn(config, 1, 1).front() == Approx(0.5));
    CHECK(drawn(config, 3, 1).front() == Approx(0.05));
}

TEST_CASE("compute times: a draw is a function of seed, worker and number") {
    const ComputeTimeConfig config;
    const auto first = drawn(config, 1, 50);
    CHECK(first == drawn(config, 1, 50));
    CHECK(first != drawn(config, 2, 50));
    CHECK(first != drawn(config, 1, 50, 2));
}

TEST_CASE("compute times: a trace's times stay with their worker, one without any takes all") {
    const TemporaryFolder folder;
    write_file(folder / "trace", "0 0.125\n2 0.5\n2 0.25\n");
    ComputeTimeConfig config;
    config.distribution = "trace";
    config.trace = folder / "trace";
    CHECK(drawn(config, 0, 2) == std::vector<double>{0.125, 0.125});
    CHECK(drawn(config, 2, 3) == std::vector<double>{0.5, 0.25, 0.5});
    CHECK(drawn(config, 1, 4) == std::vector<double>{0.5, 0.25, 0.125, 0.5});
    CHECK(drawn(config, 3, 2) == std::vector<double>{0.125, 0.5});
    CHECK(drawn(config, 7, 2) == std::vector<double>{0.5, 0.25});
}

TEST_CASE("compute times: a trace is repeated, a line that is none is named") {
    const TemporaryFolder folder;
    write_file(folder / "trace", "# worker seconds\n0 0.5\n0 0.25\n1 3\n");
    ComputeTimeConfig config;
    config.distribution = "trace";
    config.trace = folder / "trace";
    CHECK(drawn(config, 0, 3) == std::vector<double>{0.5, 0.25, 0.5});
    CHECK(drawn(config, 1, 2) == std::vector<double>{3, 3});
    write_file(folder / "trace", "0 0.5\nfast\n");
    auto wrong = sim::ComputeTimes::create(config, 1);
    REQUIRE(wrong.has_error());
    CHECK_THAT(wrong.error().text, Catch::Contains("trace:2: expected WORKER SECONDS"));
    config.trace = folder / "none";
    CHECK(sim::ComputeTimes::create(config, 1).has_error());
}

}  // namespace
}  // namespace detente::test
