#include "launch/explain.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <cmath>
#include <iterator>

namespace detente {
namespace {

namespace json = boost::json;

constexpr std::size_t kMostPairsShown = 20;
constexpr std::size_t kMostGroupsShown = 20;

// Products of every gradient with the plain sum and with the result, and the result's own length.
struct Products {
    std::vector<double> with_sum;
    std::vector<double> with_result;
    double sum_sq = 0;
    double result_sq = 0;
};

void add(Products& products, const Gramian& gramian, const std::vector<float>& weights) {
    const std::size_t tasks = gramian.tasks();
    for (std::size_t i = 0; i < tasks; ++i) {
        for (std::size_t j = 0; j < tasks; ++j) {
            // A task that has no part here has no weight, and only products of zero.
            const double own = std::isnan(weights[j]) ? 0.0 : static_cast<double>(weights[j]);
            const double weighted = own * gramian.at(i, j);
            products.with_sum[i] += gramian.at(i, j);
            products.with_result[i] += weighted;
            products.sum_sq += gramian.at(i, j);
            products.result_sq += static_cast<double>(weights[i]) * weighted;
        }
    }
}

// Whether the weights say the result: they are of the gradients themselves and fit what was
// recorded, one list for all, or one per recorded layer.
bool weights_say_it(const ResolvedStep& step, Weighs weighs) {
    return weighs == Weighs::gradients &&
           (step.weights.size() == 1 ||
            (!step.weights.empty() && step.weights.size() == step.gramians.size()));
}

Products products_of(const ResolvedStep& step, bool by_weights) {
    const std::size_t tasks = step.losses.size();
    Products products;
    products.with_sum.assign(tasks, 0.0);
    products.with_result.assign(tasks, 0.0);
    const std::vector<float> none(tasks, 0.0F);
    for (std::size_t i = 0; i < step.gramians.size(); ++i) {
        const std::vector<float>& weights = !by_weights                ? none
                                            : step.weights.size() == 1 ? step.weights[0]
                                                                       : step.weights[i];
        add(products, step.gramians[i], weights);
    }
    if (!by_weights && !step.result.empty()) {
        std::copy_n(step.result.begin(), tasks, products.with_result.begin());
        products.result_sq = static_cast<double>(step.result.back());
    }
    return products;
}

double cosine_of(double product, double a_sq, double b_sq) {
    const double norms = std::sqrt(std::max(0.0, a_sq)) * std::sqrt(std::max(0.0, b_sq));
    return norms > 0 ? std::clamp(product / norms, -1.0, 1.0) : 0;
}

double cosine_in(const Gramian& gramian, std::size_t a, std::size_t b) {
    return cosine_of(gramian.at(a, b), gramian.at(a, a), gramian.at(b, b));
}

std::string percent(double factor) {
    const double percents = std::round(100 * (factor - 1));
    return fmt::format("{:+.0f} %", percents == 0 ? 0.0 : percents);  // and not "-0 %"
}

// What became of the task, as a sentence.
std::string fate_of(const ExplainedStep::OfTask& task) {
    if (!task.with_result) return "";
    if (!task.progress) return "the plain sum would have done nothing for it";
    if (task.with_sum < 0) {
        return *task.with_result >= 0 ? "the plain sum would have raised its loss; this does not"
                                      : "the plain sum would have raised its loss; so does this";
    }
    if (*task.with_result < 0) return "gives way: this raises its loss, to first order";
    return fmt::format("progress {} beside the plain sum", percent(*task.progress));
}

// What the weights multiply where that is not the gradients, and why nothing is said of the result
// where nothing is; empty where that needs no words.
std::string on_weights(const ExplainedStep& explained) {
    std::string text;
    if (explained.weighs == Weighs::averages) {
        text = fmt::format(
            "  The weights multiply {}'s moving averages of the gradients; lengths and cosines are "
            "of this batch's\n  gradients.\n",
            explained.method);
    }
    if (explained.weighs == Weighs::nothing) {
        text = fmt::format("  {} decides coordinate by coordinate and has no weights.\n",
                           explained.method);
    }
    const bool decided = explained.weighs == Weighs::nothing || !explained.step.weights.empty();
    if (decided && !explained.of_tasks.front().with_result) {
        text +=
            "  What this step did for each task is not known: the worker pushed only a part of "
            "what is shared.\n";
    }
    return text;
}

std::vector<std::string> groups_of(const NamesRecord& names, const ResolvedStep& step) {
    const std::size_t count = step.weights.size();
    if (count < 2) return {};
    if (count == names.layers.size()) return names.layers;
    std::vector<std::string> groups;
    for (std::size_t i = 1; i <= count; ++i) groups.push_back(fmt::format("group {}", i));
    return groups;
}

// The weights of each group, a line per group and a column per task.
std::string weights_by_group(const ExplainedStep& explained) {
    if (explained.groups.empty()) return "";
    std::string text =
        fmt::format("  weights by group of conflict.scope: {}\n", fmt::join(explained.tasks, ", "));
    const auto out = std::back_inserter(text);
    for (std::size_t i = 0; i < explained.groups.size(); ++i) {
        if (i == kMostGroupsShown) {
            fmt::format_to(out, "    … and {} groups (--json has all)\n",
                           explained.groups.size() - kMostGroupsShown);
            break;
        }
        fmt::format_to(out, "    {:<32}", explained.groups[i]);
        for (const float weight : explained.step.weights[i]) {
            const bool has_part = !std::isnan(weight);
            fmt::format_to(out, " {:>8}", has_part ? fmt::format("{:.4f}", weight) : "-");
        }
        text += "\n";
    }
    return text;
}

std::string weight_text(const ExplainedStep& explained, std::size_t task) {
    const auto& weights = explained.step.weights;
    if (weights.size() == 1) return fmt::format("{:.4f}", weights[0][task]);
    if (!weights.empty()) return "by group";
    return explained.weighs == Weighs::nothing ? "none" : "unknown";
}

const char* name_of(Weighs weighs) {
    switch (weighs) {
        case Weighs::gradients:
            return "gradients";
        case Weighs::averages:
            return "averages";
        case Weighs::nothing:
            break;
    }
    return "nothing";
}

}  // namespace

ExplainedStep explain(const NamesRecord& names, ResolvedStep step) {
    ExplainedStep explained;
    explained.method = names.method;
    explained.weighs = weighs(names.method);
    explained.tasks = names.tasks;
    const Gramian whole = step.whole();
    const bool by_layer = step.gramians.size() == names.layers.size();
    for (std::size_t a = 0; a < whole.tasks(); ++a) {
        for (std::size_t b = a + 1; b < whole.tasks(); ++b) {
            ExplainedStep::Pair pair{a, b, cosine_in(whole, a, b), {}};
            bool met = have_met(whole, a, b);
            for (std::size_t i = 0; by_layer && i < step.gramians.size(); ++i) {
                if (!have_met(step.gramians[i], a, b)) continue;
                met = true;
                pair.layers.push_back({names.layers[i], cosine_in(step.gramians[i], a, b)});
            }
            if (met) explained.pairs.push_back(std::move(pair));
        }
    }
    std::stable_sort(explained.pairs.begin(), explained.pairs.end(),
                     [](const auto& x, const auto& y) { return x.cosine < y.cosine; });
    const bool by_weights = weights_say_it(step, explained.weighs);
    const bool known = by_weights || step.result.size() == whole.tasks() + 1;
    const Products products = products_of(step, by_weights);
    for (std::size_t i = 0; i < whole.tasks(); ++i) {
        ExplainedStep::OfTask task;
        task.length = std::sqrt(std::max(0.0, whole.at(i, i)));
        task.with_sum = cosine_of(products.with_sum[i], whole.at(i, i), products.sum_sq);
        if (known) {
            task.with_result =
                cosine_of(products.with_result[i], whole.at(i, i), products.result_sq);
            if (products.with_sum[i] != 0) {
                task.progress = products.with_result[i] / products.with_sum[i];
            }
        }
        explained.of_tasks.push_back(task);
    }
    explained.groups = groups_of(names, step);
    explained.step = std::move(step);
    return explained;
}

std::string to_text(const ExplainedStep& explained) {
    const ResolvedStep& step = explained.step;
    std::string text =
        fmt::format("worker:{} step {}, batch {}.{}, at {:.3f} s: {}{}\n", step.worker.value,
                    step.step.value, step.batch.data_epoch, step.batch.first, as_seconds(step.at),
                    explained.method, step.reused ? ", weights of an earlier step" : "");
    auto out = std::back_inserter(text);
    std::size_t width = 6;
    for (const std::string& task : explained.tasks) width = std::max(width, task.size());
    fmt::format_to(out, "  {:<{}}  {:>9}  {:>9}  {:>8}  {:>9}  {:>11}\n", "task", width, "loss",
                   "length", "weight", "with sum", "with result");
    for (std::size_t i = 0; i < explained.tasks.size(); ++i) {
        const ExplainedStep::OfTask& task = explained.of_tasks[i];
        const std::string weight = weight_text(explained, i);
        const std::string with_result =
            task.with_result ? fmt::format("{:+.3f}", *task.with_result) : "unknown";
        fmt::format_to(out, "  {:<{}}  {:>9.4g}  {:>9.4g}  {:>8}  {:>+9.3f}  {:>11}  {}\n",
                       explained.tasks[i], width, step.losses[i], task.length, weight,
                       task.with_sum, with_result, fate_of(task));
    }
    text += on_weights(explained) + weights_by_group(explained);
    std::size_t shown = 0;
    for (const ExplainedStep::Pair& pair : explained.pairs) {
        if (++shown > kMostPairsShown) {
            fmt::format_to(out, "  … and {} pairs less opposed (--json has all)\n",
                           explained.pairs.size() - kMostPairsShown);
            break;
        }
        fmt::format_to(out, "  {} / {}: cosine {:+.3f}{}\n", explained.tasks[pair.a],
                       explained.tasks[pair.b], pair.cosine,
                       pair.cosine < 0 ? ", in conflict" : "");
        for (const auto& layer : pair.layers) {
            fmt::format_to(out, "    {:<32} {:+.3f}{}\n", layer.layer, layer.cosine,
                           layer.cosine < 0 ? "  in conflict" : "");
        }
    }
    if (explained.pairs.empty()) text += "  nothing is shared\n";
    return text;
}

std::string to_json(const ExplainedStep& explained) {
    const ResolvedStep& step = explained.step;
    json::array tasks;
    for (std::size_t i = 0; i < explained.tasks.size(); ++i) {
        const ExplainedStep::OfTask& task = explained.of_tasks[i];
        json::object row{{"task", explained.tasks[i]}, {"length", task.length}};
        if (std::isfinite(step.losses[i])) row["loss"] = step.losses[i];
        if (step.weights.size() == 1) row["weight"] = step.weights[0][i];
        json::object by_group;
        for (std::size_t group = 0; group < explained.groups.size(); ++group) {
            const float weight = step.weights[group][i];
            if (!std::isnan(weight)) by_group[explained.groups[group]] = weight;
        }
        if (!by_group.empty()) row["weights"] = std::move(by_group);
        row["cosine_with_sum"] = task.with_sum;
        if (task.with_result) row["cosine_with_result"] = *task.with_result;
        if (task.progress) row["progress"] = *task.progress;
        tasks.push_back(std::move(row));
    }
    json::array pairs;
    for (const ExplainedStep::Pair& pair : explained.pairs) {
        json::object layers;
        for (const auto& layer : pair.layers) layers[layer.layer] = layer.cosine;
        pairs.push_back(json::object{{"a", explained.tasks[pair.a]},
                                     {"b", explained.tasks[pair.b]},
                                     {"cosine", pair.cosine},
                                     {"layers", std::move(layers)}});
    }
    return json::serialize(json::object{
        {"worker", step.worker.value},
        {"incarnation", step.incarnation.value},
        {"step", step.step.value},
        {"batch", json::object{{"data_epoch", step.batch.data_epoch}, {"index", step.batch.first}}},
        {"method", explained.method},
        {"weights_multiply", name_of(explained.weighs)},
        {"reused", step.reused},
        {"tasks", std::move(tasks)},
        {"pairs", std::move(pairs)}});
}

}  // namespace detente
