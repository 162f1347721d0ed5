#include "launch/node_groups.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace detente {

NodeGroups::NodeGroups(const Job& job)
    : designated_(!job.sync_layers.empty()), virtual_nodes_(job.nodes), workers_(job.workers) {}

NodeGroups::Node& NodeGroups::node_of_worker(const Endpoint& worker) {
    std::string name = worker.host;
    if (virtual_nodes_ > 0) {
        // Whoever joined beyond the first ones goes to the nodes by turns.
        const std::uint64_t index = worker.node.index;
        const std::uint64_t part = index < workers_ ? index * virtual_nodes_ / workers_
                                                    : (index - workers_) % virtual_nodes_;
        name += fmt::format(", part {}", part);
    }
    const auto found = std::find_if(nodes_.begin(), nodes_.end(),
                                    [&](const Node& node) { return node.name == name; });
    if (found != nodes_.end()) return *found;
    nodes_.emplace_back().name = name;
    return nodes_.back();
}

NodeGroups::Node* NodeGroups::find(WorkerId worker) {
    for (Node& node : nodes_) {
        const auto has = [worker](const Group& group) {
            return group.index_of(worker) < group.members.size();
        };
        if (has(node.group) || std::any_of(node.apart.begin(), node.apart.end(), has)) return &node;
    }
    return nullptr;
}

Group NodeGroups::next_group(std::vector<WorkerId> members) {
    epoch_ = next(epoch_);
    std::sort(members.begin(), members.end());
    return {epoch_, std::move(members)};
}

Result<std::vector<Group>> NodeGroups::begin(const std::vector<Endpoint>& workers) {
    for (const Endpoint& worker : workers) {
        node_of_worker(worker).group.members.push_back(WorkerId{worker.node.index});
    }
    std::vector<Group> formed;
    for (Node& node : nodes_) {
        if (node.group.members.size() > kMostGroupMembers) {
            return fail(ErrorCode::bad_job,
                        fmt::format("sync.layers: {} workers are of one node ({}), at most {} may "
                                    "average: set launch.nodes to make several of them",
                                    node.group.members.size(), node.name, kMostGroupMembers));
        }
        node.group = next_group(std::move(node.group.members));
        formed.push_back(node.group);
    }
    return formed;
}

std::vector<Group> NodeGroups::joined(const Endpoint& worker) {
    Node& node = node_of_worker(worker);
    std::vector<WorkerId> members = node.group.members;
    const WorkerId id{worker.node.index};
    std::erase_if(members, [&](WorkerId member) { return node.left.contains(member); });
    node.left.clear();
    if (std::find(members.begin(), members.end(), id) == members.end()) members.push_back(id);
    if (members.size() > kMostGroupMembers) {  // it goes on by itself
        node.apart.push_back(next_group({id}));
        return {node.apart.back()};
    }
    node.group = next_group(std::move(members));
    node.reported.clear();
    node.attempts = 0;
    return {node.group};
}

// Forms a node's group anew without these; those that live get groups of their own.
std::vector<Group> NodeGroups::without(Node& node, const std::set<WorkerId>& left_out, bool alive) {
    std::vector<WorkerId> members;
    std::vector<Group> formed;
    for (const WorkerId member : node.group.members) {
        if (node.left.contains(member)) continue;
        if (!left_out.contains(member)) {
            members.push_back(member);
        } else if (alive) {
            node.apart.push_back(next_group({member}));
            formed.push_back(node.apart.back());
        }
    }
    node.group = next_group(std::move(members));
    node.reported.clear();
    node.left.clear();
    if (!node.group.members.empty()) formed.push_back(node.group);
    return formed;
}

// Back for less than it was away, it is away for twice as long.
void NodeGroups::miss(Node& node, const std::set<WorkerId>& workers, Time now) {
    for (const WorkerId worker : workers) {
        const auto [found, first] = node.missed.try_emplace(worker);
        Absence& absence = found->second;
        const bool again = !first && now < absence.until + absence.lasts;
        absence.lasts = again ? std::min(2 * absence.lasts, kReturnsAtMost) : kReturnsAfter;
        absence.until = now + absence.lasts;
    }
}

// Those whose absence is over. A group that all failed to form is not tried again by this.
std::vector<Group> NodeGroups::take_in_again(Node& node, Time now) {
    std::vector<WorkerId> members = node.group.members;
    const std::size_t before = members.size();
    std::erase_if(node.apart, [&](const Group& alone) {
        const WorkerId worker = alone.members.front();
        const auto absence = node.missed.find(worker);
        if (absence == node.missed.end() || now < absence->second.until ||
            members.size() >= kMostGroupMembers) {
            return false;
        }
        members.push_back(worker);
        return true;
    });
    if (members.size() == before) return {};
    node.group = next_group(std::move(members));
    node.reported.clear();
    node.attempts = 0;
    return {node.group};
}

std::vector<Group> NodeGroups::gone(WorkerId worker, bool in_order) {
    Node* node = find(worker);
    if (node == nullptr) return {};
    node->missed.erase(worker);
    std::erase_if(node->apart,
                  [worker](const Group& group) { return group.members.front() == worker; });
    if (node->group.index_of(worker) == node->group.members.size()) return {};
    node->attempts = 0;
    if (in_order) {
        node->left.insert(worker);
        return {};
    }
    return without(*node, {worker}, false);
}

std::vector<Group> NodeGroups::lost(WorkerId from, const LostGroup& lost, Time now) {
    Node* node = find(from);
    if (node == nullptr || lost.epoch != node->group.epoch) return {};  // it was formed anew since
    if (!lost.missing.empty()) {
        node->attempts = 0;
        const std::set<WorkerId> missing{lost.missing.begin(), lost.missing.end()};
        miss(*node, missing, now);
        return without(*node, missing, true);
    }
    if (node->reported.empty()) node->first_report = now;
    node->reported.insert(from);
    if (node->reported.size() < node->group.members.size()) return {};
    if (++node->attempts < kMostAttempts) return without(*node, {}, true);
    node->attempts = 0;
    node->missed.clear();
    gave_up_ = true;
    return without(*node, node->reported, true);  // each by itself
}

std::vector<Group> NodeGroups::tick(Time now) {
    std::vector<Group> formed;
    for (Node& node : nodes_) {
        if (!node.left.empty()) {
            for (Group& group : without(node, {}, true)) formed.push_back(std::move(group));
        }
        if (node.reported.empty()) {
            for (Group& group : take_in_again(node, now)) formed.push_back(std::move(group));
            continue;
        }
        if (now - node.first_report < kReportsWithin) continue;
        std::set<WorkerId> silent;
        for (const WorkerId member : node.group.members) {
            if (!node.reported.contains(member)) silent.insert(member);
        }
        miss(node, silent, now);
        for (Group& group : without(node, silent, true)) formed.push_back(std::move(group));
    }
    return formed;
}

std::vector<Group> NodeGroups::groups() const {
    std::vector<Group> all;
    for (const Node& node : nodes_) {
        if (!node.group.members.empty()) all.push_back(node.group);
        all.insert(all.end(), node.apart.begin(), node.apart.end());
    }
    return all;
}

}  // namespace detente
