#include "launch/report/conflict_history.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <optional>

#include "common/conflict/cosine_bins.h"

namespace detente {
namespace {

constexpr std::size_t kStretches = 60;  // of time
constexpr std::size_t kMostPairs = 8;   // that are shown
constexpr std::size_t kMostTasks = 12;  // whose norms and weights are

struct Mean {
    double sum = 0;
    double count = 0;
    void add(double value) {
        if (!std::isfinite(value)) return;
        sum += value;
        count += 1;
    }
    double value() const { return count > 0 ? sum / count : std::nan(""); }
};

struct Sums {
    NamesRecord names;
    double first = 0;
    double last = 0;
    bool by_layer = true;
    std::vector<Mean> of_pair;
    std::vector<std::vector<Mean>> over_time;  // [pair][stretch]
    std::vector<std::vector<Mean>> by_layer_pair;
    std::vector<std::vector<Mean>> norms;    // [task][stretch]
    std::vector<std::vector<Mean>> weights;  // likewise
    std::vector<Mean> in_conflict;           // [stretch]
    std::size_t weight_groups = 0;

    void begin(const NamesRecord& first_names) {
        names = first_names;
        const std::size_t pairs = pairs_of(names.tasks.size());
        of_pair.resize(pairs);
        over_time.assign(pairs, std::vector<Mean>(kStretches));
        by_layer_pair.assign(names.layers.size(), std::vector<Mean>(pairs));
        norms.assign(names.tasks.size(), std::vector<Mean>(kStretches));
        weights = norms;
        in_conflict.resize(kStretches);
    }
    std::size_t stretch_of(double seconds) const {
        const double share = last > first ? (seconds - first) / (last - first) : 0;
        return std::min(kStretches - 1, static_cast<std::size_t>(share * kStretches));
    }
    void add(const ResolvedStep& step) {
        const std::size_t stretch = stretch_of(as_seconds(step.at));
        const Gramian gramian = step.whole();
        for (std::size_t task = 0; task < names.tasks.size(); ++task) {
            norms[task][stretch].add(std::sqrt(std::max(0.0, gramian.at(task, task))));
        }
        const std::vector<double> whole = pair_cosines(gramian);
        const bool conflict =
            std::any_of(whole.begin(), whole.end(), [](double cosine) { return cosine < 0; });
        in_conflict[stretch].add(conflict ? 1 : 0);
        for (std::size_t pair = 0; pair < whole.size(); ++pair) {
            of_pair[pair].add(whole[pair]);
            over_time[pair][stretch].add(whole[pair]);
        }
        by_layer = by_layer && step.gramians.size() == names.layers.size();
        for (std::size_t i = 0; by_layer && i < step.gramians.size(); ++i) {
            const std::vector<double> cosines = pair_cosines(step.gramians[i]);
            for (std::size_t pair = 0; pair < cosines.size(); ++pair) {
                by_layer_pair[i][pair].add(cosines[pair]);
            }
        }
        weight_groups = std::max(weight_groups, step.weights.size());
        for (const std::vector<float>& group : step.weights) {
            for (std::size_t task = 0; task < names.tasks.size(); ++task) {
                weights[task][stretch].add(static_cast<double>(group[task]));
            }
        }
    }
    ConflictHistory::Series series_of(const std::vector<Mean>& means) const {
        ConflictHistory::Series series;
        for (std::size_t i = 0; i < means.size(); ++i) {
            const double middle = (static_cast<double>(i) + 0.5) / kStretches;
            if (means[i].count > 0) {
                series.emplace_back(first + middle * (last - first), means[i].value());
            }
        }
        return series;
    }
};

}  // namespace

Result<ConflictHistory> read_conflict_history(const RunDirectory& run) {
    std::error_code ignored;
    if (!std::filesystem::is_directory(run.ledger_dir(), ignored)) return ConflictHistory{};
    Sums sums;
    bool any = false;
    const auto span = read_resolved_steps(run, [&](const auto& names, const ResolvedStep& step) {
        if (!any) {
            sums.begin(names);
            sums.first = sums.last = as_seconds(step.at);
        }
        any = true;
        sums.first = std::min(sums.first, as_seconds(step.at));
        sums.last = std::max(sums.last, as_seconds(step.at));
    });
    if (span.has_error()) {
        if (span.error().code == ErrorCode::not_supported) return ConflictHistory{};
        return span.error();
    }
    const auto read = read_resolved_steps(run, [&](const auto& names, const ResolvedStep& step) {
        if (names.tasks == sums.names.tasks && names.layers == sums.names.layers) sums.add(step);
    });
    if (read.has_error()) return read.error();

    ConflictHistory history;
    history.tasks = sums.names.tasks;
    history.method = sums.names.method;
    history.weighs = weighs(history.method);
    std::vector<std::string> names;
    for (std::size_t i = 0; i < history.tasks.size(); ++i) {
        for (std::size_t j = i + 1; j < history.tasks.size(); ++j) {
            names.push_back(history.tasks[i] + " / " + history.tasks[j]);
        }
    }
    std::vector<std::size_t> order(names.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::erase_if(order, [&](std::size_t pair) { return sums.of_pair[pair].count == 0; });
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return sums.of_pair[a].value() < sums.of_pair[b].value();
    });
    if (order.size() > kMostPairs) order.resize(kMostPairs);
    for (const std::size_t pair : order) {
        history.pairs.push_back(names[pair]);
        history.over_time.push_back(sums.series_of(sums.over_time[pair]));
    }
    for (std::size_t i = 0; sums.by_layer && i < sums.names.layers.size(); ++i) {
        history.layers.push_back(sums.names.layers[i]);
        std::vector<double>& row = history.by_layer.emplace_back();
        for (const std::size_t pair : order) row.push_back(sums.by_layer_pair[i][pair].value());
    }
    history.weight_groups = sums.weight_groups;
    history.in_conflict = sums.series_of(sums.in_conflict);
    if (history.tasks.size() > kMostTasks) return history;
    for (const auto& means : sums.norms) history.norms.push_back(sums.series_of(means));
    if (sums.weight_groups > 0) {
        for (const auto& means : sums.weights) history.weights.push_back(sums.series_of(means));
    }
    return history;
}

}  // namespace detente
