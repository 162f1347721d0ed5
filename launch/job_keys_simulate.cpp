// The keys under [simulate].
#include "common/runtime/sim/compute_time.h"
#include "common/runtime/sim/imposed_staleness.h"
#include "common/staleness/policy.h"
#include "launch/job_keys.h"

namespace detente {
namespace {

constexpr Limits kProbability{0, 1};
constexpr Limits kFactor{1e-6, 1e9};
constexpr Limits kVirtualSeconds{0, 1e8};

template <class Member>
auto in_simulate(Member SimulationConfig::*member) {
    return [member](Job& job, std::size_t) -> Slot { return &(job.simulate.*member); };
}
template <class Part, class Member>
auto in_part(Part SimulationConfig::*part, Member Part::*member) {
    return [part, member](Job& job, std::size_t) -> Slot { return &(job.simulate.*part.*member); };
}
template <class Member>
auto in_fault(Member FaultConfig::*member) {
    return [member](Job& job, std::size_t i) -> Slot { return &(job.simulate.faults[i].*member); };
}

Table simulate_table() {
    return {"simulate",
            false,
            "Of `detente simulate` only: the same job on virtual time, in one process. A real run "
            "ignores it.",
            {{"limit_s", "s", "Virtual time after which a run that has not ended is ended.",
              in_simulate(&SimulationConfig::limit), kVirtualSeconds},
             {"invariants", "",
              "Checks after every event that the books of updates balance and versions grow.",
              in_simulate(&SimulationConfig::invariants)},
             {"thorough", "",
              "Follows every update besides: applied once, in one order on all shards, within the "
              "policy's bound, and folded over the first weights it gives the weights. Keeps an "
              "entry per update.",
              in_simulate(&SimulationConfig::thorough)}}};
}

Table compute_table() {
    const auto in = [](auto ComputeTimeConfig::*member) {
        return in_part(&SimulationConfig::compute, member);
    };
    return {
        "simulate.compute",
        false,
        "How long a gradient takes. Each is drawn from (seed, worker, its number).",
        {{"distribution",
          "",
          "constant; gamma and lognormal (spread); exponential; half_normal; pareto (alpha); "
          "markov: slow for a while, then fast; index: by a formula in the worker's number; trace: "
          "recorded times.",
          in(&ComputeTimeConfig::distribution),
          {},
          sim::compute_time_names()},
         {"mean_s", "s", "Its mean; markov: the mean in the fast state.",
          in(&ComputeTimeConfig::mean), kVirtualSeconds},
         {"spread",
          "",
          "gamma, lognormal: standard deviation over mean.",
          in(&ComputeTimeConfig::spread),
          {0.001, 100}},
         {"alpha",
          "",
          "pareto: exponent of the tail; the variance is finite above 2.",
          in(&ComputeTimeConfig::alpha),
          {1.001, 1000}},
         {"slow_factor", "times", "markov: how much longer a gradient takes in the slow state.",
          in(&ComputeTimeConfig::slow_factor), kFactor},
         {"to_slow", "", "markov: probability per gradient to become slow.",
          in(&ComputeTimeConfig::to_slow), kProbability},
         {"to_fast", "", "markov: probability per gradient to become fast again.",
          in(&ComputeTimeConfig::to_fast), kProbability},
         {"factors", "times",
          "Of worker 0, 1, …: each takes so many times as long; from the start again where there "
          "are more workers.",
          in(&ComputeTimeConfig::factors), kFactor},
         {"straggler", "", "The number of the worker that straggler_factor is for.",
          in(&ComputeTimeConfig::straggler)},
         {"straggler_factor", "times", "One worker takes so many times as long.",
          in(&ComputeTimeConfig::straggler_factor), kFactor},
         {"formula", "",
          "index: worker i takes so many times mean_s. Of numbers, i, + - * / ^, parentheses, "
          "sqrt, "
          "abs, exp, log, min, max, and draws of normal(mean, variance), uniform(from, to), "
          "exponential(mean); what is below 0 counts as 0.",
          in(&ComputeTimeConfig::formula)},
         {"trace", "",
          "File of recorded times (from this file's folder), a line each: WORKER SECONDS. A worker "
          "repeats its own; one without any goes through those of all.",
          in(&ComputeTimeConfig::trace)},
         {"cancel_s", "s", "From the order to cancel a computation to its end.",
          in(&ComputeTimeConfig::cancel), kVirtualSeconds}}};
}

Table network_table() {
    const auto in = [](auto SimulatedNetworkConfig::*member) {
        return in_part(&SimulationConfig::network, member);
    };
    return {"simulate.network",
            false,
            "Between servers and workers, each a host of its own. Messages from and to the "
            "coordinator travel as over TCP: none is lost.",
            {{"latency_s", "s", "Of every message.", in(&SimulatedNetworkConfig::latency),
              kVirtualSeconds},
             {"jitter_s", "s", "Added to it, uniform from 0 to this: reorders.",
              in(&SimulatedNetworkConfig::jitter), kVirtualSeconds},
             {"bandwidth",
              "bytes per second",
              "Of each node's link, each way, with a queue at each end; 0 = without limit.",
              [](Job& job, std::size_t) -> Slot {
                  return ByteSlot{&job.simulate.network.bandwidth_bytes_per_s};
              },
              {0, 1e15}},
             {"drop", "", "Probability that a message is lost.", in(&SimulatedNetworkConfig::drop),
              kProbability},
             {"duplicate", "", "… that it arrives twice.", in(&SimulatedNetworkConfig::duplicate),
              kProbability},
             {"corrupt", "", "… that a bit of its payload is flipped.",
              in(&SimulatedNetworkConfig::corrupt), kProbability}}};
}

Table shard_table() {
    return {
        "simulate.shard",
        false,
        "What a shard takes for a worker's message: one after the other, so that workers queue. "
        "Without it a shard takes no virtual time.",
        {{"message_s", "s", "For each message.",
          [](Job& job, std::size_t) -> Slot { return &job.simulate.shard.message; },
          kVirtualSeconds},
         {"bytes_per_s",
          "bytes per second",
          "For the gradients of a push, and for the weights that are asked for; 0 = without "
          "limit.",
          [](Job& job, std::size_t) -> Slot { return ByteSlot{&job.simulate.shard.bytes_per_s}; },
          {0, 1e15}}}};
}

Table collective_table() {
    const auto in = [](auto SimulatedCollectiveConfig::*member) {
        return in_part(&SimulationConfig::collective, member);
    };
    return {"simulate.collective",
            false,
            "Inside a node, where [sync] averages gradients: as a ring of its members takes.",
            {{"latency_s", "s", "Of every message from member to member.",
              in(&SimulatedCollectiveConfig::latency), kVirtualSeconds},
             {"bandwidth",
              "bytes per second",
              "Of each member; 0 = without limit.",
              [](Job& job, std::size_t) -> Slot {
                  return ByteSlot{&job.simulate.collective.bandwidth_bytes_per_s};
              },
              {0, 1e15}}}};
}

Table staleness_table() {
    const auto in = [](auto ImposedStalenessConfig::*member) {
        return in_part(&SimulationConfig::staleness, member);
    };
    return {
        "simulate.staleness",
        false,
        "Imposed staleness, for laws and clean comparisons: a gradient is computed at weights "
        "that are so many versions old when it is judged, whatever the number of workers and "
        "their times. In step scope: so many when it is done; what is decided until its verdict "
        "comes on top. One thread computes.",
        {{"distribution",
          "",
          "none; constant; uniform (0 to twice the mean); geometric; poisson.",
          in(&ImposedStalenessConfig::distribution),
          {},
          sim::imposed_staleness_names()},
         {"mean", "versions", "Its mean.", in(&ImposedStalenessConfig::mean), {0, 1e6}},
         {"most",
          "versions",
          "No gradient is made older; so many versions are kept.",
          in(&ImposedStalenessConfig::most),
          {1, 1e6}}}};
}

Table fault_table() {
    return {
        "simulate.fault",
        true,
        "What goes wrong, and when.",
        {{"kind",
          "",
          "crash: the process is gone; pause: it stands still for lasts_s (longer than "
          "deadlines.peer_s: it is given up, and comes back as a zombie); partition: no message "
          "between node and peer arrives; clog: they take delay_s longer; nan: the worker's next "
          "gradient holds a NaN; drain: the worker is asked to leave, as by `detente control "
          "--drain`; join: "
          "one takes the worker's place as soon as it is vacant, as by `detente join --worker`; "
          "restart: a worker crashes, and lasts_s later one takes its place; a server crashes, "
          "which ends a run, and lasts_s later the job is begun again from its last checkpoint, as "
          "with --resume; torn_slice, "
          "altered_slice, lost_manifest: from at_s on the next restart finds the newest "
          "checkpoint with this server's part of it cut short or with a bit flipped, or without "
          "its manifest.",
          [](Job& job, std::size_t i) -> Slot {
              return ChoiceSlot{
                  [&job, i] { return static_cast<std::size_t>(job.simulate.faults[i].kind); },
                  [&job, i](std::size_t chosen) {
                      job.simulate.faults[i].kind = static_cast<FaultKind>(chosen);
                  }};
          },
          {},
          {"crash", "pause", "partition", "clog", "nan", "drain", "join", "restart", "torn_slice",
           "altered_slice", "lost_manifest"}},
         {"node",
          "",
          "\"worker:2\", \"server:0\" (all its shards) or \"shard:1\"; where the network is meant "
          "also \"coordinator\".",
          in_fault(&FaultConfig::node),
          {},
          {},
          true},
         {"peer", "", "partition, clog: the other side; empty = everybody.",
          in_fault(&FaultConfig::peer)},
         {"at_s", "s", "When it begins.", in_fault(&FaultConfig::at), kVirtualSeconds},
         {"lasts_s", "s",
          "pause, partition, clog: how long; restart: until a worker takes the place, or the job "
          "is "
          "begun again.",
          in_fault(&FaultConfig::lasts), kVirtualSeconds},
         {"delay_s", "s", "clog: added to the latency.", in_fault(&FaultConfig::delay),
          kVirtualSeconds},
         {"both_ways", "", "partition, clog: false = only what node sends to peer.",
          in_fault(&FaultConfig::both_ways)}},
        {},
        {},
        [](Job& job, const auto&) { job.simulate.faults.emplace_back(); },
        [](const Job& job) { return job.simulate.faults.size(); }};
}

Table change_table() {
    const auto of = [](Job& job, std::size_t i) -> SimulatedChangeConfig& {
        return job.simulate.changes[i];
    };
    return {
        "simulate.change",
        true,
        "A live change of the staleness policy, as by `detente control`; its parameters stand "
        "beside it. What a running job would refuse is refused, with a warning in the lead "
        "shard's log. A job that is begun again has its own policy again.",
        {{"policy",
          "",
          "The policy from then on.",
          [of](Job& job, std::size_t i) -> Slot { return &of(job, i).policy; },
          {},
          policy_names()},
         {"admission",
          "",
          "Who judges from then on, like staleness.admission; unchanged: as it is at that time.",
          [of](Job& job, std::size_t i) -> Slot {
              return ChoiceSlot{[&job, i, of]() -> std::size_t {
                                    const auto& asked = of(job, i).admission;
                                    return asked ? 1 + static_cast<std::size_t>(*asked) : 0;
                                },
                                [&job, i, of](std::size_t chosen) {
                                    auto& asked = of(job, i).admission;
                                    asked.reset();
                                    if (chosen > 0) asked = static_cast<Admission>(chosen - 1);
                                }};
          },
          {},
          {"unchanged", "block", "step"}},
         {"at_s", "s", "When it is asked for.",
          [of](Job& job, std::size_t i) -> Slot { return &of(job, i).at; }, kVirtualSeconds}},
        [of](Job& job, std::size_t i) -> ParameterList& { return of(job, i).parameters; },
        [of](Job& job, std::size_t i) { return policy_parameters(of(job, i).policy); },
        [](Job& job, const auto&) { job.simulate.changes.emplace_back(); },
        [](const Job& job) { return job.simulate.changes.size(); }};
}

}  // namespace

std::vector<Table> simulate_tables() {
    return {simulate_table(),   compute_table(),   network_table(), shard_table(),
            collective_table(), staleness_table(), fault_table(),   change_table()};
}

}  // namespace detente
