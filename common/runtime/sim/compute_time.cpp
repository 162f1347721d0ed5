#include "common/runtime/sim/compute_time.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numbers>
#include <sstream>
#include <utility>

#include "common/nearest_name.h"
#include "common/random.h"

namespace detente::sim {
namespace {

// Marsaglia & Tsang, "A simple method for generating gamma variables", 2000; mean = shape.
double gamma_of(double shape, Random& random) {
    if (shape < 1) {
        const double lifted = gamma_of(shape + 1, random);
        return lifted * std::pow(1 - random.uniform(), 1 / shape);
    }
    const double d = shape - 1.0 / 3;
    const double c = 1 / std::sqrt(9 * d);
    for (;;) {
        const double x = random.normal();
        const double root = 1 + c * x;
        if (root <= 0) continue;
        const double v = root * root * root;
        const double u = 1 - random.uniform();
        if (std::log(u) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
    }
}

}  // namespace

std::vector<std::string> compute_time_names() {
    return {"constant", "gamma",  "exponential", "half_normal", "lognormal",
            "pareto",   "markov", "index",       "trace"};
}

Result<ComputeTimes> ComputeTimes::create(const ComputeTimeConfig& config, std::uint64_t seed) {
    const std::vector<std::string> names = compute_time_names();
    const auto found = std::find(names.begin(), names.end(), config.distribution);
    if (found == names.end()) {
        return fail(ErrorCode::bad_job, "simulate.compute.distribution: '" + config.distribution +
                                            "' is none; did you mean '" +
                                            nearest_name(config.distribution, names) + "'?");
    }
    ComputeTimes times(config, static_cast<Kind>(found - names.begin()), seed);
    if (times.kind_ == Kind::trace) {
        if (auto read = times.read_trace(); !read) return read.error();
    }
    if (times.kind_ == Kind::index) {
        auto formula = IndexFormula::parse(config.formula);
        if (!formula) {
            return fail(ErrorCode::bad_job, "simulate.compute.formula: " + formula.error().text);
        }
        times.formula_ = std::move(*formula);
    }
    return times;
}

Result<void> ComputeTimes::read_trace() {
    std::ifstream file(config_.trace);
    if (config_.trace.empty() || !file) {
        return fail(ErrorCode::bad_job, "simulate.compute.trace: cannot read '" + config_.trace +
                                            "'; distribution \"trace\" takes the times from it, a "
                                            "line each: WORKER SECONDS");
    }
    std::string line;
    for (std::size_t number = 1; std::getline(file, line); ++number) {
        if (line.empty() || line.front() == '#') continue;
        std::istringstream text(line);
        std::uint32_t worker = 0;
        double seconds = -1;
        constexpr std::uint32_t kMostWorkers = 65536;
        if (!(text >> worker >> seconds) || worker >= kMostWorkers || !(seconds >= 0) ||
            seconds > 1e8) {
            return fail(ErrorCode::bad_job, config_.trace + ":" + std::to_string(number) +
                                                ": expected WORKER SECONDS, like \"2 0.013\", "
                                                "found \"" +
                                                line + "\"");
        }
        if (trace_.size() <= worker) trace_.resize(worker + 1);
        trace_[worker].push_back(seconds);
        all_traced_.push_back(seconds);
    }
    if (all_traced_.empty()) {
        return fail(ErrorCode::bad_job, config_.trace + ": no line WORKER SECONDS in it");
    }
    return {};
}

double ComputeTimes::next_traced(std::uint32_t worker) {
    if (asked_.size() <= worker) asked_.resize(worker + 1, 0);
    const std::size_t asked = asked_[worker]++;
    const bool has_own = worker < trace_.size() && !trace_[worker].empty();
    if (has_own) return trace_[worker][asked % trace_[worker].size()];
    // Each from another line on: two such workers are not to go in step.
    return all_traced_[(worker + asked) % all_traced_.size()];
}

double ComputeTimes::factor(std::uint32_t worker) const {
    double factor = config_.factors.empty() ? 1 : config_.factors[worker % config_.factors.size()];
    if (worker == config_.straggler) factor *= config_.straggler_factor;
    return factor;
}

double ComputeTimes::draw(std::uint32_t worker, std::uint64_t count) {
    Random random(random_key(seed_, Purpose::compute_time, {worker, count}));
    const double spread = config_.spread;
    switch (kind_) {
        case Kind::constant:
        case Kind::trace:
            return 1;
        case Kind::gamma: {
            const double shape = 1 / (spread * spread);
            return gamma_of(shape, random) / shape;
        }
        case Kind::exponential:
            return random.exponential();
        case Kind::half_normal:
            return std::abs(random.normal()) * std::sqrt(std::numbers::pi / 2);
        case Kind::lognormal: {
            const double variance = std::log1p(spread * spread);
            return std::exp(std::sqrt(variance) * random.normal() - variance / 2);
        }
        case Kind::pareto:
            return (config_.alpha - 1) / config_.alpha *
                   std::pow(1 - random.uniform(), -1 / config_.alpha);
        case Kind::markov: {
            if (slow_.size() <= worker) slow_.resize(worker + 1, false);
            const double turn = random.uniform();
            if (slow_[worker] ? turn < config_.to_fast : turn < config_.to_slow) {
                slow_[worker] = !slow_[worker];
            }
            const double shape = 1 / (spread * spread);
            return gamma_of(shape, random) / shape * (slow_[worker] ? config_.slow_factor : 1);
        }
        case Kind::index: {
            const double times = formula_->at(worker, random);
            return times > 0 ? times : 0;  // also where it is not a number
        }
    }
    return 1;
}

Nanos ComputeTimes::next(std::uint32_t worker, std::uint64_t count) {
    double seconds = std::chrono::duration<double>(config_.mean).count();
    if (kind_ == Kind::trace) seconds = next_traced(worker);
    seconds *= draw(worker, count) * factor(worker);
    constexpr double kLongest = 1e9;  // a heavy tail must not overflow the clock
    // A gradient takes time: two of one worker do not end at one instant.
    return Nanos(std::max<std::int64_t>(1, std::llround(std::min(seconds, kLongest) * 1e9)));
}

}  // namespace detente::sim
