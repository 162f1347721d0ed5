// Seeds of simulated clusters under faults, each in a process of its own, judged: did it come to
// its end with every batch finished, and did every invariant hold at every event?
//
// Thread: the caller's. Requires: the caller has no other thread (children are forked).
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "common/config.h"
#include "launch/exit_code.h"

namespace detente {

enum class FuzzEnd { passed, no_progress, broken, crashed };
const char* name_of(FuzzEnd end);

struct FuzzVerdict {
    FuzzEnd end = FuzzEnd::passed;
    std::string text;
};

// Runs the case here, in `folder` (made, and emptied afterwards). `twice`: a second time, compared
// event by event; the first that differs is `broken`.
FuzzVerdict judge(const Job& job, const std::string& folder, bool twice);

// The same in a child: what ends a process is `crashed`; what uses up its processor time, or stands
// still for ten minutes, is `no_progress`. Not a minute by the clock: a case with many checkpoints
// waits for the disk (seed 3856 makes 175 and was taken for one that does not end).
constexpr std::chrono::milliseconds kFuzzProcessorTime = std::chrono::minutes(1);
FuzzVerdict judge_apart(const Job& job, bool twice,
                        std::chrono::milliseconds processor_time = kFuzzProcessorTime);

// What there is to say of a case that was run again: a failure that does not come back is told as
// it was.
std::string reported(const FuzzVerdict& first, const FuzzVerdict& again);

// The one line a failure is told by: what it is, and the command that ends with its exit code.
// `file`: the job file of what it was shrunk to; empty: there is none, its seed is run again.
std::string failure_line(std::uint64_t seed, const FuzzVerdict& verdict, const std::string& file,
                         bool twice);

struct FuzzOptions {
    std::string seeds;                  // "A..B" or "A"
    std::string job;                    // a job file in place of seeds
    std::size_t jobs = 1;               // children at once
    bool twice = false;                 // --check-determinism
    bool first_failure = false;         // ends at the first one, as it is
    std::string out = "fuzz-failures";  // where the jobs of failures go
};
// ok; bug: a seed crashed; invariant: one was broken; deadline: one made no progress. The first
// that applies, in this order. A job file is one case, judged as a seed's is.
ExitCode fuzz(const FuzzOptions& options);

}  // namespace detente
