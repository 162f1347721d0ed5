#include "launch/simulation_faults.h"

#include <fmt/format.h>

#include <charconv>

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
    } else if (fault.kind >= FaultKind::restart && nodes->front().role != Role::shard) {
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
    const ComputeTimeConfig& compute = job.simulate.compute;
    if (compute.distribution == "trace" && compute.trace.empty()) {
        problems.push_back({"simulate.compute.trace",
                            "is missing: distribution \"trace\" takes the times from that file"});
    }
    if (compute.straggler_factor != 1 && compute.straggler >= job.workers) {
        problems.push_back(
            {"simulate.compute.straggler",
             fmt::format("there is no worker {} among {}", compute.straggler, job.workers)});
    }
    const ImposedStalenessConfig& staleness = job.simulate.staleness;
    if (staleness.distribution != "none" && !job.push_pull) {
        problems.push_back({"simulate.staleness.distribution",
                            "needs worker.push_pull = true: imposed weights are those that went "
                            "over the wire before, and without it not every version does"});
    }
    if (staleness.mean > staleness.most) {
        problems.push_back(
            {"simulate.staleness.mean",
             fmt::format("must not be above most = {}, found {}", staleness.most, staleness.mean)});
    }
}

}  // namespace detente
