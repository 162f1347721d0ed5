// What the shards of a run recorded, read back for a replay: every entry of their ledgers, and what
// must be known of a step before its first entry is reached.
//
// Thread: pure reading. In memory: about 200 bytes per entry.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/collective/group.h"
#include "common/config.h"
#include "common/ids.h"
#include "common/ledger_controls.h"
#include "common/ledger_entry.h"
#include "common/result.h"
#include "launch/run_directory.h"
#include "ps/ledger.h"

namespace detente {

// One computed gradient.
struct StepKey {
    WorkerId worker;
    Incarnation incarnation;
    Step step;
    auto operator<=>(const StepKey&) const = default;
};
template <class Record>
StepKey key_of(const Record& record) {
    return {record.worker, record.incarnation, record.step};
}
std::string to_string(const StepKey& key);  // "worker:1, step 12"

// A round of averages of a group of workers that keep layers in step.
struct RoundKey {
    GroupEpoch group;
    Step round;
    auto operator<=>(const RoundKey&) const = default;
};

struct RecordedStep {
    BatchRange batch;
    std::uint64_t gradient_hash = 0;  // 0 = not made
    std::size_t rows = 0;             // verdicts on its blocks, over all shards
    // Versions it was computed at: what the pushes say, or, of blocks that were not pushed, what
    // the pulls say.
    std::map<BlockId, Version> base;
    std::vector<BlockId> pushed;
    std::uint32_t samples = 0;  // behind its pushes, the most of any
    // Where some of its rows went into averages of its node, which ones, and with what weight.
    std::optional<RoundKey> round;
    TaskSet brought;
    std::uint32_t share_samples = 0;
    // It went on with the averages; else it was given up, and nothing pushed.
    bool averaged = false;
    // Where it was not computed, but is that step's rejected gradient, carried to newer weights.
    std::optional<StepKey> carries;
};

struct RecordedShard {
    LedgerOrigin origin;
    std::optional<RestoredFrom> restored;  // none: began with the model's first weights
    std::vector<LedgerEntry> entries;
};

struct RecordedRound {
    // Ascending by worker, the order in which they are summed.
    std::vector<StepKey> shares;
    std::uint32_t samples = 0;  // behind the averages, by those who got them; 0: nobody said so
    bool averaged = false;      // somebody went on with them
};

struct Recording {
    RunDirectory run;
    Job job;
    std::vector<RecordedShard> shards;  // by shard
    // Those that a verdict was recorded of, or that are in averages of others' steps.
    std::map<StepKey, RecordedStep> steps;
    std::map<RoundKey, RecordedRound> rounds;
    // Workers whose ledgers are here, with what their conflict methods went on from, if anything:
    // a checkpoint, or what the worker whose place they took remembered.
    std::map<std::pair<WorkerId, Incarnation>, std::optional<MethodState>> workers;
    std::vector<std::string> machines;  // of the workers: what bits depend on
    std::vector<std::string> remarks;   // ends that are not whole, a sentence each
};

// `overrides`: as after --set; for model.* and data.*, where these lie elsewhere now. io,
// bad_message: no run directory, or a ledger of it is missing or not readable, or its shards did
// not begin with one checkpoint. not_supported: the run was begun again while it went on, or its
// averages were summed by a library, in an order of its own.
Result<Recording> read_recording(const std::string& directory,
                                 const std::vector<std::string>& overrides);

}  // namespace detente
