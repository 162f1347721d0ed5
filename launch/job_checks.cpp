#include "launch/job_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <chrono>

#include "common/conflict/aggregator.h"
#include "common/rules/rule.h"
#include "common/rules/schedule.h"
#include "common/staleness/policy.h"
#include "launch/gpu.h"
#include "launch/job_keys.h"
#include "launch/job_values.h"
#include "launch/simulation_faults.h"
#include "ps/task_memory.h"
#include "worker/builtin/catalog.h"

namespace detente {
namespace {

using Problems = std::vector<JobProblem>;

// Where the text names it as a word of its own; npos if it does not.
std::size_t place_of_word(const std::string& text, const std::string& word) {
    const auto in_word = [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
    };
    for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
        const std::size_t end = at + word.size();
        if ((at == 0 || !in_word(text[at - 1])) && (end == text.size() || !in_word(text[end]))) {
            return at;
        }
    }
    return std::string::npos;
}

// The catalogs' errors name the parameter in their text: the first that is named is to blame.
std::string blamed(const std::string& table, const std::string& otherwise, const std::string& text,
                   const NameList& keys) {
    const std::string* first = &otherwise;
    std::size_t earliest = std::string::npos;
    for (const std::string& key : keys) {
        const std::size_t at = place_of_word(text, key);
        if (at >= earliest) continue;
        earliest = at;
        first = &key;
    }
    return join_path(table, *first);
}

NameList names_of(const ParameterList& parameters) {
    NameList names;
    for (const auto& [name, value] : parameters) names.push_back(name);
    return names;
}

NameList keys_of(std::string_view table_path) {
    NameList names;
    for (const Key& key : find_table(table_path)->keys) {
        if (key.name != "name") names.push_back(key.name);
    }
    return names;
}

// Of runs/NAME-DATE and runs/.join-NAME-N: a name with a slash in it would lead elsewhere.
void check_name(const std::string& name, Problems& problems) {
    constexpr std::size_t kMostNameBytes = 100;
    const auto plain = [](unsigned char c) { return c < 0x80 && std::isalnum(c) != 0; };
    const auto fits = [&plain](char c) { return plain(c) || c == '.' || c == '_' || c == '-'; };
    if (!name.empty() && name.size() <= kMostNameBytes && plain(name.front()) &&
        std::all_of(name.begin(), name.end(), fits)) {
        return;
    }
    problems.push_back(
        {"name", fmt::format("must be 1 to {} letters (a to z, A to Z), digits, '.', '_' or '-', "
                             "the first a letter or digit, since run directories are named by it; "
                             "found {}. To choose where a run is kept use --out DIR",
                             kMostNameBytes, in_quotes(name))});
}

void check_processes(const Job& job, Problems& problems) {
    if (job.push_pull && job.pull_ahead > 0) {
        problems.push_back({"worker.push_pull",
                            "needs pull_ahead = 0 (the reply to a push cannot bring blocks that "
                            "were already pulled), found pull_ahead = 1: set one of the two"});
    }
    if (job.places > 0 && job.places < job.workers) {
        problems.push_back(
            {"places", fmt::format("must be 0 or at least workers = {}, which all have one from "
                                   "the beginning, found {}",
                                   job.workers, job.places)});
    }
    if (job.heartbeat_interval >= job.peer_deadline) {
        using Seconds = std::chrono::duration<double>;
        problems.push_back(
            {"deadlines.heartbeat_s",
             fmt::format("must be below peer_s = {} (or every process looks lost), found {}",
                         Seconds(job.peer_deadline).count(),
                         Seconds(job.heartbeat_interval).count())});
    }
    NameList seen;
    for (std::size_t i = 0; i < job.tasks.size(); ++i) {
        const std::string& name = job.tasks[i].name;
        if (std::find(seen.begin(), seen.end(), name) != seen.end()) {
            problems.push_back({fmt::format("task.{}.name", i),
                                fmt::format("task '{}' is there twice: put its 'exclude' lists "
                                            "into one entry",
                                            name)});
        }
        seen.push_back(name);
    }
    if (job.tasks.size() > kMaxTasks) {
        problems.push_back(
            {fmt::format("task.{}.name", kMaxTasks),
             fmt::format("at most {} tasks, found {}", kMaxTasks, job.tasks.size())});
    }
}

// Shard i listens on port + 1 + i: past the last port the number would begin at 0 again.
void check_ports(const Job& job, Problems& problems) {
    constexpr std::uint32_t kLastPort = 65535;
    const std::uint32_t shards = job.shards();
    if (job.port == 0 || job.port + shards <= kLastPort) return;
    const std::string remedy =
        shards < kLastPort ? fmt::format("at most {}, or 0 for free ports", kLastPort - shards)
                           : "0 for free ports: no port leaves room for so many";
    problems.push_back(
        {"transport.port",
         fmt::format("the coordinator listens there and the job's {} shards on the ports above it, "
                     "up to {}, but the last port is {}: found {}, set {}",
                     shards, job.port + shards, kLastPort, job.port, remedy)});
}

void check_bytes(const Job& job, Problems& problems) {
    if (job.block_bytes % 4096 != 0) {
        problems.push_back(
            {"blocks.bytes",
             fmt::format("must be a multiple of 4096, found {}: {} is the nearest below",
                         job.block_bytes, job.block_bytes / 4096 * 4096)});
    }
    const std::uint64_t largest = std::max(job.message_bytes, job.block_bytes);
    if (job.credit_bytes < largest) {
        problems.push_back(
            {"transport.credit_bytes",
             fmt::format("must hold at least one message of {} bytes (the larger of message_bytes "
                         "and blocks.bytes), found {}",
                         largest, job.credit_bytes)});
    }
}

// What a method needs that the trunk's output does not give; "" for none.
std::string beyond_representation(const AggregatorNeeds& needs) {
    if (needs.coordinates) return "works coordinate by coordinate";
    if (needs.second_batch) return "needs two independent halves of a batch";
    if (needs.averages) return "averages each task's gradient over steps";
    if (needs.excess) return "keeps a sum of squares per task and coordinate";
    return {};
}

// A row at the trunk's output is of one batch: the next batch's has other coordinates.
void check_representation(const Job& job, const Aggregator& method, Problems& problems) {
    if (job.conflict_scope != ConflictScope::global) {
        problems.push_back({"conflict.scope",
                            "must be global under conflict.space = \"representation\": at the "
                            "trunk's output there are no layers or blocks to tell apart"});
    }
    if (const std::string why = beyond_representation(method.needs()); !why.empty()) {
        problems.push_back(
            {"conflict.space",
             fmt::format("must be parameters under conflict.method = '{}', which {}: in "
                         "representation space a method is given the Gramian of one batch's "
                         "gradients, and losses",
                         job.aggregator.name, why)});
    }
    if (!job.masks.empty()) {
        problems.push_back({"mask",
                            "there can be none under conflict.space = \"representation\": one "
                            "backward through the trunk serves all its tasks"});
    }
}

void check_policy(const PolicyConfig& policy, const std::string& table, Problems& problems) {
    const auto made = make_policy(policy);
    if (made) return;
    const std::string& text = made.error().text;
    problems.push_back({blamed(table, "policy", text, names_of(policy.parameters)), text});
}

// The job's policy and those for tensors by name, each with the key that names it.
std::vector<std::pair<std::string, const PolicyConfig*>> policies_of(const Job& job) {
    std::vector<std::pair<std::string, const PolicyConfig*>> policies{
        {"staleness.policy", &job.policy}};
    for (std::size_t i = 0; i < job.policy_for.size(); ++i) {
        policies.emplace_back(fmt::format("staleness.for.{}.policy", i), &job.policy_for[i].policy);
    }
    return policies;
}

// What holds for the whole job's policies: who decides, and what the methods are defined for.
void check_admission(const Job& job, Problems& problems) {
    const bool steps = decides_steps(job);
    const std::string why = steps && job.admission == Admission::step
                                ? "staleness.admission = \"step\""
                                : fmt::format("policy '{}'", job.policy.name);
    if (steps && !job.policy_for.empty()) {
        problems.push_back({"staleness.for.0.policy",
                            fmt::format("{} decides whole steps, for every tensor: remove "
                                        "[[staleness.for]]",
                                        why)});
    }
    if (steps && job.pull_ahead > 0) {
        problems.push_back({"worker.pull_ahead",
                            fmt::format("{} decides when a worker is given weights: pull_ahead "
                                        "must be 0, found {}",
                                        why, job.pull_ahead)});
    }
    if (job.consistent_pulls && !steps) {
        problems.push_back({"worker.consistent_pulls",
                            fmt::format("{} decides per block, so that shards have no order in "
                                        "common to cut at: set staleness.admission = \"step\" or "
                                        "choose a policy of scope step",
                                        why)});
    }
    for (const auto& [key, config] : policies_of(job)) {
        const auto policy = make_policy(*config);
        if (!policy) continue;  // said already
        if (!steps && (*policy)->scope() == Scope::step) {
            problems.push_back({key, fmt::format("'{}' decides whole steps, for every tensor: only "
                                                 "staleness.policy can name it",
                                                 config->name)});
        }
        if ((*policy)->needs().rate_above_zero &&
            (!(job.rule.learning_rate > 0) || reaches_zero(job.schedule))) {
            problems.push_back(
                {key, fmt::format("'{}' divides by the learning rate, which must stay above 0: set "
                                  "rule.schedule.warmup_samples = 0 and, for 'cosine', "
                                  "rule.schedule.floor above 0; found schedule '{}' with "
                                  "warmup_samples = {}, floor = {}",
                                  config->name, job.schedule.name, job.schedule.warmup_samples,
                                  job.schedule.floor)});
        }
        const bool plain = job.rule.name == "sgd" && job.rule.momentum == 0 &&
                           job.rule.weight_decay == 0 && job.rule.clip_value == 0 &&
                           job.rule_for.empty();
        if ((*policy)->needs().plain_sgd && !plain) {
            problems.push_back(
                {key, fmt::format("'{}' brings its own momentum and is defined for "
                                  "rule 'sgd' without momentum, weight decay or clipping, "
                                  "and no [[rule.for]]; found rule '{}'",
                                  config->name, job.rule.name)});
        }
    }
}

void check_rule(const RuleConfig& rule, const ScheduleConfig& schedule, const std::string& table,
                Problems& problems) {
    if (const auto made = make_rule(rule); !made) {
        const std::string& text = made.error().text;
        problems.push_back({blamed(table, "name", text, keys_of("rule")), text});
    }
    if (const auto checked = check_schedule(schedule); !checked) {
        const std::string& text = checked.error().text;
        const std::string path = table + ".schedule";
        problems.push_back({blamed(path, "name", text, keys_of("rule.schedule")), text});
    }
}

void check_conflict(const Job& job, Problems& problems) {
    const auto made = make_aggregator(job.aggregator);
    if (!made) {
        const std::string& text = made.error().text;
        problems.push_back(
            {blamed("conflict", "method", text, names_of(job.aggregator.parameters)), text});
        return;
    }
    if (job.conflict_space == ConflictSpace::representation) {
        return check_representation(job, **made, problems);
    }
    const AggregatorNeeds needs = (*made)->needs();
    if (needs.second_batch && job.batch_samples < 2) {
        problems.push_back(
            {"data.batch", fmt::format("must be at least 2 under conflict.method = '{}', which "
                                       "needs two independent halves of a batch, found {}",
                                       job.aggregator.name, job.batch_samples)});
    }
    if (!needs.coordinates) return;
    if (job.conflict_scope != ConflictScope::global) {
        problems.push_back(
            {"conflict.scope", fmt::format("must be global under conflict.method = '{}', which "
                                           "works coordinate by coordinate",
                                           job.aggregator.name)});
    }
    if (job.conflict_every > 1) {
        problems.push_back(
            {"conflict.every", fmt::format("must be 1 under conflict.method = '{}', which has no "
                                           "weights that could serve another step",
                                           job.aggregator.name)});
    }
}

// What cannot be averaged before it is known who decides, or where, or of what.
void check_sync(const Job& job, Problems& problems) {
    if (job.sync_layers.empty()) return;
    const auto refuse = [&problems](const std::string& why) {
        problems.push_back({"sync.layers", "must be empty " + why});
    };
    if (decides_steps(job)) {
        refuse(
            fmt::format("under staleness.policy '{}', which decides whole steps of single "
                        "workers: choose a policy of scope block, or 'bsp' alone to keep all "
                        "workers in step",
                        job.policy.name));
    }
    if (job.sync_backend == SyncBackend::mpi && job.most_workers() > job.workers) {
        problems.push_back({"places",
                            "must be 0 under sync.backend = \"mpi\": a worker that joins "
                            "was not started by mpirun and has no rank to average with"});
    }
    if (job.on_rejection == OnRejection::compensate) {
        refuse(
            "under worker.on_rejection = \"compensate\": members compute at different weights, "
            "and the average has none to be carried from; choose drop, refresh or recompute");
    }
    if (job.conflict_space == ConflictSpace::representation) {
        refuse(
            "under conflict.space = \"representation\", where tasks have no gradients of their "
            "own in the trunk: set \"parameters\"");
    }
    const auto method = make_aggregator(job.aggregator);
    if (method && (*method)->needs().second_batch) {
        refuse(
            fmt::format("under conflict.method = '{}', which needs two halves of a batch, each "
                        "with a gradient of its own",
                        job.aggregator.name));
    }
}

void check_device(const Job& job, Problems& problems) {
    if (job.device == "cpu") return;
    const auto number = gpu_number(job.device);
    if (number.has_error()) problems.push_back({"worker.device", number.error().text});
    if (job.model_library.starts_with(kBuiltinPrefix)) {
        problems.push_back({"worker.device",
                            fmt::format("must be \"cpu\" for {}: models without a library compute "
                                        "on the processor",
                                        job.model_library)});
    }
}

// Of one task there is nothing to resolve: weights that depend on the others' would be of zeros.
void check_split(const Job& job, Problems& problems) {
    const auto refuse = [&problems](const char* key, std::string why) {
        problems.push_back({key, std::move(why)});
    };
    const std::string key = "worker.split_tasks";
    if (decides_steps(job)) {
        refuse(key.c_str(),
               fmt::format("must be false where whole steps are decided (staleness.policy = '{}', "
                           "admission = \"{}\"): shards without a block of a step's task would be "
                           "waited for; choose a policy and an admission of scope block",
                           job.policy.name, job.admission == Admission::step ? "step" : "block"));
    }
    if (!job.sync_layers.empty()) {
        refuse("sync.layers",
               "must be empty under worker.split_tasks: the members of a node compute different "
               "tasks, and averages are made task by task");
    }
    if (job.conflict_space == ConflictSpace::representation) {
        refuse("conflict.space",
               "must be parameters under worker.split_tasks: a step has one task's gradient at the "
               "trunk's output, and nothing to resolve it with");
    }
    const NameList fixed{"sum", "mean", "constant"};
    if (std::find(fixed.begin(), fixed.end(), job.aggregator.name) == fixed.end()) {
        refuse("conflict.method",
               fmt::format("must be sum, mean or constant under worker.split_tasks, where a worker "
                           "sees one task's gradient at a time; found '{}'. To resolve on the "
                           "server instead, set across.method = \"project\"",
                           job.aggregator.name));
    }
}

// What the server remembers of tasks goes with what changes and keeps nothing of a gradient.
void check_across(const Job& job, Problems& problems) {
    if (job.split_tasks) check_split(job, problems);
    if (job.across.method == AcrossMethod::off) return;
    if (!job.split_tasks) {
        problems.push_back({"across.method",
                            "must be off without worker.split_tasks = true: otherwise each push is "
                            "of all tasks, and conflict.method resolves them in the worker"});
    }
    for (const auto& [key, config] : policies_of(job)) {
        const auto policy = make_policy(*config);
        if (!policy || (*policy)->scope() == Scope::step || fits_across(**policy)) continue;
        problems.push_back(
            {key, fmt::format("'{}' changes gradients or keeps vectors of its own, which is not "
                              "defined together with across.method: choose async, bounded_reject, "
                              "inverse, polynomial, hinge, ada_delay or delay_adaptive",
                              config->name)});
    }
}

}  // namespace

std::vector<JobProblem> check_job(const Job& job) {
    Problems problems;
    check_name(job.name, problems);
    check_processes(job, problems);
    check_device(job, problems);
    check_ports(job, problems);
    check_bytes(job, problems);
    check_conflict(job, problems);
    check_policy(job.policy, "staleness", problems);
    for (std::size_t i = 0; i < job.policy_for.size(); ++i) {
        check_policy(job.policy_for[i].policy, fmt::format("staleness.for.{}", i), problems);
    }
    check_admission(job, problems);
    check_rule(job.rule, job.schedule, "rule", problems);
    for (std::size_t i = 0; i < job.rule_for.size(); ++i) {
        check_rule(job.rule_for[i].rule, job.rule_for[i].schedule, fmt::format("rule.for.{}", i),
                   problems);
    }
    check_sync(job, problems);
    check_across(job, problems);
    check_simulation(job, problems);
    return problems;
}

}  // namespace detente
