#include "common/partition/task_placement.h"

#include <algorithm>
#include <tuple>

#include "common/checksum.h"
#include "common/random.h"

namespace detente {
namespace {

struct Pair {
    std::uint64_t weight = 0;
    std::size_t task = 0;    // in the list of those to be placed
    std::size_t member = 0;  // in the ascending list
};

std::uint64_t weight_of(const std::string& task, WorkerId worker) {
    return scatter(checksum_of(std::as_bytes(std::span(task))) ^
                   scatter(std::uint64_t{worker.value} + 1));
}

}  // namespace

TaskSet trained_tasks(const Plan& plan) {
    TaskSet tasks;
    for (const Block& block : plan.blocks) {
        if (block.trainable()) tasks.bits |= block.owners.bits;
    }
    return tasks;
}

TaskSet tasks_of(const BatchRange& batch, std::size_t tasks) {
    if (!batch.tasks.empty()) return batch.tasks;
    TaskSet all;
    for (std::uint32_t i = 0; i < tasks; ++i) all.insert(TaskId{i});
    return all;
}

std::vector<WorkerId> all_workers(std::uint32_t workers) {
    std::vector<WorkerId> all;
    for (std::uint32_t i = 0; i < workers; ++i) all.push_back(WorkerId{i});
    return all;
}

std::map<WorkerId, TaskSet> place_tasks(const std::vector<std::string>& names, TaskSet tasks,
                                        const std::vector<WorkerId>& members) {
    std::map<WorkerId, TaskSet> placed;
    for (const WorkerId member : members) placed[member];
    std::vector<WorkerId> workers;
    workers.reserve(placed.size());
    for (const auto& [worker, none] : placed) workers.push_back(worker);
    std::vector<TaskId> to_place;
    for (std::uint32_t i = 0; i < names.size(); ++i) {
        if (tasks.contains(TaskId{i})) to_place.push_back(TaskId{i});
    }
    if (workers.empty() || to_place.empty()) return placed;
    std::vector<Pair> pairs;
    pairs.reserve(to_place.size() * workers.size());
    for (std::size_t t = 0; t < to_place.size(); ++t) {
        for (std::size_t w = 0; w < workers.size(); ++w) {
            pairs.push_back({weight_of(names[to_place[t].value], workers[w]), t, w});
        }
    }
    std::sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) {
        return std::tuple(b.weight, a.task, a.member) < std::tuple(a.weight, b.task, b.member);
    });
    // The more numerous are each given one of the others, which share them evenly: all places
    // together are as many as there is to place, so that everyone finds one.
    const bool by_task = to_place.size() >= workers.size();
    const std::size_t many = by_task ? to_place.size() : workers.size();
    const std::size_t few = by_task ? workers.size() : to_place.size();
    std::vector<bool> done(many, false);
    std::vector<std::size_t> load(few, 0);
    std::size_t one_more = many % few;  // so many may have one above the rest
    for (const Pair& pair : pairs) {
        const std::size_t item = by_task ? pair.task : pair.member;
        const std::size_t place = by_task ? pair.member : pair.task;
        if (done[item] || load[place] > many / few) continue;
        if (load[place] == many / few) {
            if (one_more == 0) continue;
            --one_more;
        }
        ++load[place];
        done[item] = true;
        placed[workers[pair.member]].insert(to_place[pair.task]);
    }
    return placed;
}

std::optional<TaskSet> TaskPlacement::of(WorkerId worker, const std::vector<WorkerId>& members) {
    if (computed_ == 0 || members != members_) {
        placed_ = place_tasks(names_, tasks_, members);
        members_ = members;
        ++computed_;
    }
    const auto own = placed_.find(worker);
    if (own == placed_.end()) return std::nullopt;
    return own->second;
}

std::string describe(const std::map<WorkerId, TaskSet>& placement,
                     const std::vector<std::string>& names) {
    std::string text = "tasks on workers, by rendezvous hashing while all of them are there\n";
    for (const auto& [worker, tasks] : placement) {
        std::string list;
        for (std::uint32_t i = 0; i < names.size(); ++i) {
            if (tasks.contains(TaskId{i})) list += (list.empty() ? "" : ", ") + names[i];
        }
        text += "  " + to_string(node_of(worker)) + "  " + (list.empty() ? "none" : list) + "\n";
    }
    return text;
}

}  // namespace detente
