#include "worker/conflict_rows.h"

#include <algorithm>

#include "common/conflict/row_kernels.h"
#include "common/conflict/task_vectors.h"
#include "common/invariant.h"
#include "common/random.h"

namespace detente {

std::vector<const float*> rows_of(const TaskGradients& gradients, const Block& block,
                                  std::size_t tasks) {
    std::vector<const float*> rows(tasks, nullptr);
    for (std::uint32_t task = 0; task < tasks; ++task) {
        if (!block.owners.contains(TaskId{task})) continue;
        const float* row = gradients.gradient(TaskId{task}, block.tensor);
        if (row != nullptr) rows[task] = row + block.offset;
    }
    return rows;
}

namespace {

AggregatorNeeds needs_of(const std::shared_ptr<const Aggregator>& aggregator) {
    return aggregator == nullptr ? AggregatorNeeds{} : aggregator->needs();
}

std::vector<const float*> rows_of(const TaskVectors& vectors, const Block& block,
                                  std::size_t tasks) {
    std::vector<const float*> rows(tasks, nullptr);
    for (std::size_t task = 0; task < tasks; ++task) {
        const std::vector<float>& own = vectors[block.id.value * tasks + task];
        if (!own.empty()) rows[task] = own.data();
    }
    return rows;
}

// All batches' rows one after the other.
std::vector<const float*> all_rows(const HeldGradients& held, const Block& block,
                                   std::size_t tasks) {
    std::vector<const float*> all;
    for (const auto& batch : held.batches) {
        const std::vector<const float*> rows = rows_of(*batch, block, tasks);
        all.insert(all.end(), rows.begin(), rows.end());
    }
    return all;
}

// At the trunk's output; nullptr where the task does not reach it. Sets `elements`.
std::vector<const float*> representation_rows(const TaskGradients& gradients, std::size_t tasks,
                                              std::size_t& elements) {
    std::vector<const float*> rows(tasks, nullptr);
    for (std::uint32_t task = 0; task < tasks; ++task) {
        const std::span<const float> row = gradients.representation(TaskId{task});
        if (row.empty()) continue;
        rows[task] = row.data();
        elements = row.size();
    }
    return rows;
}

std::vector<double> shared_out(const std::vector<double>& weights, const HeldGradients& held) {
    if (held.batches.size() == 1) return weights;
    std::vector<double> all;
    for (const double share : held.shares) {
        for (const double weight : weights) all.push_back(weight * share);
    }
    return all;
}

}  // namespace

ConflictRows::ConflictRows(std::shared_ptr<const Plan> plan, const std::vector<std::string>& names,
                           std::size_t tasks)
    : plan_(std::move(plan)), tasks_(tasks), layers_(shared_layers(*plan_, names)) {}

std::vector<std::size_t> ConflictRows::groups_of(ConflictScope scope) const {
    std::vector<std::size_t> groups(plan_->blocks.size(), 0);
    if (scope == ConflictScope::global) return groups;
    if (scope == ConflictScope::layer) return layers_.of_block;
    std::size_t group = 0;
    for (const Block& block : plan_->blocks) {
        if (block.trainable() && block.shared()) groups[block.id.value] = group++;
    }
    return groups;
}

void ConflictRows::add_exclusive(const HeldGradients& held, const Block& block,
                                 std::vector<double>& norms_sq) const {
    const std::size_t batches = held.batches.size();
    const std::vector<const float*> rows = all_rows(held, block, tasks_);
    for (std::size_t task = 0; task < tasks_; ++task) {
        if (rows[task] == nullptr) continue;
        if (batches == 1) {
            norms_sq[task] += squared_norm(rows[task], block.elements);
            continue;
        }
        Gramian pair(2);
        const std::vector<const float*> both = {rows[task], rows[tasks_ + task]};
        pair.add_block(both, block.elements);
        for (std::size_t a = 0; a < 2; ++a) {
            for (std::size_t b = 0; b < 2; ++b) {
                norms_sq[task] += held.shares[a] * held.shares[b] * pair.at(a, b);
            }
        }
    }
}

void ConflictRows::add_halves(const HeldGradients& held, const Block& block, Gramian& total,
                              GroupInput& group) const {
    Gramian both(2 * tasks_);
    both.add_block(all_rows(held, block, tasks_), block.elements);
    for (std::size_t i = 0; i < tasks_; ++i) {
        for (std::size_t j = 0; j < tasks_; ++j) {
            group.cross.at(i, j) += both.at(i, tasks_ + j);
            double sum = 0;
            for (std::size_t a = 0; a < 2; ++a) {
                for (std::size_t b = 0; b < 2; ++b) {
                    sum +=
                        held.shares[a] * held.shares[b] * both.at(a * tasks_ + i, b * tasks_ + j);
                }
            }
            group.gramian.at(i, j) += sum;
            total.at(i, j) += sum;
        }
    }
}

// `layer` takes what the block adds to the Gramian of the batch's gradients; nullptr: not wanted.
void ConflictRows::add_block(const GradientWork& work, const HeldGradients& held,
                             const Block& block, Gramian& total, GroupInput& group,
                             Gramian* layer) const {
    const AggregatorNeeds needs = needs_of(work.aggregator);
    Gramian& sum = needs.second_batch || needs.averages ? total : group.gramian;
    const Gramian before = layer == nullptr ? Gramian() : sum;
    if (needs.second_batch) {
        add_halves(held, block, total, group);
    } else {
        sum.add_block(rows_of(*held.batches.front(), block, tasks_), block.elements);
    }
    if (needs.averages) {
        group.gramian.add_block(rows_of(*held.vectors, block, tasks_), block.elements);
    }
    for (std::size_t i = 0; layer != nullptr && i < tasks_; ++i) {
        for (std::size_t j = 0; j < tasks_; ++j) {
            layer->at(i, j) += sum.at(i, j) - before.at(i, j);
        }
    }
}

void ConflictRows::advance_vectors(const GradientWork& work, HeldGradients& held,
                                   GradientOutcome& outcome,
                                   const std::vector<std::size_t>& group_of) const {
    const AggregatorNeeds needs = needs_of(work.aggregator);
    if (!needs.averages && !needs.excess) return;
    AverageStep average;
    if (needs.averages) average = work.aggregator->average(outcome.losses, tasks_);
    auto next = kept_ == nullptr ? std::make_shared<TaskVectors>(plan_->blocks.size() * tasks_)
                                 : std::make_shared<TaskVectors>(*kept_);
    for (const Block& block : plan_->blocks) {
        if (!block.trainable() || !block.shared()) continue;
        const std::vector<const float*> rows = rows_of(*held.batches.front(), block, tasks_);
        for (std::uint32_t task = 0; task < tasks_; ++task) {
            if (!block.owners.contains(TaskId{task})) continue;
            std::vector<float>& own = (*next)[block.id.value * tasks_ + task];
            own.resize(block.elements, 0.0F);
            if (needs.averages) {
                take_into_average<float>(own, rows[task], average.keep[task], average.add[task]);
            } else {
                outcome.groups[group_of[block.id.value]].excess[task] +=
                    take_into_squares<float>(own, rows[task]);
            }
        }
    }
    held.vectors = std::move(next);
}

void ConflictRows::measure(const GradientWork& work, HeldGradients& held,
                           GradientOutcome& outcome) const {
    const AggregatorNeeds needs = needs_of(work.aggregator);
    held.group_of = groups_of(work.scope);
    const std::vector<std::size_t>& group_of = held.group_of;
    const std::size_t groups =
        group_of.empty() ? 1 : *std::max_element(group_of.begin(), group_of.end()) + 1;
    GroupInput empty;
    empty.gramian = empty.cross = Gramian(tasks_);
    empty.excess.assign(tasks_, 0.0);
    if (work.space == ConflictSpace::parameters) empty.members = {};
    outcome.groups.assign(groups, empty);
    outcome.gramian = Gramian(tasks_);
    outcome.exclusive_norms_sq.assign(tasks_, 0.0);
    held.space = work.space;
    const bool at_output = work.space == ConflictSpace::representation;
    outcome.layers.assign(work.layers && !at_output ? layers_.names.size() : 0, Gramian(tasks_));
    advance_vectors(work, held, outcome, group_of);
    for (const Block& block : plan_->blocks) {
        if (!block.trainable()) continue;
        if (block.shared() && at_output) continue;  // of the trunk: there are no rows of it
        if (block.shared()) {
            outcome.groups[group_of[block.id.value]].members.bits |= block.owners.bits;
            Gramian* layer =
                work.layers ? &outcome.layers[layers_.of_block[block.id.value]] : nullptr;
            add_block(work, held, block, outcome.gramian, outcome.groups[group_of[block.id.value]],
                      layer);
        } else {
            add_exclusive(held, block, outcome.exclusive_norms_sq);
        }
    }
    if (at_output) {
        std::size_t elements = 0;
        const auto rows = representation_rows(*held.batches.front(), tasks_, elements);
        outcome.groups.front().gramian.add_block(rows, elements);
    }
    if (needs.second_batch || needs.averages) return;
    if (groups == 1) {
        outcome.gramian = outcome.groups.front().gramian;
        return;
    }
    for (const GroupInput& group : outcome.groups) outcome.gramian.add(group.gramian);
}

void ConflictRows::combine(const CombineWork& work, const HeldGradients& held,
                           const TrunkGradient* trunk, const Block& block,
                           std::span<float> out) const {
    if (block.shared() && trunk != nullptr) {
        const float* row = trunk->gradient(block.tensor);
        const std::vector<const float*> rows = {row == nullptr ? nullptr : row + block.offset};
        const std::vector<double> factor = {work.clip_factor};
        return detente::combine(factor, rows, out);
    }
    if (!block.shared()) {
        const std::vector<double> own(tasks_, work.clip_factor);
        return detente::combine(shared_out(own, held), all_rows(held, block, tasks_), out);
    }
    const AggregatorNeeds needs = needs_of(work.aggregator);
    if (needs.coordinates) {
        CoordinateRows<float> rows;
        const std::vector<const float*> starts = rows_of(*held.batches.front(), block, tasks_);
        rows.rows = starts;
        rows.random_key = random_key(work.random_key, Purpose::aggregator, {block.tensor});
        rows.first = block.offset;
        work.aggregator->combine(rows, out);
        const auto factor = static_cast<float>(work.clip_factor);
        for (std::size_t e = 0; e < out.size() && factor != 1; ++e) out[e] *= factor;
        return;
    }
    std::vector<double> weights = work.group_weights.empty()
                                      ? work.weights
                                      : work.group_weights[held.group_of[block.id.value]];
    for (double& weight : weights) weight *= work.clip_factor;
    if (needs.averages) {
        return detente::combine(weights, rows_of(*held.vectors, block, tasks_), out);
    }
    detente::combine(shared_out(weights, held), all_rows(held, block, tasks_), out);
}

void ConflictRows::add_result(const HeldGradients& held, const Block& block,
                              std::span<const float> out, CombineOutcome& outcome) const {
    outcome.result_sq += squared_norm(out.data(), out.size());
    for (std::size_t batch = 0; batch < held.batches.size(); ++batch) {
        std::vector<const float*> present;
        std::vector<std::size_t> tasks;
        const std::vector<const float*> rows = rows_of(*held.batches[batch], block, tasks_);
        for (std::size_t task = 0; task < tasks_; ++task) {
            if (rows[task] == nullptr) continue;
            present.push_back(rows[task]);
            tasks.push_back(task);
        }
        std::vector<double> products(present.size(), 0.0);
        kernels::add_row_products(out.data(), present, out.size(), products.data());
        const double share = held.batches.size() == 1 ? 1.0 : held.shares[batch];
        for (std::size_t i = 0; i < tasks.size(); ++i) {
            outcome.products[tasks[i]] += share * products[i];
        }
    }
}

std::size_t ConflictRows::shared_blocks() const {
    return static_cast<std::size_t>(
        std::count_if(plan_->blocks.begin(), plan_->blocks.end(),
                      [](const Block& block) { return block.trainable() && block.shared(); }));
}

std::vector<float> ConflictRows::combined_representation(const CombineWork& work,
                                                         const HeldGradients& held) const {
    std::size_t elements = 0;
    const auto rows = representation_rows(*held.batches.front(), tasks_, elements);
    std::vector<float> combined(elements);
    detente::combine(work.weights, rows, combined);
    return combined;
}

double ConflictRows::combined_norm_sq(const CombineWork& work, const HeldGradients& held,
                                      const TrunkGradient* trunk) const {
    double sum = 0;
    std::vector<float> block_out;
    for (const Block& block : plan_->blocks) {
        if (!block.trainable()) continue;
        block_out.resize(block.elements);
        combine(work, held, trunk, block, block_out);
        sum += squared_norm(block_out.data(), block.elements);
    }
    return sum;
}

}  // namespace detente
