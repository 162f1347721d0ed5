#include "common/conflict/composed.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/conflict/members.h"
#include "common/conflict/methods.h"
#include "common/invariant.h"

namespace detente {
namespace {

Gramian scaled(const Gramian& g, const std::vector<double>& by) {
    Gramian out(g.tasks());
    for (std::size_t i = 0; i < g.tasks(); ++i) {
        for (std::size_t j = 0; j < g.tasks(); ++j) out.at(i, j) = by[i] * g.at(i, j) * by[j];
    }
    return out;
}

class Composed final : public Aggregator {
  public:
    Composed(std::unique_ptr<const Aggregator> method, Composition composition)
        : method_(std::move(method)), composition_(std::move(composition)) {}

    std::string name() const override { return method_->name(); }
    AggregatorNeeds needs() const override { return method_->needs(); }
    AggregatorState initial_state(std::size_t tasks) const override {
        AggregatorState state = method_->initial_state(tasks);
        if (composition_.cr_mogm > 0) state.values.resize(state.values.size() + tasks + 1, 0.0);
        return state;
    }
    std::vector<std::size_t> state_places(TaskSet members, std::size_t tasks) const override;
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& state) const override;
    AverageStep average(std::span<const double> losses, std::size_t tasks) const override {
        if (composition_.preference.empty()) return method_->average(losses, tasks);
        std::vector<double> own(losses.begin(), losses.end());
        for (std::size_t i = 0; i < own.size(); ++i) own[i] *= preference(i);
        AverageStep step = method_->average(own, tasks);
        for (std::size_t i = 0; i < step.add.size(); ++i) step.add[i] *= preference(i);
        return step;
    }
    void combine(const CoordinateRows<float>& block, std::span<float> out) const override {
        method_->combine(preferred(block), out);
    }
    void combine(const CoordinateRows<double>& block, std::span<double> out) const override {
        method_->combine(preferred(block), out);
    }

  private:
    // A preference for another number of tasks has been refused by weights().
    double preference(std::size_t i) const {
        return i < composition_.preference.size() ? composition_.preference[i] : 1.0;
    }
    template <class Real>
    CoordinateRows<Real> preferred(CoordinateRows<Real> block) const {
        if (!composition_.preference.empty()) block.scales = composition_.preference;
        return block;
    }
    Result<void> check(const AggregatorInput& input) const;
    Result<AggregatorOutput> of_method(const AggregatorInput& input, AggregatorState& state) const;
    void average_weights(std::vector<double>& weights, AggregatorState& state) const;

