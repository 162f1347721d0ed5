#include "ps/task_memory.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "common/conflict/gramian.h"
#include "common/conflict/row_kernels.h"
#include "common/invariant.h"
#include "common/staleness/delay_compensation.h"

namespace detente {
namespace {

// An average that has all but decayed says nothing: what is left of it in float has no direction
// worth taking out, and scaling it up to the gradient's length may overflow.
bool worth_it(double mean_sq, double length_sq) {
    constexpr double kNegligible = 1e-12;  // of the squared lengths: one millionth of the gradient
    return std::isfinite(mean_sq) && mean_sq >= std::numeric_limits<float>::min() &&
           mean_sq >= kNegligible * length_sq;
}

}  // namespace

bool SavedMemory::operator==(const SavedMemory& other) const {
    const auto same = [](const Task& x, const Task& y) {
        return x.task == y.task && x.version == y.version &&
               std::ranges::equal(x.mean.bytes, y.mean.bytes);
    };
    return gramian == other.gramian && std::ranges::equal(tasks, other.tasks, same);
}

AcrossFigures::Cosines AcrossFigures::of_all_pairs() const {
    Cosines all;
    for (const auto& [tasks, pair] : pairs) {
        all.count += pair.count;
        all.negative += pair.negative;
        all.sum += pair.sum;
    }
    return all;
}

TaskMemory::Row TaskMemory::row_of(std::span<const float> gradient) const {
    std::vector<const float*> rows;
    for (const Remembered& one : tasks_) rows.push_back(one.mean->data());
    rows.push_back(gradient.data());
    Row row;
    row.products.assign(rows.size(), 0.0);
    kernels::add_row_products(gradient.data(), rows, gradient.size(), row.products.data());
    row.length_sq = row.products.back();
    row.products.pop_back();
    return row;
}

void TaskMemory::resolve(const AcrossConfig& across, const Arrival& arrival,
                         std::span<float> gradient, std::vector<float>& scratch,
                         AcrossFigures& figures) {
    ++figures.arrived;
    const Row own = row_of(gradient);
    std::vector<double> weights;
    if (across.compensate > 0 && !arrival.stale.empty() && !tasks_.empty()) {
        scratch.resize(gradient.size());
        for (std::size_t i = 0; i < gradient.size(); ++i) {
            scratch[i] = delay_compensated(gradient[i], across.compensate, arrival.weights[i],
                                           arrival.stale[i]);
        }
        weights = projection(across, arrival, own, row_of(scratch), figures);
    } else {
        weights = projection(across, arrival, own, own, figures);
    }
    const bool changed =
        std::any_of(weights.begin(), weights.end(), [](double weight) { return weight != 0; });
    scratch.assign(gradient.begin(), gradient.end());
    if (changed) {
        ++figures.projected;
        std::vector<const float*> parts{scratch.data()};
        for (const Remembered& one : tasks_) parts.push_back(one.mean->data());
        weights.insert(weights.begin(), 1.0);
        combine(weights, parts, gradient);
    }
    if (std::isfinite(own.length_sq)) remember(across.ema, arrival, scratch, own);
}

std::vector<double> TaskMemory::projection(const AcrossConfig& across, const Arrival& arrival,
                                           const Row& own, const Row& seen,
                                           AcrossFigures& figures) const {
    const std::size_t n = tasks_.size();
    std::vector<double> weights(n, 0.0);
    if (!std::isfinite(own.length_sq) || !std::isfinite(seen.length_sq)) return weights;
    for (std::size_t j = 0; j < n; ++j) {
        const double mean_sq = gramian_[j * n + j];
        if (tasks_[j].task == arrival.task || !worth_it(mean_sq, own.length_sq)) continue;
        if (seen.length_sq > 0) {
            const double norms = std::sqrt(seen.length_sq) * std::sqrt(mean_sq);
            const double cosine = std::clamp(seen.products[j] / norms, -1.0, 1.0);
            AcrossFigures::Cosines& pair = figures.pairs[std::minmax(arrival.task, tasks_[j].task)];
            pair.sum += cosine;
            ++pair.count;
            if (cosine < 0) ++pair.negative;
        }
        double product = own.products[j];
        double seen_product = seen.products[j];
        for (std::size_t k = 0; k < j; ++k) {
            product += weights[k] * gramian_[k * n + j];
            seen_product += weights[k] * gramian_[k * n + j];
        }
        if (!(product < 0) || !(seen_product < 0)) continue;
        const std::uint64_t apart = arrival.base > tasks_[j].version
                                        ? arrival.base.value - tasks_[j].version.value
                                        : tasks_[j].version.value - arrival.base.value;
        const double confidence = std::exp2(-static_cast<double>(apart) / across.half_life);
        const double weight = -confidence * product / mean_sq;
        if (std::isfinite(static_cast<float>(weight))) weights[j] = weight;
    }
    return weights;
}

void TaskMemory::remember(double ema, const Arrival& arrival, std::span<const float> gradient,
                          const Row& row) {
    const auto at =
        std::lower_bound(tasks_.begin(), tasks_.end(), arrival.task,
                         [](const Remembered& one, TaskId task) { return one.task < task; });
    const auto i = static_cast<std::size_t>(at - tasks_.begin());
    if (at == tasks_.end() || at->task != arrival.task) {
        const std::size_t before = tasks_.size();
        std::vector<double> grown((before + 1) * (before + 1), 0.0);
        const auto moved = [i](std::size_t place) { return place < i ? place : place + 1; };
        for (std::size_t a = 0; a < before; ++a) {
            for (std::size_t b = 0; b < before; ++b) {
                grown[moved(a) * (before + 1) + moved(b)] = gramian_[a * before + b];
            }
            grown[moved(a) * (before + 1) + i] = row.products[a];
            grown[i * (before + 1) + moved(a)] = row.products[a];
        }
        grown[i * (before + 1) + i] = row.length_sq;
        gramian_ = std::move(grown);
        tasks_.insert(at, {arrival.task, arrival.base,
                           std::make_shared<std::vector<float>>(gradient.begin(), gradient.end())});
        return;
    }
    // As combine() will take them.
    const double keep = static_cast<float>(ema);
    const double add = static_cast<float>(1 - ema);
    const std::size_t n = tasks_.size();
    for (std::size_t j = 0; j < n; ++j) {
        double& entry = gramian_[i * n + j];
        entry = i == j ? keep * keep * entry + 2 * keep * add * row.products[i] +
                             add * add * row.length_sq
                       : keep * entry + add * row.products[j];
        gramian_[j * n + i] = entry;
    }
    Remembered& own = *at;
    own.version = std::max(own.version, arrival.base);
    const std::vector<const float*> parts{own.mean->data(), gradient.data()};
    const double both[] = {keep, add};
    if (own.mean.use_count() > 1) {
        auto next = std::make_shared<std::vector<float>>(gradient.size());
        combine(both, parts, *next);
        own.mean = std::move(next);
    } else {
        combine(both, parts, *own.mean);
    }
}

SavedMemory TaskMemory::save() const {
    SavedMemory saved;
    for (const Remembered& one : tasks_) {
        const auto bytes = std::as_bytes(std::span<const float>(*one.mean));
        saved.tasks.push_back({one.task, one.version, {one.mean, bytes}});
    }
    saved.gramian = gramian_;
    return saved;
}

void TaskMemory::restore(const SavedMemory& saved) {
    invariant(saved.gramian.size() == saved.tasks.size() * saved.tasks.size(),
              "a memory has a row of its Gramian per task");
    tasks_.clear();
    for (const SavedMemory::Task& one : saved.tasks) {
        auto mean = std::make_shared<std::vector<float>>(one.mean.size() / sizeof(float));
        std::memcpy(mean->data(), one.mean.bytes.data(), one.mean.size());
        tasks_.push_back({one.task, one.version, std::move(mean)});
    }
    gramian_ = saved.gramian;
    copies_ = {};
}

bool fits_across(const Policy& policy) {
    const PolicyNeeds needs = policy.needs();
    return policy.scope() == Scope::block && policy.worker_half() == nullptr && !needs.measures &&
           !needs.corrects && !needs.stale_weights && needs.block_vectors == 0 &&
           needs.worker_vectors == 0 && !needs.look_ahead && !needs.step_averages;
}

bool remembers_tasks(const Job& job, const Block& block) {
    return job.across.method != AcrossMethod::off && block.trainable() && block.shared();
}

std::uint64_t memory_bytes(const Job& job, const Plan& plan) {
    std::uint64_t bytes = 0;
    for (const Block& block : plan.blocks) {
        if (!remembers_tasks(job, block)) continue;
        bytes += static_cast<std::uint64_t>(block.owners.count()) * block.bytes();
    }
    return bytes;
}

std::uint64_t copy_bytes(const Job& job, const Plan& plan) {
    if (job.across.compensate <= 0) return 0;
    std::uint64_t bytes = 0;
    for (const Block& block : plan.blocks) {
        if (remembers_tasks(job, block)) bytes += block.bytes();
    }
    return bytes * job.most_workers() * PolicyVectors::kMostCopies;
}

}  // namespace detente
