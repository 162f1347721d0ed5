// The vectors that a worker keeps from step to step, as its file of a checkpoint: the averages or
// squares of conflict methods (ConflictRows), what gates need of the step before (GateRows), and
// those of staleness policies with a half in the worker (WorkerHalves).
//
// One safetensors file: `block.<id>.task<t>`, `gate.<number>.<place>`, and
// `block.<id>.half.<policy>.<place>` with `halves.computed`, gradients by block id; in the metadata
// the conflict method that the first are of.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "common/partition/plan.h"
#include "common/payload.h"
#include "common/result.h"
#include "worker/held_gradients.h"
#include "worker/worker_halves.h"

namespace detente {

struct KeptVectors {
    std::string method;
    std::shared_ptr<const TaskVectors> tasks;     // null: none
    std::shared_ptr<const GateVectors> gates;     // likewise
    std::shared_ptr<const HalfVectors> halves{};  // likewise
};

// The file as pieces; no piece where there is nothing. Vectors are shared, not copied. over_limit:
// too many for one file's header.
Result<std::vector<Payload>> to_pieces(const KeptVectors& kept, std::size_t tasks);

// io; bad_checkpoint: no such file, or of blocks of another size than the plan's.
Result<KeptVectors> read_kept(const std::string& path, const Plan& plan, std::size_t tasks);

}  // namespace detente
