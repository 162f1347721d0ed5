// What a job file says under [simulate]: of a simulated run's times, network and faults. A real run
// validates it and does nothing with it. Plain values.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/admission.h"
#include "common/ids.h"

namespace detente {

struct ComputeTimeConfig {  // [simulate.compute]: of one gradient, all its tasks
    std::string distribution = "gamma";
    Nanos mean = std::chrono::milliseconds(20);
    double spread = 0.25;     // gamma, lognormal: standard deviation over mean
    double alpha = 2.5;       // pareto: exponent of the tail
    double slow_factor = 10;  // markov: how much longer a gradient takes in the slow state
    double to_slow = 0.02;    // markov: probabilities per gradient
    double to_fast = 0.2;
    std::vector<double> factors;  // of worker 0, 1, …: each takes so many times as long
    std::uint32_t straggler = 0;  // this worker …
    double straggler_factor = 1;  // … takes so many times as long
    std::string trace;            // file of recorded times
    // index: worker i takes so many times the mean (common/runtime/sim/index_formula.h)
    std::string formula = "1 + sqrt(i) + abs(normal(0, sqrt(i + 1)))";
    Nanos cancel{0};  // from the order to stop to the stop
};

struct SimulatedNetworkConfig {  // [simulate.network]
    Nanos latency = std::chrono::microseconds(50);
    Nanos jitter{0};
    std::uint64_t bandwidth_bytes_per_s = 0;  // 0 = without limit
    double drop = 0;
    double duplicate = 0;
    double corrupt = 0;
};

// [simulate.shard]: what a shard takes for a message of a worker's; the next ones wait meanwhile.
struct SimulatedShardConfig {
    Nanos message{0};
    std::uint64_t bytes_per_s =
        0;  // of a push's gradients, or of the weights it hands out; 0 = any
};

struct SimulatedCollectiveConfig {  // [simulate.collective]: averages inside a node
    Nanos latency = std::chrono::microseconds(20);
    std::uint64_t bandwidth_bytes_per_s =
        0;  // of each member, as a ring uses it; 0 = without limit
};

struct ImposedStalenessConfig {  // [simulate.staleness]
    std::string distribution = "none";
    double mean = 0;          // versions
    std::uint32_t most = 64;  // versions that are kept
};

// The last three are of the checkpoint that the next restart finds.
enum class FaultKind {
    crash,
    pause,
    partition,
    clog,
    nan,
    drain,
    join,
    restart,
    torn_slice,
    altered_slice,
    lost_manifest
};
struct FaultConfig {  // [[simulate.fault]]
    FaultKind kind = FaultKind::crash;
    std::string node;  // "worker:2", "server:0", "shard:1", "coordinator"
    std::string peer;  // partition, clog: the other side; empty = everybody
    Nanos at{0};
    Nanos lasts{0};
    Nanos delay{0};  // clog
    bool both_ways = true;
};

struct SimulatedChangeConfig {  // [[simulate.change]]
    Nanos at{0};
    std::string policy = "async";
    std::vector<std::pair<std::string, std::string>> parameters;
    std::optional<Admission> admission;  // nothing = as it is at that time
};

struct SimulationConfig {
    Nanos limit = std::chrono::seconds(1'000'000);  // of virtual time
    bool invariants = true;
    bool thorough = false;  // follows every update (launch/protocol_invariants.h)
    ComputeTimeConfig compute;
    SimulatedNetworkConfig network;
    SimulatedShardConfig shard;
    SimulatedCollectiveConfig collective;
    ImposedStalenessConfig staleness;
    std::vector<FaultConfig> faults;
    std::vector<SimulatedChangeConfig> changes;
};

}  // namespace detente
