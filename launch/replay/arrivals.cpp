#include "launch/replay/arrivals.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

namespace detente {
namespace {

struct Span {
    std::optional<Time> handed_out;
    std::optional<Time> arrived;
};

// Of a node's gradients one is pushed: with it the others' have arrived, each since its own pull.
void arrive_by_averages(const Recording& recording, std::map<StepKey, Span>& spans) {
    for (const auto& [key, round] : recording.rounds) {
        std::optional<Time> arrived;
        for (const StepKey& one : round.shares) {
            const auto span = spans.find(one);
            if (span != spans.end() && span->second.arrived) {
                arrived = std::max(arrived.value_or(*span->second.arrived), *span->second.arrived);
            }
        }
        for (const StepKey& one : round.shares) {
            const auto span = spans.find(one);
            if (span != spans.end() && !span->second.arrived) span->second.arrived = arrived;
        }
    }
}

}  // namespace

Result<std::string> arrival_times(const Recording& recording) {
    // The longest over shards: each has a clock of its own.
    std::map<StepKey, Nanos> taken;
    for (const RecordedShard& shard : recording.shards) {
        std::map<StepKey, Span> spans;
        for (const LedgerEntry& entry : shard.entries) {
            if (const auto* pull = std::get_if<PullRecord>(&entry.record)) {
                Span& span = spans[key_of(*pull)];  // answered again later: a lost answer, or late
                if (!span.arrived) span.handed_out = entry.at;
            } else if (const auto* push = std::get_if<VerdictRecord>(&entry.record)) {
                Span& span = spans[key_of(*push)];
                span.arrived =
                    span.arrived ? std::max(*span.arrived, push->arrived) : push->arrived;
            }
        }
        arrive_by_averages(recording, spans);
        for (const auto& [key, span] : spans) {
            // A gradient that was carried took no computing, in a simulation neither.
            const auto step = recording.steps.find(key);
            if (step != recording.steps.end() && step->second.carries) continue;
            if (!span.handed_out || !span.arrived || *span.handed_out < Time{} ||
                *span.arrived < *span.handed_out) {
                continue;
            }
            Nanos& longest = taken[key];
            longest = std::max(longest, *span.arrived - *span.handed_out);
        }
    }
    if (taken.empty()) {
        return fail(ErrorCode::bad_message,
                    fmt::format("{}: no gradient was both pulled for and pushed: there are no "
                                "arrivals to judge again",
                                recording.run.ledger_dir()));
    }
    std::string text = "# WORKER SECONDS: from pull to arrival, as recorded\n";
    for (const auto& [key, duration] : taken) {
        text += fmt::format("{} {:.9f}\n", key.worker.value,
                            std::chrono::duration<double>(duration).count());
    }
    return text;
}

Job job_of_arrivals(Job job, const std::string& trace) {
    SimulationConfig& simulate = job.simulate;
    SimulationConfig fresh;
    fresh.limit = simulate.limit;
    fresh.invariants = simulate.invariants;
    fresh.thorough = simulate.thorough;
    fresh.compute.distribution = "trace";
    fresh.compute.trace = trace;
    fresh.compute.cancel = simulate.compute.cancel;
    fresh.network.latency = Nanos{0};
    fresh.collective.latency = Nanos{0};
    simulate = std::move(fresh);
    return job;
}

}  // namespace detente
