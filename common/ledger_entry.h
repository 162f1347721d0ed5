// What the ledger records: enough to replay the run. One entry per pull, per part's verdicts, per
// lease and per control change; written by the node that decided, in its order.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "common/ids.h"
#include "common/messages.h"

namespace detente {

struct PullRecord {
    WorkerId worker;
    Incarnation incarnation;
    Step step;
    // Versions handed out, one per block of `blocks`.
    std::vector<BlockId> blocks;
    Epoch epoch;
    std::vector<Version> versions;
};
struct VerdictRecord {
    struct Row {
        BlockId block;
        TaskSet tasks;
        Version base;
        Version version;  // after
        std::uint64_t staleness = 0;
        float step_scale = 1;
        Verdict verdict = Verdict::applied;
        ErrorCode reason = ErrorCode::internal;
    };
    WorkerId worker;
    Incarnation incarnation;
    Step step;
    Part part;
    Epoch epoch;
    BatchRange batch;
    std::uint32_t samples = 0;
    std::vector<Row> rows;
};
// A step closed without a push: cancelled or lost, `blocks` of this shard.
struct ClosedRecord {
    WorkerId worker;
    Incarnation incarnation;
    Step step;
    std::uint32_t blocks = 0;
    bool lost = false;
    std::string reason;
};
struct LeaseRecord {
    WorkerId worker;
    Incarnation incarnation;
    bool granted = true;  // false: given back
    BatchRange range;
};
struct ControlRecord {
    std::string what;  // "started", "checkpoint 3", "stop: …", "worker:1 lost: …"
};

struct LedgerEntry {
    Time at;
    std::variant<PullRecord, VerdictRecord, ClosedRecord, LeaseRecord, ControlRecord> record;
};

}  // namespace detente
