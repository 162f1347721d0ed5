#include "launch/simulation_faults.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <optional>
#include <utility>

#include "common/runtime/sim/index_formula.h"
#include "common/staleness/policy.h"

namespace detente {
namespace {

Error not_of_this_job(const std::string& name, const Job& job) {
    return fail(ErrorCode::bad_job,
                fmt::format("must be worker:0 to worker:{}, server:0 to server:{} or shard:0 to "
                            "shard:{}, found '{}'",
                            job.workers - 1, job.servers - 1, job.shards() - 1, name));
}

void check_fault(const Job& job, std::size_t entry, std::vector<JobProblem>& problems) {
    const FaultConfig& fault = job.simulate.faults[entry];
    const auto complain = [&](const char* key, std::string sentence) {
        problems.push_back({fmt::format("simulate.fault.{}.{}", entry, key), std::move(sentence)});
    };
    const bool of_network = fault.kind == FaultKind::partition || fault.kind == FaultKind::clog;
    const auto nodes = nodes_named(fault.node, job);
    if (!nodes) {
        complain("node", nodes.error().text);
    } else if (!of_network && nodes->front() == kCoordinator) {
        complain("node",
                 "the coordinator cannot be lost (its death ends a run); name a worker or "
                 "a server");
    } else if (fault.kind == FaultKind::nan && nodes->front().role != Role::worker) {
        complain("node", fmt::format("only workers have gradients; found '{}'", fault.node));
    } else if ((fault.kind == FaultKind::drain || fault.kind == FaultKind::join) &&
               nodes->front().role != Role::worker) {
        complain("node", fmt::format("only workers leave and join; found '{}'", fault.node));
    } else if (fault.kind > FaultKind::restart && nodes->front().role != Role::shard) {
        complain("node",
                 fmt::format("only servers and shards have checkpoints to go on from; found '{}'",
                             fault.node));
    }
    if (!fault.peer.empty() && !of_network) {
        complain("peer", "only a partition and a clog have one");
    } else if (!fault.peer.empty()) {
        if (const auto peers = nodes_named(fault.peer, job); !peers) {
            complain("peer", peers.error().text);
        }
    }
    const bool lasts =
        of_network || fault.kind == FaultKind::pause || fault.kind == FaultKind::restart;
    if (lasts && fault.lasts.count() == 0) complain("lasts_s", "must say how long, above 0");
    if (fault.kind == FaultKind::clog && fault.delay.count() == 0) {
        complain("delay_s", "must say by how much, above 0");
    }
}

// Workers and servers that go by the weights that were handed out, which are not those that a
// gradient of imposed staleness is computed at.
std::string against_imposed_staleness(const Job& job) {
    std::vector<PolicyConfig> policies{job.policy};
    for (const PolicyFor& one : job.policy_for) policies.push_back(one.policy);
    for (const PolicyConfig& one : policies) {
        const auto policy = make_policy(one);
        if (!policy) continue;  // said elsewhere
        const PolicyNeeds needs = (*policy)->needs();
        if (needs.look_ahead || needs.stale_weights) {
            return fmt::format("does not go with staleness.policy = \"{}\"", one.name);
        }
    }
    if (job.on_rejection == OnRejection::compensate) {
        return "does not go with worker.on_rejection = \"compensate\"";
    }
    return job.sync_layers.empty() ? "" : "does not go with [sync]";
}

void check_imposed_staleness(const Job& job, std::vector<JobProblem>& problems) {
    const ImposedStalenessConfig& staleness = job.simulate.staleness;
    if (staleness.distribution == "none") return;
    if (const std::string against = against_imposed_staleness(job); !against.empty()) {
        problems.push_back(
            {"simulate.staleness.distribution",
             against + ": that goes by the weights that were handed out, and imposed staleness "
                       "has gradients computed at others; take \"none\""});
    }
    const auto policy = make_policy(job.policy);
    const auto bound = policy ? (*policy)->bound() : std::nullopt;
    if (bound && staleness.distribution == "constant" &&
        std::round(staleness.mean) > static_cast<double>(*bound)) {
        problems.push_back(
            {"simulate.staleness.mean",
             fmt::format(
                 "must not be above {}, found {}: staleness.policy = \"{}\" rejects what is "
                 "older, so that nothing would ever be applied",
                 *bound, staleness.mean, job.policy.name)});
    }
    if (staleness.mean > staleness.most) {
        problems.push_back(
            {"simulate.staleness.mean",
             fmt::format("must not be above most = {}, found {}", staleness.most, staleness.mean)});
    }
}

// As that change leaves it, if those before it are made.
Admission admission_at(const Job& job, std::size_t entry) {
    const std::vector<SimulatedChangeConfig>& changes = job.simulate.changes;
    Admission admission = job.admission;
    std::optional<std::pair<Nanos, std::size_t>> newest;
    for (std::size_t i = 0; i < changes.size(); ++i) {
        const std::pair when(changes[i].at, i);
        const bool before = when <= std::pair(changes[entry].at, entry);
        if (!before || !changes[i].admission || (newest && when < *newest)) continue;
        newest = when;
        admission = *changes[i].admission;
    }
    return admission;
}

// The job under the other policy must be one: whoever asks `detente control` is told the same.
void check_change(const Job& job, std::size_t entry, std::vector<JobProblem>& problems) {
    const SimulatedChangeConfig& change = job.simulate.changes[entry];
    const auto complain = [&](std::string sentence) {
        problems.push_back({fmt::format("simulate.change.{}.policy", entry), std::move(sentence)});
    };
    Job changed = job;
    changed.policy = {change.policy, change.parameters};
    changed.admission = admission_at(job, entry);
    changed.simulate.changes.clear();
    changed.simulate.faults.clear();
    const auto policy = make_policy(changed.policy);
    if (!policy) return complain(policy.error().text);
    if (change.admission) {
        if (const auto fits = check_asked(*change.admission, **policy); !fits) {
            return complain(fits.error().text);
        }
    }
    if (job.simulate.staleness.distribution != "none" &&
        decides_steps(changed) != decides_steps(job)) {
        return complain(
            fmt::format("'{}' and '{}' count versions of different things (of blocks, and of the "
                        "model), which does not go with simulate.staleness: take \"none\"",
                        change.policy, job.policy.name));
    }
    Job as_it_is = job;
    as_it_is.simulate.changes.clear();
    as_it_is.simulate.faults.clear();
    if (!check_job(as_it_is).empty()) return;  // said there
    const std::vector<JobProblem> found = check_job(changed);
    if (!found.empty()) {
        complain(fmt::format("the job would be refused under '{}': {}: {}", change.policy,
                             found.front().path, found.front().sentence));
    }
}

}  // namespace

Result<std::vector<NodeId>> nodes_named(const std::string& name, const Job& job) {
    if (name == "coordinator") return std::vector<NodeId>{kCoordinator};
    const std::size_t colon = name.find(':');
    if (colon == std::string::npos) return not_of_this_job(name, job);
    const std::string role = name.substr(0, colon);
    const std::string rest = name.substr(colon + 1);
    std::uint32_t index = 0;
    const auto read = std::from_chars(rest.data(), rest.data() + rest.size(), index);
    if (read.ec != std::errc() || read.ptr != rest.data() + rest.size()) {
        return not_of_this_job(name, job);
    }
    if (role == "worker" && index < job.workers) {
        return std::vector<NodeId>{node_of(WorkerId{index})};
    }
    if (role == "shard" && index < job.shards()) {
        return std::vector<NodeId>{node_of(ShardId{index})};
    }
    if (role != "server" || index >= job.servers) return not_of_this_job(name, job);
    std::vector<NodeId> shards;
    for (std::uint32_t i = 0; i < job.shards_per_server; ++i) {
        shards.push_back(node_of(ShardId{index * job.shards_per_server + i}));
    }
    return shards;
}

void check_simulation(const Job& job, std::vector<JobProblem>& problems) {
    for (std::size_t i = 0; i < job.simulate.faults.size(); ++i) check_fault(job, i, problems);
    for (std::size_t i = 0; i < job.simulate.changes.size(); ++i) check_change(job, i, problems);
    const ComputeTimeConfig& compute = job.simulate.compute;
    if (compute.distribution == "trace" && compute.trace.empty()) {
        problems.push_back({"simulate.compute.trace",
                            "is missing: distribution \"trace\" takes the times from that file"});
    }
    if (const auto formula = sim::IndexFormula::parse(compute.formula); !formula) {
        problems.push_back({"simulate.compute.formula", formula.error().text});
    }
    if (compute.straggler_factor != 1 && compute.straggler >= job.workers) {
        problems.push_back(
            {"simulate.compute.straggler",
             fmt::format("there is no worker {} among {}", compute.straggler, job.workers)});
    }
    check_imposed_staleness(job, problems);
}

}  // namespace detente
