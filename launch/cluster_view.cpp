#include "launch/cluster_view.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <span>

#include "common/conflict/cosine_bins.h"
#include "common/staleness/staleness_bins.h"

namespace detente {

const char* name_of(Stage stage) {
    switch (stage) {
        case Stage::gathering:
            return "gathering";
        case Stage::preparing:
            return "preparing";
        case Stage::training:
            return "training";
        case Stage::draining:
            return "draining";
        case Stage::saving:
            return "saving";
        case Stage::evaluating:
            return "evaluating";
        case Stage::stopping:
            return "stopping";
        case Stage::finished:
            return "finished";
    }
    return "unknown stage";
}

const char* name_of(Phase phase) {
    switch (phase) {
        case Phase::missing:
            return "missing";
        case Phase::present:
            return "present";
        case Phase::preparing:
            return "preparing";
        case Phase::ready:
            return "ready";
        case Phase::working:
            return "working";
        case Phase::stopped:
            return "stopped";
        case Phase::lost:
            return "lost";
    }
    return "unknown phase";
}

bool ProcessView::live() const {
    return phase != Phase::missing && phase != Phase::stopped && phase != Phase::lost;
}

std::optional<double> ProcessView::value(const std::string& name) const {
    for (const NamedValue& entry : last.values) {
        if (entry.name == name) return entry.value;
    }
    return std::nullopt;
}

bool Failure::consequence() const {
    return told_by_itself && (code == ErrorCode::peer_lost || code == ErrorCode::timed_out ||
                              code == ErrorCode::cancelled);
}

double CheckpointView::mean_accuracy() const {
    double sum = 0;
    for (const auto& [task, score] : accuracy) sum += score;
    return accuracy.empty() ? 0 : sum / static_cast<double>(accuracy.size());
}

const ProcessView* ClusterView::find(NodeId node) const {
    for (const ProcessView& process : processes) {
        if (process.node == node) return &process;
    }
    return nullptr;
}

ProcessView* ClusterView::find(NodeId node) {
    return const_cast<ProcessView*>(std::as_const(*this).find(node));
}

std::string ClusterView::label_of(NodeId node) const {
    if (node.role != Role::shard) return to_string(node);
    return "server:" + std::to_string(node.index / std::max(1U, shards_per_server));
}

const CheckpointView* ClusterView::checkpoint(std::uint64_t number) const {
    for (const CheckpointView& entry : checkpoints) {
        if (entry.number == number) return &entry;
    }
    return nullptr;
}

const Failure* ClusterView::first_failure() const {
    for (const Failure& failure : failures) {
        if (!failure.consequence()) return &failure;
    }
    return failures.empty() ? nullptr : &failures.front();
}

namespace {

std::uint64_t count_of(const Status& status, const char* name) {
    for (const NamedValue& entry : status.values) {
        if (entry.name == name) return static_cast<std::uint64_t>(std::llround(entry.value));
    }
    return 0;
}

}  // namespace

Books books_of(const Status& status) {
    Books books;
    books.computed = count_of(status, "updates.computed");
    books.applied = count_of(status, "updates.applied");
    books.rejected = count_of(status, "updates.rejected");
    books.cancelled = count_of(status, "updates.cancelled");
    books.lost = count_of(status, "updates.lost");
    books.in_flight = count_of(status, "updates.in_flight");
    return books;
}

Books total_books(const ClusterView& view) {
    Books total;
    for (const ProcessView& process : view.processes) {
        if (process.node.role == Role::shard) total.add(books_of(process.last));
    }
    return total;
}

namespace {

std::vector<std::uint64_t> staleness_bins(const ClusterView& view) {
    std::vector<std::uint64_t> total;
    for (const ProcessView& process : view.processes) {
        if (process.node.role != Role::shard) continue;
        const std::vector<std::uint64_t>& bins = process.last.staleness;
        if (total.size() < bins.size()) total.resize(bins.size());
        for (std::size_t i = 0; i < bins.size(); ++i) total[i] += bins[i];
    }
    return total;
}

}  // namespace

std::vector<std::uint64_t> total_staleness(const ClusterView& view) {
    std::vector<std::uint64_t> total = staleness_bins(view);
    for (std::size_t bin = kExactStaleness; bin < total.size(); ++bin) {
        total[kExactStaleness - 1] += total[bin];
    }
    total.resize(std::min<std::size_t>(total.size(), kExactStaleness));
    return total;
}

TornPulls torn_pulls(const ClusterView& view) {
    TornPulls torn;
    for (const ProcessView& process : view.processes) {
        if (process.node.role != Role::worker) continue;
        torn.told += count_of(process.last, "pull.told_steps");
        torn.steps += count_of(process.last, "pull.torn_steps");
        torn.sum += count_of(process.last, "pull.torn_sum");
        torn.largest = std::max(torn.largest, count_of(process.last, "pull.torn_max"));
    }
    return torn;
}

std::uint64_t total_taken_back(const ClusterView& view) {
    std::uint64_t sum = 0;
    for (const ProcessView& process : view.processes) {
        if (process.node.role == Role::shard) sum += count_of(process.last, "updates.taken_back");
    }
    return sum;
}

namespace {

std::uint64_t sum_over_workers(const ClusterView& view, const char* name) {
    std::uint64_t sum = 0;
    for (const ProcessView& process : view.processes) {
        if (process.node.role == Role::worker) sum += count_of(process.last, name);
    }
    return sum;
}

}  // namespace

std::uint64_t total_samples(const ClusterView& view) {
    return view.samples_before + sum_over_workers(view, "samples");
}
std::uint64_t total_steps(const ClusterView& view) { return sum_over_workers(view, "steps"); }

std::map<std::string, std::uint64_t> refused_messages(const ClusterView& view) {
    constexpr std::string_view kRefused = "refused.";
    std::map<std::string, std::uint64_t> refused;
    for (const ProcessView& process : view.processes) {
        for (const NamedValue& value : process.last.values) {
            if (!value.name.starts_with(kRefused)) continue;
            refused[value.name.substr(kRefused.size())] +=
                static_cast<std::uint64_t>(std::llround(value.value));
        }
    }
    return refused;
}

// A worker that never computed a task (worker.split_tasks) says NaN of it; NaN if all do.
std::vector<double> mean_losses(const ClusterView& view) {
    std::vector<double> sums;
    std::vector<std::size_t> reporters;
    for (const ProcessView& process : view.processes) {
        if (process.node.role != Role::worker) continue;
        const std::vector<double>& losses = process.last.losses;
        sums.resize(std::max(sums.size(), losses.size()));
        reporters.resize(sums.size());
        for (std::size_t i = 0; i < losses.size(); ++i) {
            if (std::isnan(losses[i])) continue;
            sums[i] += losses[i];
            ++reporters[i];
        }
    }
    for (std::size_t i = 0; i < sums.size(); ++i) {
        sums[i] = reporters[i] > 0 ? sums[i] / static_cast<double>(reporters[i])
                                   : std::numeric_limits<double>::quiet_NaN();
    }
    return sums;
}

namespace {

// Of two values that workers report, summed over them; none where the second is 0.
std::optional<double> ratio_over_workers(const ClusterView& view, const char* above,
                                         const char* below) {
    double sum = 0;
    double count = 0;
    for (const ProcessView& process : view.processes) {
        if (process.node.role != Role::worker) continue;
        sum += process.value(above).value_or(0);
        count += process.value(below).value_or(0);
    }
    if (count == 0) return std::nullopt;
    return sum / count;
}

// Of a sum that workers report over the steps whose cosines they counted; none where none does.
std::optional<double> mean_per_step(const ClusterView& view, const std::string& sum) {
    const bool reported =
        std::any_of(view.processes.begin(), view.processes.end(), [&](const ProcessView& process) {
            return process.node.role == Role::worker && process.value(sum.c_str());
        });
    return reported ? ratio_over_workers(view, sum.c_str(), "cosine.count") : std::nullopt;
}

}  // namespace

std::optional<double> mean_cosine(const ClusterView& view) {
    return ratio_over_workers(view, "cosine.sum", "cosine.count");
}

std::optional<double> interference_index(const ClusterView& view) {
    return ratio_over_workers(view, "interference.opposed", "interference.norms");
}

std::optional<double> conflict_share(const ClusterView& view) {
    return ratio_over_workers(view, "cosine.conflict_steps", "cosine.count");
}

std::uint64_t degenerate_steps(const ClusterView& view) {
    return sum_over_workers(view, "steps.degenerate");
}

std::vector<std::vector<double>> pairwise_cosines(const ClusterView& view) {
    const std::size_t tasks = view.tasks.size();
    std::vector<std::vector<double>> sums(tasks, std::vector<double>(tasks, 0.0));
    std::vector<std::vector<double>> steps = sums;
    bool any = false;
    for (const ProcessView& process : view.processes) {
        const double count = process.value("cosine.count").value_or(0);
        if (process.node.role != Role::worker || count == 0) continue;
        any = true;
        for (std::size_t i = 0; i < tasks; ++i) {
            for (std::size_t j = i + 1; j < tasks; ++j) {
                const std::string name = "cosine.sum." + view.tasks[i] + "." + view.tasks[j];
                const std::optional<double> sum = process.value(name);
                if (!sum) continue;
                sums[i][j] += *sum;
                steps[i][j] += count;
            }
        }
    }
    if (!any) return {};
    for (std::size_t i = 0; i < tasks; ++i) {
        sums[i][i] = 1;
        for (std::size_t j = i + 1; j < tasks; ++j) {
            sums[j][i] = sums[i][j] = steps[i][j] > 0 ? sums[i][j] / steps[i][j]
                                                      : std::numeric_limits<double>::quiet_NaN();
        }
    }
    return sums;
}

std::vector<PairSummary> pair_summaries(const ClusterView& view) {
    const std::size_t tasks = view.tasks.size();
    const std::size_t pairs = pairs_of(tasks);
    const std::vector<std::vector<double>> means = pairwise_cosines(view);
    if (means.empty()) return {};
    std::vector<std::uint64_t> bins(pairs * kCosineBins, 0);
    for (const ProcessView& process : view.processes) {
        const std::vector<std::uint64_t>& own = process.last.cosine_bins;
        if (own.size() != bins.size()) continue;  // none yet
        for (std::size_t i = 0; i < bins.size(); ++i) bins[i] += own[i];
    }
    std::vector<PairSummary> summaries;
    std::span<const std::uint64_t> rest(bins);
    for (std::size_t i = 0; i < tasks; ++i) {
        for (std::size_t j = i + 1; j < tasks; ++j) {
            const auto own = rest.first(kCosineBins);
            rest = rest.subspan(kCosineBins);
            if (std::isnan(means[i][j])) continue;
            double total = 0;
            double negative = 0;
            for (std::size_t bin = 0; bin < kCosineBins; ++bin) {
                total += static_cast<double>(own[bin]);
                if (bin < kCosineBins / 2) negative += static_cast<double>(own[bin]);
            }
            summaries.push_back({view.tasks[i], view.tasks[j], means[i][j],
                                 cosine_quantile(own, 0.1), cosine_quantile(own, 0.9),
                                 total > 0 ? negative / total : 0});
        }
    }
    return summaries;
}

std::vector<TaskSummary> task_summaries(const ClusterView& view) {
    std::vector<TaskSummary> summaries;
    for (const std::string& task : view.tasks) {
        const auto norm = mean_per_step(view, "norm.sum." + task);
        if (norm) summaries.push_back({task, *norm, mean_per_step(view, "weight.sum." + task)});
    }
    return summaries;
}

std::optional<InStepSummary> in_step(const ClusterView& view) {
    std::optional<InStepSummary> sum;
    for (const ProcessView& process : view.processes) {
        const auto rounds = process.value("sync.rounds");
        if (!rounds) continue;
        if (!sum) sum.emplace();
        sum->member_rounds += static_cast<std::uint64_t>(*rounds);
        sum->groups_lost += count_of(process.last, "sync.groups_lost");
        sum->wait_ms += process.value("sync.wait_ms").value_or(0);
    }
    if (sum && sum->member_rounds > 0) sum->wait_ms /= static_cast<double>(sum->member_rounds);
    return sum;
}

namespace {

// What all shards report under names that begin so, added up name by name.
std::map<std::string, double> sums_over_shards(const ClusterView& view, const std::string& begin) {
    std::map<std::string, double> sums;
    for (const ProcessView& process : view.processes) {
        if (process.node.role != Role::shard) continue;
        for (const NamedValue& value : process.last.values) {
            if (value.name.starts_with(begin)) sums[value.name] += value.value;
        }
    }
    return sums;
}

std::vector<AcrossSummary::Pair> across_pairs(const ClusterView& view) {
    const std::string begin = "across.pair.";
    const std::map<std::string, double> sums = sums_over_shards(view, begin);
    std::vector<AcrossSummary::Pair> pairs;
    for (std::size_t i = 0; i < view.tasks.size(); ++i) {
        for (std::size_t j = i + 1; j < view.tasks.size(); ++j) {
            const std::string name = begin + std::to_string(i) + "." + std::to_string(j);
            const auto sum = [&](const char* what) {
                const auto found = sums.find(name + what);
                return found == sums.end() ? 0.0 : found->second;
            };
            const double cosines = sum(".cosines");
            if (cosines == 0) continue;
            pairs.push_back({view.tasks[i], view.tasks[j], sum(".cosine_sum") / cosines,
                             sum(".negative") / cosines});
        }
    }
    return pairs;
}

}  // namespace

std::optional<AcrossSummary> across_workers(const ClusterView& view) {
    std::optional<AcrossSummary> sum;
    double cosines = 0;
    for (const ProcessView& process : view.processes) {
        if (process.node.role != Role::shard || !process.value("across.arrived")) continue;
        if (!sum) sum.emplace();
        sum->arrived += count_of(process.last, "across.arrived");
        sum->projected += count_of(process.last, "across.projected");
        sum->mean_cosine += process.value("across.cosine_sum").value_or(0);
        cosines += process.value("across.cosines").value_or(0);
    }
    if (sum && cosines > 0) sum->mean_cosine /= cosines;
    if (sum) sum->pairs = across_pairs(view);
    return sum;
}

StalenessSummary summarise(const ClusterView& view) {
    const std::vector<std::uint64_t> bins = staleness_bins(view);
    StalenessSummary summary;
    double sum = 0;
    for (const ProcessView& process : view.processes) {
        if (process.node.role != Role::shard) continue;
        sum += process.value("staleness.sum").value_or(0);
        summary.max = std::max(summary.max, count_of(process.last, "staleness.max"));
    }
    for (const std::uint64_t bin : bins) summary.count += bin;
    if (summary.count == 0) return summary;
    summary.mean = sum / static_cast<double>(summary.count);
    summary.p50 = staleness_quantile(bins, summary.max, 0.5);
    summary.p99 = staleness_quantile(bins, summary.max, 0.99);
    return summary;
}

double batches_done(const ClusterView& view) {
    const ProcessView* lead = view.find(node_of(kLeadShard));
    const double total = lead == nullptr ? 0 : lead->value("batches.total").value_or(0);
    return total <= 0 ? 0 : lead->value("batches.finished").value_or(0) / total;
}

}  // namespace detente