    std::unique_ptr<const Aggregator> method_;
    Composition composition_;
};

std::vector<std::size_t> Composed::state_places(TaskSet members, std::size_t tasks) const {
    std::vector<std::size_t> places = method_->state_places(members, tasks);
    if (composition_.cr_mogm == 0) return places;
    const std::size_t own = method_->initial_state(tasks).values.size();
    places.push_back(own);
    for (const std::size_t i : indices_of(members, tasks)) places.push_back(own + 1 + i);
    return places;
}

Result<void> Composed::check(const AggregatorInput& input) const {
    if (const auto finite = methods::check_finite(input); !finite) return finite.error();
    const std::size_t tasks = input.gramian->tasks();
    const AggregatorNeeds needs = method_->needs();
    const auto lacks = [&](const std::string& what) {
        return fail(ErrorCode::bad_job, "aggregator '" + name() + "' needs " + what);
    };
    if ((needs.losses || !input.losses.empty()) && input.losses.size() != tasks) {
        return lacks(
            fmt::format("one loss per task: {} tasks, but {} losses", tasks, input.losses.size()));
    }
    if (needs.second_batch && (input.cross == nullptr || input.cross->tasks() != tasks)) {
        return lacks("the gradients of a second, independent batch at the same weights");
    }
    if (needs.excess && input.excess.size() != tasks) {
        return lacks("the tasks' excess from accumulated squares");
    }
    const std::size_t preferences = composition_.preference.size();
    if (preferences != 0 && preferences != tasks) {
        return fail(ErrorCode::bad_job, fmt::format("preference lists {} tasks, but there are {}: "
                                                    "give one number per task, separated by ','",
                                                    preferences, tasks));
    }
    return {};
}

Result<AggregatorOutput> Composed::of_method(const AggregatorInput& input,
                                             AggregatorState& state) const {
    const std::vector<double>& p = composition_.preference;
    if (p.empty()) return method_->weights(input, state);
    AggregatorInput own = input;
    // Averages were made of preferred gradients already.
    const bool averages = method_->needs().averages;
    Gramian gramian;
    if (!averages) {
        gramian = scaled(*input.gramian, p);
        own.gramian = &gramian;
    }
    Gramian cross;
    if (input.cross != nullptr) {
        cross = scaled(*input.cross, p);
        own.cross = &cross;
    }
    std::vector<double> losses(input.losses.begin(), input.losses.end());
    for (std::size_t i = 0; i < losses.size(); ++i) losses[i] *= p[i];
    own.losses = losses;
    std::vector<double> excess(input.excess.begin(), input.excess.end());
    for (std::size_t i = 0; i < excess.size(); ++i) excess[i] *= p[i];
    own.excess = excess;
    own.preference = p;
    if (const auto finite = methods::check_finite(own); !finite) {
        return fail(finite.error().code, fmt::format("once multiplied by the preference {}, {}",
                                                     fmt::join(p, ","), finite.error().text));
    }
    auto output = method_->weights(own, state);
    if (output && !averages) {
        for (std::size_t i = 0; i < output->weights.size(); ++i) output->weights[i] *= p[i];
    }
    return output;
}

void Composed::average_weights(std::vector<double>& weights, AggregatorState& state) const {
    const std::size_t own = weights.size() + 1;
    double* kept = state.values.data() + (state.values.size() - own);
    const double a = kept[0] == 0 ? 0.0 : composition_.cr_mogm;
    kept[0] = 1;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        kept[1 + i] = a * kept[1 + i] + (1 - a) * weights[i];
        weights[i] = kept[1 + i];
    }
}

Result<AggregatorOutput> Composed::weights(const AggregatorInput& input,
                                           AggregatorState& state) const {
    if (const auto good = check(input); !good) return good.error();
    const std::size_t tasks = input.gramian->tasks();
    if (tasks == 0) return AggregatorOutput{};
    invariant(state.values.size() == initial_state(tasks).values.size(),
              "an aggregator gets a state of its own");
    if (composition_.cr_mogm == 0) return of_method(input, state);
    AggregatorState inner;
    inner.values.assign(state.values.begin(),
                        state.values.end() - static_cast<std::ptrdiff_t>(tasks + 1));
    auto output = of_method(input, inner);
    if (!output) return output;
    std::copy(inner.values.begin(), inner.values.end(), state.values.begin());
    average_weights(output->weights, state);
    return output;
}

}  // namespace

std::vector<ExplainedParameter> composition_parameters() {
    return {{"preference",
             "in front of the method: what each task's loss and gradient are multiplied by, one "
             "number above 0 per task, separated by ',', or none (default none)",
             "none", true},
            {"cr_mogm",
             "behind the method (CR-MOGM): share of the last step's weights in this step's, from 0 "
             "to below 1 (default 0: off)",
             "0"}};
}

Result<std::unique_ptr<const Aggregator>> composed(std::unique_ptr<const Aggregator> method,
                                                   const AggregatorConfig& config) {
    methods::Settings settings(config);
    Composition composition;
    composition.preference = settings.list("preference", "none", -1e18);
    composition.cr_mogm = settings.real("cr_mogm", 0, 0, 0.999999999);
    if (settings.error()) return *settings.error();
    for (const double p : composition.preference) {
        if (p > 0) continue;
        return fail(ErrorCode::bad_job,
                    fmt::format("aggregator '{}': preference must be numbers above 0, found {}: to "
                                "do without a task, leave it out of the job; to make it count "
                                "little, give it a small number",
                                config.name, p));
    }
    if (composition.cr_mogm > 0 && method->needs().coordinates) {
        return fail(ErrorCode::bad_job, fmt::format("aggregator '{}' works coordinate by "
                                                    "coordinate and has no weights that cr_mogm "
                                                    "could average; leave cr_mogm out",
                                                    config.name));
    }
    return std::make_unique<const Composed>(std::move(method), std::move(composition));
}

}  // namespace detente
