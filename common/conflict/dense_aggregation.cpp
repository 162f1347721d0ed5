#include "common/conflict/dense_aggregation.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "common/conflict/small_matrix.h"
#include "common/conflict/task_vectors.h"
#include "common/random.h"

namespace detente {
namespace {

Result<void> check_rows(const DenseRows& rows, const char* name) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (rows[i].size() != rows.front().size()) {
            return fail(ErrorCode::bad_job,
                        fmt::format("rows of {} should be equally long, but row 0 has {} numbers "
                                    "and row {} has {}",
                                    name, rows.front().size(), i, rows[i].size()));
        }
        for (const double x : rows[i]) {
            if (std::isfinite(x)) continue;
            return fail(ErrorCode::not_finite,
                        fmt::format("the gradient of task {} ({}) holds {}", i, name, x));
        }
    }
    if (!rows.empty() && rows.front().empty()) {
        return fail(ErrorCode::bad_job, fmt::format("rows of {} hold no numbers", name));
    }
    return {};
}

std::vector<double> combined(const std::vector<double>& weights, const DenseRows& rows) {
    std::vector<double> out(rows.front().size(), 0.0);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (weights[i] == 0) continue;
        for (std::size_t e = 0; e < out.size(); ++e) out[e] += weights[i] * rows[i][e];
    }
    return out;
}

}  // namespace

Gramian cross_gramian_of(const DenseRows& first, const DenseRows& second) {
    Gramian g(first.size());
    for (std::size_t i = 0; i < first.size(); ++i) {
        for (std::size_t j = 0; j < second.size(); ++j) g.at(i, j) = dot(first[i], second[j]);
    }
    return g;
}

Gramian gramian_of(const DenseRows& rows) { return cross_gramian_of(rows, rows); }

Result<void> DenseAggregation::check(const DenseStep& step) const {
    if (step.rows.empty()) {
        return fail(ErrorCode::bad_job, "the matrix has no rows: give one row per task");
    }
    if (auto good = check_rows(step.rows, "matrix"); !good) return good;
    if (auto good = check_rows(step.second, "matrix2"); !good) return good;
    const bool other_shape =
        !step.second.empty() && (step.second.size() != step.rows.size() ||
                                 step.second.front().size() != step.rows.front().size());
    if (other_shape) {
        return fail(ErrorCode::bad_job, "matrix2 should have the shape of matrix");
    }
    if (!kept_.empty() &&
        (kept_.size() != step.rows.size() || kept_.front().size() != step.rows.front().size())) {
        return fail(ErrorCode::bad_job,
                    fmt::format("every step's matrix should have the shape of the first, {} x {}, "
                                "but has {} x {}",
                                kept_.size(), kept_.front().size(), step.rows.size(),
                                step.rows.front().size()));
    }
    for (std::size_t i = 0; i < step.losses.size(); ++i) {
        if (std::isfinite(step.losses[i])) continue;
        return fail(ErrorCode::not_finite,
                    fmt::format("the loss of task {} is {}", i, step.losses[i]));
    }
    return {};
}

Result<DenseResult> DenseAggregation::step(const DenseStep& step) {
    if (const auto good = check(step); !good) return good.error();
    const AggregatorNeeds needs = method_->needs();
    const std::size_t tasks = step.rows.size();
    AggregatorState state = kept_.empty() ? method_->initial_state(tasks) : state_;
    DenseRows kept = kept_.empty()
                         ? DenseRows(tasks, std::vector<double>(step.rows.front().size(), 0.0))
                         : kept_;
    DenseResult result;
    result.gramian = gramian_of(step.rows);
    AggregatorInput input;
    input.losses = step.losses;
    input.random_key = random_key(seed_, Purpose::aggregator, {steps_});
    Gramian of_averages;
    Gramian cross;
    std::vector<double> excess;
    input.gramian = &result.gramian;
    if (needs.losses && step.losses.size() != tasks) {
        return fail(ErrorCode::bad_job,
                    fmt::format("aggregator '{}' needs losses, one per task: there are {} tasks, "
                                "but {} losses",
                                method_->name(), tasks, step.losses.size()));
    }
    if (needs.averages) {
        const AverageStep average = method_->average(step.losses, tasks);
        for (std::size_t i = 0; i < tasks; ++i) {
            take_into_average<double>(kept[i], step.rows[i].data(), average.keep[i],
                                      average.add[i]);
        }
        of_averages = gramian_of(kept);
        input.gramian = &of_averages;
    }
    if (needs.second_batch && !step.second.empty()) {
        cross = cross_gramian_of(step.rows, step.second);
        input.cross = &cross;
    }
    for (std::size_t i = 0; i < tasks && needs.excess; ++i) {
        excess.push_back(take_into_squares<double>(kept[i], step.rows[i].data()));
    }
    input.excess = excess;
    auto output = method_->weights(input, state);
    if (!output) return output.error();
    result.output = std::move(*output);
    if (needs.coordinates) {
        std::vector<const double*> rows;
        for (const auto& row : step.rows) rows.push_back(row.data());
        result.result.resize(step.rows.front().size());
        method_->combine({rows, input.random_key, 0, {}}, result.result);
    } else {
        result.result = combined(result.output.weights, needs.averages ? kept : step.rows);
    }
    state_ = std::move(state);
    kept_ = std::move(kept);
    ++steps_;
    return result;
}

}  // namespace detente
