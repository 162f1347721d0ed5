// Who computed, pushed and waited when, put together from the ledgers of a run's shards.
//
// A step of a worker is computed from the moment the last shard handed out its weights until the
// first verdict of its push; pushed until the last verdict; then the worker waits for the weights
// of its next step. What travels counts as computing. Under step scope a verdict comes when the
// whole step is decided, so computing includes the wait for it: `step_scope` says so.
//
// Each shard has a clock of its own. They are brought together by the median difference of the
// times at which two shards handed out weights for the same step: right to about a round trip.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/ids.h"
#include "common/result.h"
#include "launch/report/step_time_stretches.h"

namespace detente {

enum class Doing { computing, pushing, waiting };
const char* name_of(Doing doing);

struct Span {
    WorkerId worker;
    Incarnation incarnation{1};
    Step step;
    Doing doing = Doing::computing;
    double begin_s = 0;  // by the lead shard's clock
    double end_s = 0;
    // Of the step, on spans of pushing:
    std::uint32_t applied = 0;  // updates of one block
    std::uint32_t wasted = 0;   // rejected, cancelled or lost
    std::uint64_t staleness = 0;
};

struct Timeline {
    std::vector<Span> spans;  // by worker, then time
    std::vector<WorkerId> workers;
    double begin_s = 0;
    double end_s = 0;
    bool step_scope = false;
    std::vector<std::string> remarks;  // what is left out and why
    // Counters of the trace, by worker; of the run's series, not of the ledgers.
    std::vector<StepTimeStretch> step_times{};

    // Of what is shown of a run; the rest is left out, and a remark says so.
    static constexpr std::size_t kMostSteps = 200'000;
};

// From the ledger/ folder of a run. Ledgers that a crash cut off give what is whole. No ledger:
// an empty timeline with a remark. bad_message, bad_checksum, io: a file that is no ledger, or was
// altered, named.
Result<Timeline> read_timeline(const std::string& ledger_dir);

// For Perfetto (ui.perfetto.dev) and chrome://tracing: one track per worker, one slice per span;
// and five counters per worker, the milliseconds of a step that went to each part, mean of the
// steps of a stretch. The stretches begin where training does, and so do the spans: their clocks,
// the coordinator's and the lead shard's, are laid one on the other there.
std::string to_trace_json(const Timeline& timeline, const std::string& job);

}  // namespace detente
