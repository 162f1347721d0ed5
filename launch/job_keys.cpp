#include "launch/job_keys.h"

#include <algorithm>

#include "common/staleness/policy.h"
#include "launch/job_slots.h"

namespace detente {
namespace {

using job_slots::at;
using job_slots::bytes_at;
using job_slots::choice_at;

constexpr double kMostProcesses = 65536;
constexpr double kMostInteger = 9007199254740992.0;  // 2^53: exact in every reader of the job
constexpr Limits kCount{1, kMostInteger};
constexpr Limits kCountOrZero{0, kMostInteger};
constexpr Limits kSeconds{0.001, 1e6};

Table top_level() {
    return {
        "",
        false,
        "",
        {{"name", "",
          "The job's name: run directories and messages carry it. Letters, digits, '.', '_', '-'.",
          at(&Job::name)},
         {"seed", "",
          "Every random draw is a function of it: initial weights, order of samples, "
          "visiting order of PCGrad.",
          at(&Job::seed), kCountOrZero},
         {"servers", "processes", "Server processes.", at(&Job::servers), {1, 1024}},
         {"shards_per_server",
          "threads",
          "Shards of one server: each is one thread with a socket and blocks of its own.",
          at(&Job::shards_per_server),
          {1, 256}},
         {"workers",
          "processes",
          "Worker processes that the job begins with.",
          at(&Job::workers),
          {1, kMostProcesses}},
         {"places",
          "processes",
          "Workers that may take part at once: those beyond `workers` join while training runs "
          "(`detente join --worker`). 0: as many as `workers`, so that one joins only in the place "
          "of one that left or was lost. Each place has its share of transport.credit.",
          at(&Job::places),
          {0, kMostProcesses}}}};
}

Table data_table() {
    return {
        "data",
        false,
        "What it is trained on.",
        {{"dir", "", "Folder of the dataset; empty: the model's own default.",
          at(&Job::dataset_dir)},
         {"batch",
          "samples",
          "Samples of one step of one worker.",
          at(&Job::batch_samples),
          {1, 16777216}},
         {"epochs", "data epochs", "Times every sample is used.", at(&Job::data_epochs), {1, 1e9}},
         {"lease_batches",
          "batches",
          "Batches a worker is given at a time; fewer share the work out more evenly.",
          at(&Job::lease_batches),
          {1, 1048576}}}};
}

Table worker_table() {
    return {
        "worker",
        false,
        "What a worker does in a step.",
        {{"push_pull", "",
          "The reply to a push brings the new blocks: one round trip a step. Needs pull_ahead = 0, "
          "and is then on unless said otherwise.",
          at(&Job::push_pull)},
         {"pull_ahead",
          "steps",
          "1: pulls the next weights while it computes, for one more step of staleness.",
          at(&Job::pull_ahead),
          {0, 1}},
         {"consistent_pulls", "",
          "Under step scope: every pull is of one version of the model, whatever is committed "
          "meanwhile. One more round trip a step, and shards keep what a worker was not handed "
          "yet. "
          "Otherwise pulls may be torn: summary.json says how often and how much.",
          at(&Job::consistent_pulls)},
         {"on_rejection",
          "",
          "After a rejected push: drop the gradient and go on; refresh the weights first; "
          "recompute it on the same batch; or compensate it: carry it to new weights by "
          "g + compensate_lambda g g (w - w_then) and push that (keeps a gradient and the weights "
          "it was computed at for each step that is not settled).",
          choice_at(&Job::on_rejection),
          {},
          {"drop", "refresh", "recompute", "compensate"}},
         {"most_recomputes",
          "times",
          "Recomputes or compensations of one batch before it is dropped.",
          at(&Job::most_recomputes),
          {0, 1e6}},
         {"compensate_lambda",
          "",
          "Weight of the compensation (Zheng 2017).",
          at(&Job::compensate_lambda),
          {0, 1e6}},
         {"clip_norm", "", "Largest global norm of a pushed gradient; 0 = off.",
          at(&Job::clip_norm)},
         {"threads",
          "threads",
          "Threads of one computation; fixed, since bits depend on it.",
          at(&Job::threads),
          {1, 1024}},
         {"device", "",
          "Where gradients are computed: \"cpu\"; \"cuda:N\", the host's GPU of that number; or "
          "\"cuda\", for which the workers of a host take its GPUs by turns. Weights and gradients "
          "are staged in page-locked memory; trying the model, scoring and simulating stay on the "
          "processor.",
          at(&Job::device)},
         {"split_tasks", "",
          "Each step is of one task; tasks are placed on workers (`detente plan` says which "
          "where), "
          "and a worker without work of its own takes others'. Every batch is then computed once "
          "per task: samples, where they are counted (schedules, evaluate.every, progress), count "
          "once per task. Conflicts between tasks are not seen by workers then: see [across].",
          at(&Job::split_tasks)}}};
}

Key policy_key(const std::function<PolicyConfig&(Job&, std::size_t)>& of) {
    return {"policy",
            "",
            "How a late gradient is judged.",
            [of](Job& job, std::size_t i) -> Slot { return &of(job, i).name; },
            {},
            policy_names()};
}

std::vector<Table> staleness_tables() {
    const auto main = [](Job& job, std::size_t) -> PolicyConfig& { return job.policy; };
    const auto entry = [](Job& job, std::size_t i) -> PolicyConfig& {
        return job.policy_for[i].policy;
    };
    return {
        {"staleness",
         false,
         "What becomes of a gradient by its age. The policy's own parameters stand beside it.",
         {policy_key(main),
          {"admission",
           "",
           "One verdict per block, each shard by itself; or one for all shards of a push, by the "
           "lead shard, so that no update is torn. Policies that decide whole steps always take "
           "the latter.",
           choice_at(&Job::admission),
           {},
           {"block", "step"}}},
         [main](Job& job, std::size_t i) -> ParameterList& { return main(job, i).parameters; },
         [main](Job& job, std::size_t i) { return policy_parameters(main(job, i).name); }},
        {"staleness.for",
         true,
         "Another policy for some tensors; the first entry that matches a name wins.",
         {policy_key(entry),
          {"pattern",
           "name pattern",
           "The tensors it is for.",
           [](Job& job, std::size_t i) -> Slot { return &job.policy_for[i].pattern; },
           {},
           {},
           true}},
         [entry](Job& job, std::size_t i) -> ParameterList& { return entry(job, i).parameters; },
         [entry](Job& job, std::size_t i) { return policy_parameters(entry(job, i).name); },
         [](Job& job, const auto&) { job.policy_for.emplace_back(); },
         [](const Job& job) { return job.policy_for.size(); }}};
}

std::vector<Key> rule_keys(const std::function<RuleConfig&(Job&, std::size_t)>& of) {
    const auto in = [of](auto RuleConfig::*member) {
        return [of, member](Job& job, std::size_t i) -> Slot { return &(of(job, i).*member); };
    };
    return {
        {"name",
         "",
         "The update rule; its defaults are torch.optim's.",
         in(&RuleConfig::name),
         {},
         rule_names()},
        {"learning_rate", "", "Base rate; schedule and policy multiply it.",
         in(&RuleConfig::learning_rate)},
        {"momentum", "", "sgd, rmsprop.", in(&RuleConfig::momentum)},
        {"nesterov", "", "sgd: Nesterov's momentum.", in(&RuleConfig::nesterov)},
        {"weight_decay", "", "L2 (decoupled in adamw).", in(&RuleConfig::weight_decay)},
        {"beta1", "", "adam, adamw: decay of the first moment.", in(&RuleConfig::beta1)},
        {"beta2", "", "adam, adamw: decay of the second moment.", in(&RuleConfig::beta2)},
        {"eps", "", "adagrad, rmsprop, adam, adamw: added to the denominator.",
         in(&RuleConfig::eps)},
        {"alpha", "", "rmsprop: decay of the mean square.", in(&RuleConfig::alpha)},
        {"initial_accumulator_value", "", "adagrad.", in(&RuleConfig::initial_accumulator_value)},
        {"clip_value", "", "Gradients are clipped to ± this, element by element; 0 = off.",
         in(&RuleConfig::clip_value)}};
}

std::vector<Key> schedule_keys(const std::function<ScheduleConfig&(Job&, std::size_t)>& of) {
    const auto in = [of](auto ScheduleConfig::*member) {
        return [of, member](Job& job, std::size_t i) -> Slot { return &(of(job, i).*member); };
    };
    return {{"name",
             "",
             "How the rate moves, by samples applied to a block.",
             in(&ScheduleConfig::name),
             {},
             schedule_names()},
            {"warmup_samples", "samples", "The rate first rises from 0 over so many.",
             in(&ScheduleConfig::warmup_samples), kCountOrZero},
            {"step_samples", "samples", "step: after each so many …",
             in(&ScheduleConfig::step_samples), kCountOrZero},
            {"gamma", "", "step: … the rate is multiplied by this.", in(&ScheduleConfig::gamma)},
            {"total_samples", "samples", "cosine: its length, warm-up included.",
             in(&ScheduleConfig::total_samples), kCountOrZero},
            {"floor", "", "cosine: lowest factor.", in(&ScheduleConfig::floor), {0, 1}}};
}

// An entry starts as the job's rule, or as the defaults of the rule it names if that is another.
void prepare_rule_for(Job& job, const std::optional<std::string>& name) {
    RuleFor entry{"", job.rule, job.schedule};
    if (name && *name != job.rule.name) {
        if (const auto defaults = rule_defaults(*name)) entry.rule = *defaults;
    }
    job.rule_for.push_back(std::move(entry));
}

std::vector<Table> rule_tables() {
    const auto schedule_of = [](Job& job, std::size_t i) -> ScheduleConfig& {
        return job.rule_for[i].schedule;
    };
    std::vector<Key> for_keys =
        rule_keys([](Job& job, std::size_t i) -> RuleConfig& { return job.rule_for[i].rule; });
    for_keys.push_back({"pattern",
                        "name pattern",
                        "The tensors it is for.",
                        [](Job& job, std::size_t i) -> Slot { return &job.rule_for[i].pattern; },
                        {},
                        {},
                        true});
    const auto entries = [](const Job& job) { return job.rule_for.size(); };
    return {{"rule",
             false,
             "How a shard turns a gradient into new weights.",
             rule_keys([](Job& job, std::size_t) -> RuleConfig& { return job.rule; }),
             {},
             {},
             [](Job& job, const std::optional<std::string>& name) {
                 const auto defaults = rule_defaults(name.value_or("sgd"));
                 if (defaults) job.rule = *defaults;
             }},
            {"rule.schedule", false, "How the learning rate moves.",
             schedule_keys([](Job& job, std::size_t) -> ScheduleConfig& { return job.schedule; })},
            {"rule.for",
             true,
             "Another rule for some tensors; the first entry that matches a name wins. It starts "
             "as [rule], or as the defaults of the rule it names if that is another.",
             std::move(for_keys),
             {},
             {},
             prepare_rule_for,
             entries},
            {"rule.for.schedule",
             true,
             "Starts as [rule.schedule].",
             schedule_keys(schedule_of),
             {},
             {},
             {},
             entries}};
}

std::vector<Table> wire_tables() {
    return {
        {"blocks",
         false,
         "How tensors are cut.",
         {{"bytes",
           "bytes",
           "Largest block; a multiple of 4096. A block is what has a home, a version and an "
           "owner set.",
           bytes_at(&Job::block_bytes),
           {4096, 4U << 20U}}}},
        {"transport",
         false,
         "How messages travel.",
         {{"kind",
           "",
           "auto: ipc where both ends share a host.",
           choice_at(&Job::transport),
           {},
           {"auto", "tcp", "ipc"}},
          {"checksum",
           "",
           "A checksum per block; auto: between hosts only.",
           choice_at(&Job::checksum),
           {},
           {"auto", "on", "off"}},
          {"message_bytes",
           "bytes",
           "Aim for one message of a push or reply; at most 4 MiB.",
           bytes_at(&Job::message_bytes),
           {4096, 4U << 20U}},
          {"credit_bytes",
           "bytes",
           "A shard's budget for pushes in flight, all workers.",
           bytes_at(&Job::credit_bytes),
           {4096, kMostInteger}},
          {"bind_address",
           "",
           "Where servers and coordinator listen: an address, an interface (eth1), or a network "
           "(10.1.0.0/16), of which each host takes its own; auto: loopback where all ranks "
           "are on one host, else where the coordinator is reached.",
           at(&Job::bind_address),
           {},
           {},
           true},
          {"advertise_address",
           "",
           "What the others connect to, if that is another: likewise, or a name; auto: "
           "bind_address.",
           at(&Job::advertise_address),
           {},
           {},
           true},
          {"port",
           "",
           "Where the coordinator listens, shard i on port + 1 + i; 0: free ones.",
           at(&Job::port),
           {0, 65535}}}}};
}

std::vector<Table> life_tables() {
    return {
        {"on_loss",
         false,
         "What becomes of the job when a process is lost. A lost server ends it.",
         {{"worker",
           "",
           "continue: its leased batches are given again.",
           choice_at(&Job::on_worker_loss),
           {},
           {"continue", "stop"}}}},
        {"evaluate",
         false,
         "Scores on the test set, by a process of its own.",
         {{"every", "samples", "Samples applied between two; 0 = at the end only.",
           at(&Job::evaluate_every_samples), kCountOrZero}}},
        {"checkpoint",
         false,
         "",
         {{"every", "samples", "Samples applied between two; 0 = at the end and on a signal only.",
           at(&Job::checkpoint_every_samples), kCountOrZero},
          {"keep",
           "checkpoints",
           "How many are kept, besides the best.",
           at(&Job::checkpoints_kept),
           {1, 1e6}}}},
        {"ledger",
         false,
         "What is recorded of the run, for `detente ledger` and replays.",
         {{"conflicts",
           "",
           "What workers record of conflicts in each step: losses, weights, and a Gramian of every "
           "layer (4 · T(T+1)/2 bytes each), or one of the whole, or nothing.",
           choice_at(&Job::ledger_conflicts),
           {},
           {"layers", "whole", "off"}},
          {"gradient_hashes", "",
           "Records a hash of every computed gradient, so that a replay can name the first that "
           "differs.",
           at(&Job::gradient_hashes)}}},
        {"deadlines",
         false,
         "Every wait ends; what it prints then names who is missing.",
         {{"start_s", "s", "Every process has said hello.", at(&Job::start_deadline), kSeconds},
          {"reply_s", "s", "A request without a reply is sent again.", at(&Job::reply_deadline),
           kSeconds},
          {"peer_s", "s", "Silence after which a process is lost; the coordinator: twice that.",
           at(&Job::peer_deadline), kSeconds},
          {"heartbeat_s", "s", "Between two signs of life; below peer_s.",
           at(&Job::heartbeat_interval), kSeconds},
          {"stop_s", "s", "Draining and the checkpoint at the end.", at(&Job::stop_deadline),
           kSeconds}}}};
}

std::vector<Table> make_tables() {
    std::vector<Table> all{top_level()};
    const auto add = [&all](std::vector<Table> more) {
        for (Table& table : more) all.push_back(std::move(table));
    };
    add(model_tables());
    add({data_table(), worker_table()});
    add(conflict_tables());
    add(staleness_tables());
    add(rule_tables());
    add(wire_tables());
    add(life_tables());
    add(node_tables());
    add(simulate_tables());
    return all;
}

}  // namespace

const std::vector<Table>& job_tables() {
    static const std::vector<Table> tables = make_tables();
    return tables;
}

void complete_parameters(Job& job) {
    for (const Table& table : job_tables()) {
        if (!table.known_parameters) continue;
        const std::size_t entries = table.repeated ? table.entries(job) : 1;
        for (std::size_t entry = 0; entry < entries; ++entry) {
            ParameterList& given = table.parameters(job, entry);
            ParameterList complete;
            for (const ExplainedParameter& known : table.known_parameters(job, entry)) {
                const auto written = std::find_if(given.begin(), given.end(), [&](const auto& p) {
                    return p.first == known.name;
                });
                const bool missing = written == given.end();
                complete.emplace_back(known.name, missing ? known.standard : written->second);
                if (!missing) given.erase(written);
            }
            complete.insert(complete.end(), given.begin(), given.end());
            given = std::move(complete);
        }
    }
}

const Table* find_table(std::string_view path) {
    for (const Table& table : job_tables()) {
        if (table.path == path) return &table;
    }
    return nullptr;
}

const Key* find_key(std::string_view path) {
    const std::size_t dot = path.rfind('.');
    const Table* table =
        find_table(dot == std::string_view::npos ? std::string_view() : path.substr(0, dot));
    if (table == nullptr) return nullptr;
    const std::string_view name = dot == std::string_view::npos ? path : path.substr(dot + 1);
    for (const Key& key : table->keys) {
        if (key.name == name) return &key;
    }
    return nullptr;
}

std::string join_path(std::string_view table, std::string_view key) {
    if (table.empty()) return std::string(key);
    return std::string(table) + "." + std::string(key);
}

}  // namespace detente
