#include "launch/clock_invariants.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "common/staleness/policy.h"

namespace detente {
namespace {

// state.workers of ssp and dssp begins with the clock (common/staleness/ssp.cpp).
constexpr std::size_t kClock = 0;

std::uint64_t parameter(const Job& job, const std::string& name) {
    for (const auto& [key, value] : job.policy.parameters) {
        if (key == name) return std::stoull(value);
    }
    for (const ExplainedParameter& one : policy_parameters(job.policy.name)) {
        if (one.name == name) return std::stoull(one.standard);
    }
    return 0;
}

}  // namespace

std::unique_ptr<ClockInvariants> ClockInvariants::create(const Job& job) {
    std::optional<std::uint64_t> bound;
    if (job.policy.name == "ssp") bound = parameter(job, "s");
    if (job.policy.name == "dssp") bound = parameter(job, "s_l") + parameter(job, "r_max");
    if (!bound) return nullptr;
    return std::unique_ptr<ClockInvariants>(new ClockInvariants(*bound));
}

void ClockInvariants::pulled(NodeId shard, const PullRecord& record) {
    // Asked again, or piece by piece: the first counts, what came later may have been overtaken.
    if (!seen_.emplace(shard, record.worker, record.incarnation, record.step).second) return;
    started_.push_back(record);
}

std::optional<std::string> ClockInvariants::after(const Lead* lead) {
    std::optional<std::string> wrong;
    if (lead != nullptr) wrong = read(*lead);
    for (const PullRecord& record : std::exchange(started_, {})) {
        if (!wrong) wrong = check(record);
    }
    return wrong;
}

std::optional<std::string> ClockInvariants::check(const PullRecord& record) {
    const auto found = clocks_.find(record.worker);
    if (found == clocks_.end()) return std::nullopt;  // it will not push
    Clock& clock = found->second;
    if (clock.at - slowest_ > static_cast<double>(bound_)) {
        return fmt::format("worker:{} starts clock {} while the slowest is at {}: the bound is {}",
                           record.worker.value, clock.at, slowest_, bound_);
    }
    if (clock.started && record.step > clock.step && clock.at <= *clock.started) {
        return fmt::format("worker:{} starts step {} at clock {}, where it started step {}",
                           record.worker.value, record.step.value, clock.at, clock.step.value);
    }
    if (!clock.started || record.step > clock.step) {
        clock.started = clock.at;
        clock.step = record.step;
    }
    return std::nullopt;
}

std::optional<std::string> ClockInvariants::read(const Lead& lead) {
    const auto& workers = lead.state().workers;
    std::erase_if(clocks_, [&](const auto& one) { return !workers.contains(one.first); });
    bool first = true;
    for (const auto& [worker, values] : workers) {
        const double at = values[kClock];
        Clock& clock = clocks_[worker];
        if (at < clock.at) {
            return fmt::format("worker:{}'s clock went back from {} to {}", worker.value, clock.at,
                               at);
        }
        clock.at = at;
        slowest_ = first ? at : std::min(slowest_, at);
        first = false;
    }
    return std::nullopt;
}

void ClockInvariants::closed(const ClosedRecord& record) {
    const auto found = clocks_.find(record.worker);
    if (found != clocks_.end() && found->second.step == record.step) found->second.started.reset();
}

void ClockInvariants::restarted() {
    clocks_.clear();
    slowest_ = 0;
}

}  // namespace detente
