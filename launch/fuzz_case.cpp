#include "launch/fuzz_case.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <set>
#include <string>

#include "common/random.h"
#include "launch/fuzz_parameters.h"
#include "launch/job_checks.h"
#include "launch/job_keys.h"
#include "launch/simulation_faults.h"
#include "ps/task_memory.h"
#include "worker/builtin/catalog.h"

namespace detente {
namespace {

Nanos seconds(double value) { return Nanos(static_cast<std::int64_t>(value * 1e9)); }

template <class Value>
const Value& one_of(Random& random, const std::vector<Value>& values) {
    return values[random.below(values.size())];
}

void draw_shape(Job& job, Random random) {
    job.servers = 1 + static_cast<std::uint32_t>(random.below(3));
    job.shards_per_server = 1 + static_cast<std::uint32_t>(random.below(2));
    job.workers = 1 + static_cast<std::uint32_t>(random.below(6));
    job.batch_samples = 4;
    job.data_epochs = 1 + static_cast<std::uint32_t>(random.below(2));
    job.lease_batches = 1 + static_cast<std::uint32_t>(random.below(8));
    job.block_bytes = 4096;
    job.message_bytes = one_of<std::uint64_t>(random, {4096, 8192, 1U << 20U});
    job.credit_bytes = one_of<std::uint64_t>(random, {1U << 20U, 32U << 20U});
    job.model_library = std::string(kBuiltinPrefix) + "quadratic";
    // In the order in which a job file is read back.
    job.model_options = {{"dimension", std::to_string(1 + random.below(6000))},
                         {"noise", "0.1"},
                         {"samples", std::to_string(40 + random.below(400))},
                         {"tasks", std::to_string(1 + random.below(3))}};
}

// The rule follows the policy: some are defined for plain SGD only.
void draw_policy(Job& job, Random random, const std::vector<std::string>& names) {
    job.policy.name = one_of(random, names);
    job.policy.parameters.clear();
    job.admission = random.below(4) == 0 ? Admission::step : Admission::block;
    job.on_rejection = one_of(
        random, std::vector{OnRejection::drop, OnRejection::refresh, OnRejection::recompute});
    const auto policy = make_policy(job.policy);
    const bool plain = !policy || (*policy)->needs().plain_sgd;
    job.rule = *rule_defaults(
        plain ? "sgd" : one_of<std::string>(random, {"sgd", "adam", "rmsprop", "adagrad"}));
    job.rule.learning_rate = 1e-3;
    job.aggregator.name = one_of<std::string>(random, {"sum", "mean", "pcgrad", "mgda"});
    job.aggregator.parameters.clear();
    const bool ahead = !decides_steps(job) && random.below(3) == 0;
    job.pull_ahead = ahead ? 1 : 0;
    job.push_pull = !ahead && random.below(3) > 0;
}

void draw_weather(Job& job, Random random) {
    SimulationConfig& simulate = job.simulate;
    simulate.thorough = true;
    simulate.compute.distribution = one_of<std::string>(
        random, {"constant", "gamma", "exponential", "pareto", "markov", "lognormal"});
    simulate.compute.mean = seconds(random.below(2) == 0 ? 0.02 : 0.5);
    if (random.below(3) == 0) {
        simulate.compute.straggler = static_cast<std::uint32_t>(random.below(job.workers));
        simulate.compute.straggler_factor = 10;
    }
    SimulatedNetworkConfig& network = simulate.network;
    network.latency = seconds(random.below(2) == 0 ? 50e-6 : 0.02);
    if (random.below(2) == 0) network.jitter = seconds(0.05 * random.uniform());
    if (random.below(2) == 0) network.drop = 0.2 * random.uniform();
    if (random.below(2) == 0) network.duplicate = 0.2 * random.uniform();
    if (random.below(3) == 0) network.corrupt = 0.1 * random.uniform();
    if (random.below(4) == 0) network.bandwidth_bytes_per_s = 1'000'000;
}

// One worker at least is left alone, and servers are never away for as long as makes them lost.
void draw_faults(Job& job, Random random) {
    const std::uint64_t count = random.below(5);
    const auto worker = [&] { return "worker:" + std::to_string(random.below(job.workers)); };
    const auto shard = [&] { return "shard:" + std::to_string(random.below(job.shards())); };
    const std::string spared = "worker:0";
    for (std::uint64_t i = 0; i < count; ++i) {
        FaultConfig fault;
        fault.at = seconds(5 * random.uniform());
        switch (random.below(6)) {
            case 0:
                fault.kind = FaultKind::crash;
                fault.node = worker();
                if (fault.node == spared) continue;
                break;
            case 1:
                fault.kind = FaultKind::pause;
                fault.node = worker();
                fault.lasts = seconds((fault.node == spared ? 3 : 12) * random.uniform() + 0.01);
                break;
            case 2:
                fault.kind = FaultKind::pause;
                fault.node = shard();
                fault.lasts = seconds(3 * random.uniform() + 0.01);
                break;
            case 3:
                fault.kind = FaultKind::partition;
                fault.node = worker();
                fault.peer = shard();
                fault.both_ways = random.below(2) == 0;
                fault.lasts = seconds(10 * random.uniform() + 0.01);
                break;
            case 4:
                fault.kind = FaultKind::clog;
                fault.node = shard();
                fault.delay = seconds(1.5 * random.uniform() + 0.001);
                fault.lasts = seconds(8 * random.uniform() + 0.01);
                break;
            default:
                fault.kind = FaultKind::nan;
                fault.node = worker();
                break;
        }
        job.simulate.faults.push_back(std::move(fault));
    }
}

double model_option(const Job& job, const std::string& wanted) {
    for (const auto& [name, value] : job.model_options) {
        if (name == wanted) return std::stod(value);
    }
    return 0;
}

double batches_of(const Job& job) {
    return std::ceil(model_option(job, "samples") / job.batch_samples) * job.data_epochs;
}

// One worker alone may have it all to do, slow as it is, with a message of each step lost.
void allow_time(Job& job) {
    const double steps = batches_of(job) * (job.split_tasks ? model_option(job, "tasks") : 1);
    const std::chrono::duration<double> computes =
        job.simulate.compute.mean * std::max(1.0, job.simulate.compute.straggler_factor);
    const std::chrono::duration<double> waits = job.reply_deadline;
    job.simulate.limit =
        std::chrono::hours(1) + seconds(steps * 2 * (computes.count() + waits.count()));
}

// As long as nothing goes wrong, and nobody waits.
double training_s_of(const Job& job) {
    const double mean_s = std::chrono::duration<double>(job.simulate.compute.mean).count();
    return batches_of(job) * mean_s / job.workers;
}

// The expected length of training decides when, so that most restarts fall into it.
void draw_restart(Job& job, Random random) {
    if (random.below(3) != 0) return;
    const double training_s = training_s_of(job);
    const auto server = [&] { return "server:" + std::to_string(random.below(job.servers)); };
    job.checkpoint_every_samples = job.batch_samples * (1 + random.below(20));
    job.checkpoints_kept = 1 + static_cast<std::uint32_t>(random.below(3));
    job.heartbeat_interval = seconds(0.02);
    const std::uint64_t restarts = random.below(5) == 0 ? 2 : 1;
    for (std::uint64_t i = 0; i < restarts; ++i) {
        FaultConfig fault;
        fault.kind = FaultKind::restart;
        fault.node = server();
        fault.at =
            seconds(0.1 + training_s * (0.2 + random.uniform()) * static_cast<double>(i + 1));
        fault.lasts = seconds(2 * random.uniform() * random.uniform() + 0.001);
        job.simulate.faults.push_back(std::move(fault));
    }
    if (random.below(5) != 0) return;
    FaultConfig spoilt;
    spoilt.kind = one_of(random, std::vector{FaultKind::torn_slice, FaultKind::altered_slice,
                                             FaultKind::lost_manifest});
    spoilt.node = server();
    job.simulate.faults.push_back(std::move(spoilt));
}

void draw_repairs(Job& job, Random random) {
    if (decides_steps(job) && random.below(3) == 0) job.consistent_pulls = true;
    if (random.below(5) == 0) job.on_rejection = OnRejection::compensate;
}

// Any conflict method that a batch of any size and any number of tasks will do for.
void draw_method(Job& job, Random random, const std::vector<std::string>& names) {
    if (random.below(2) == 0) return;
    AggregatorConfig config;
    config.name = one_of(random, names);
    const auto method = make_aggregator(config);
    const bool counts_tasks = config.name == "krum" || config.name == "trimmed_mean";
    if (!method || (*method)->needs().second_batch || counts_tasks) return;
    job.aggregator = std::move(config);
    if ((*method)->needs().coordinates) return;
    job.conflict_scope = one_of(
        random, std::vector{ConflictScope::global, ConflictScope::layer, ConflictScope::block});
    job.conflict_every = 1 + static_cast<std::uint32_t>(random.below(3));
}

// Some layers of a node in step, under whatever else was drawn.
void draw_sync(Job& job, Random random) {
    if (random.below(4) != 0 || decides_steps(job)) return;
    const std::uint64_t dimension = std::stoull(job.model_options.front().second);
    const std::uint64_t tensors = std::min(dimension, 1 + random.below(3));
    job.model_options.emplace_back("tensors", std::to_string(tensors));
    job.sync_layers = {random.below(2) == 0 ? "*" : "w0"};
    job.nodes = static_cast<std::uint32_t>(random.below(job.workers + 1));
    job.sync_every = 1 + static_cast<std::uint32_t>(random.below(3));
    job.sync_deadline = seconds(random.below(2) == 0 ? 2 : 30);
    job.simulate.collective.latency = seconds(random.below(2) == 0 ? 0 : 1e-3);
    if (job.on_rejection == OnRejection::compensate) job.on_rejection = OnRejection::recompute;
}

// Tasks on workers of their own, resolved on the servers or not.
void draw_split(Job& job, Random random) {
    if (random.below(5) != 0 || decides_steps(job) || !job.sync_layers.empty()) return;
    job.split_tasks = true;
    const std::uint64_t dimension = std::stoull(job.model_options.front().second);
    if (job.model_options.back() != std::pair<std::string, std::string>{"tasks", "1"} &&
        dimension >= 3 && random.below(2) == 0) {  // blocks that are not of every task
        job.model_options.emplace_back("tensors", "3");
        job.tasks.push_back({"task0", {"w1"}});
        job.tasks.push_back({"task1", {"w2"}});
    }
    AggregatorConfig config;
    config.name = one_of<std::string>(random, {"sum", "mean", "constant"});
    job.aggregator = std::move(config);
    job.across.ema = one_of<double>(random, {0, 0.5, 0.9});
    job.across.half_life = one_of<double>(random, {1, 16, 1000});
    const bool compensates = random.below(2) == 0;
    const auto policy = make_policy(job.policy);
    if (random.below(4) == 0 || !policy || !fits_across(**policy)) return;
    job.across.method = AcrossMethod::project;
    if (compensates) job.across.compensate = 0.04;
}

// What does not go together with what was drawn before is not drawn.
void take_if_valid(Job& job, Job changed) {
    complete_parameters(changed);
    if (check_job(changed).empty()) job = std::move(changed);
}

void draw_parameters(Job& job, std::uint64_t part) {
    Job changed = job;
    changed.policy.parameters = drawn_parameters(job.policy.name, job.seed, part);
    take_if_valid(job, std::move(changed));
}

// Another policy for one tensor of several, where each block is judged alone.
void draw_special_policy(Job& job, Random random, std::uint64_t part,
                         const std::vector<std::string>& names) {
    if (random.below(3) != 0 || decides_steps(job)) return;
    std::vector<std::string> alone;
    for (const std::string& name : names) {
        const auto policy = make_policy({name, {}});
        if (policy && (*policy)->scope() == Scope::block) alone.push_back(name);
    }
    if (alone.empty() || job.model_options.front().second == "1") return;
    Job changed = job;
    auto& options = changed.model_options;
    if (options.back().first != "tensors") options.emplace_back("tensors", "2");
    PolicyFor special;
    special.pattern = "w" + std::to_string(random.below(std::stoull(options.back().second)));
    special.policy.name = one_of(random, alone);
    special.policy.parameters = drawn_parameters(special.policy.name, job.seed, part);
    changed.policy_for.push_back(std::move(special));
    take_if_valid(job, std::move(changed));
}

void draw_more_workers(Job& job, Random random) {
    if (random.below(8) != 0) return;
    Job changed = job;
    changed.workers += 1 + static_cast<std::uint32_t>(random.below(6));
    take_if_valid(job, std::move(changed));
}

// Workers reach both; what shards tell each other about steps does not arrive.
void draw_shards_apart(Job& job, Random random) {
    if (random.below(5) != 0 || job.shards() < 2) return;
    const std::uint64_t first = random.below(job.shards());
    const std::uint64_t second = (first + 1 + random.below(job.shards() - 1)) % job.shards();
    FaultConfig fault;
    fault.kind = FaultKind::partition;
    fault.node = "shard:" + std::to_string(first);
    fault.peer = "shard:" + std::to_string(second);
    fault.both_ways = random.below(2) == 0;
    fault.at = seconds(5 * random.uniform());
    fault.lasts = seconds(4 * random.uniform() + 0.01);
    job.simulate.faults.push_back(std::move(fault));
}

// Live changes of policy, within a scope and from one to the other. Some the lead shard refuses:
// of policies that run in the workers too, and while one before is being made.
void draw_changes(Job& job, Random random, std::uint64_t part,
                  const std::vector<std::string>& names) {
    if (random.below(3) != 0) return;
    const std::uint64_t count = 1 + random.below(3);
    const double training_s = training_s_of(job);
    for (std::uint64_t i = 0; i < count; ++i) {
        SimulatedChangeConfig change;
        change.at = seconds(0.05 + 1.2 * training_s * random.uniform());
        change.policy = one_of(random, names);
        change.parameters = drawn_parameters(change.policy, job.seed, part * 100 + i);
        Job changed = job;
        changed.simulate.changes.push_back(std::move(change));
        take_if_valid(job, std::move(changed));
    }
}

// Who judges, as some of these changes ask for it.
void draw_admissions(Job& job, Random random) {
    for (std::size_t i = 0; i < job.simulate.changes.size(); ++i) {
        const bool asked = random.below(3) == 0;
        const Admission admission = random.below(2) == 0 ? Admission::step : Admission::block;
        if (!asked) continue;
        Job changed = job;
        changed.simulate.changes[i].admission = admission;
        take_if_valid(job, std::move(changed));
    }
}

// Springs that together pull further than what they are fixed to diverge by themselves: then the
// paper's strength, .9 / workers.
void slacken_springs(Job& job) {
    const auto slacken = [workers = job.workers](PolicyConfig& policy) {
        if (policy.name != "easgd") return;
        for (auto& [name, value] : policy.parameters) {
            if (name == "alpha" && std::stod(value) * workers > 1) value = "0";
        }
    };
    slacken(job.policy);
    for (PolicyFor& special : job.policy_for) slacken(special.policy);
}

// A case that names what it no longer has is none.
bool names_only_what_is_there(const Job& job) {
    std::vector<JobProblem> problems;
    check_simulation(job, problems);
    return problems.empty();
}

}  // namespace

Job fuzz_case(std::uint64_t seed, const FuzzNames& names) {
    const auto part = [seed](std::uint64_t number) {
        return Random(random_key(seed, Purpose::test, {number}));
    };
    Job job;
    job.name = "fuzz-" + std::to_string(seed);
    job.seed = seed;
    draw_shape(job, part(0));
    draw_policy(job, part(1), names.policies);
    draw_weather(job, part(2));
    draw_faults(job, part(3));
    draw_restart(job, part(4));
    draw_repairs(job, part(5));
    draw_sync(job, part(6));
    draw_method(job, part(7), names.methods);
    draw_split(job, part(8));
    complete_parameters(job);
    if (names.parts > 9) draw_parameters(job, 9);
    if (names.parts > 10) draw_special_policy(job, part(10), 10, names.policies);
    if (names.parts > 11) draw_more_workers(job, part(11));
    if (names.parts > 12) draw_shards_apart(job, part(12));
    if (names.parts > 13) draw_changes(job, part(13), 13, names.policies);
    if (names.parts > 14) draw_admissions(job, part(14));
    slacken_springs(job);
    allow_time(job);
    return job;
}

std::vector<Job> smaller_cases(const Job& job) {
    std::vector<Job> cases;
    const auto without = [&](const auto& change) {
        Job smaller = job;
        change(smaller);
        allow_time(smaller);
        if (names_only_what_is_there(smaller)) cases.push_back(std::move(smaller));
    };
    const std::size_t faults = job.simulate.faults.size();
    if (faults > 1) without([](Job& one) { one.simulate.faults.clear(); });
    for (std::size_t i = 0; i < faults; ++i) {
        without([i](Job& one) {
            one.simulate.faults.erase(one.simulate.faults.begin() + static_cast<std::ptrdiff_t>(i));
        });
    }
    const auto calmer = [&](auto SimulatedNetworkConfig::*member) {
        if (job.simulate.network.*member == SimulatedNetworkConfig{}.*member) return;
        without([member](Job& one) {
            one.simulate.network.*member = SimulatedNetworkConfig{}.*member;
        });
    };
    calmer(&SimulatedNetworkConfig::corrupt);
    calmer(&SimulatedNetworkConfig::duplicate);
    calmer(&SimulatedNetworkConfig::drop);
    calmer(&SimulatedNetworkConfig::jitter);
    calmer(&SimulatedNetworkConfig::bandwidth_bytes_per_s);
    calmer(&SimulatedNetworkConfig::latency);
    for (std::size_t i = 0; i < job.policy_for.size(); ++i) {
        without([i](Job& one) {
            one.policy_for.erase(one.policy_for.begin() + static_cast<std::ptrdiff_t>(i));
        });
    }
    for (std::size_t i = 0; i < job.simulate.changes.size(); ++i) {
        if (job.simulate.changes[i].admission) {
            without([i](Job& one) { one.simulate.changes[i].admission.reset(); });
        }
        without([i](Job& one) {
            one.simulate.changes.erase(one.simulate.changes.begin() +
                                       static_cast<std::ptrdiff_t>(i));
        });
    }
    Job plain = job;
    plain.policy.parameters.clear();
    complete_parameters(plain);
    if (plain.policy.parameters != job.policy.parameters) {
        without([&plain](Job& one) { one.policy = plain.policy; });
    }
    for (auto member : {&Job::workers, &Job::servers, &Job::shards_per_server, &Job::data_epochs}) {
        if (job.*member > 1) without([member](Job& one) { one.*member -= 1; });
    }
    if (job.simulate.compute.straggler_factor != 1) {
        without([](Job& one) { one.simulate.compute.straggler_factor = 1; });
    }
    return cases;
}

Job shrink(Job job, const std::function<bool(const Job&)>& fails, std::size_t most) {
    for (bool smaller = true; smaller && most > 0;) {
        smaller = false;
        for (Job& candidate : smaller_cases(job)) {
            if (most == 0) break;
            --most;
            if (!fails(candidate)) continue;
            job = std::move(candidate);
            smaller = true;
            break;
        }
    }
    return job;
}

}  // namespace detente
