#include "launch/sync_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <numeric>

#include "common/collective/group.h"
#include "common/partition/layers.h"
#include "common/partition/plan.h"
#include "launch/conflict_ledger.h"
#include "launch/mask_plan.h"

namespace detente {
namespace {

constexpr double kPartOfAuto = 0.5;

struct Cosines {
    double sum = 0;
    std::uint64_t steps = 0;
    std::uint64_t negative = 0;
};

// Over the pairs that update the layer together; 0 without any.
double mean_of_met(const Gramian& gramian) {
    const std::vector<double> cosines = cosines_of(gramian);
    double sum = 0;
    double pairs = 0;
    for (std::size_t i = 0; i < gramian.tasks(); ++i) {
        for (std::size_t j = i + 1; j < gramian.tasks(); ++j) {
            if (!have_met(gramian, i, j)) continue;
            sum += cosines[i * gramian.tasks() + j];
            pairs += 1;
        }
    }
    return pairs > 0 ? sum / pairs : 0;
}

Result<std::map<std::string, Cosines>> measured_cosines(const RunDirectory& run) {
    std::map<std::string, Cosines> cosines;
    const auto add = [&cosines](const std::string& layer, const Gramian& gramian) {
        Cosines& of = cosines[layer];
        of.sum += mean_of_met(gramian);
        ++of.steps;
        const std::vector<double> pairs = cosines_of(gramian);
        if (std::any_of(pairs.begin(), pairs.end(), [](double c) { return c < 0; })) ++of.negative;
    };
    if (auto read = visit_layers(run, add); read.has_error()) return read.error();
    return cosines;
}

}  // namespace

Result<SyncPlan> plan_sync(const RunDirectory& run, const ModelDescription& model, Job job,
                           double part) {
    job.sync_layers.clear();
    const auto plan = make_plan(model, job);
    if (plan.has_error()) return plan.error();
    const auto cosines = measured_cosines(run);
    if (cosines.has_error()) return cosines.error();
    const SharedLayers layers = shared_layers(*plan, model);
    SyncPlan sync;
    sync.part = part;
    for (const std::string& name : layers.names) {
        const auto found = cosines->find(name);
        if (found == cosines->end()) return not_recorded(run, name);
        const auto steps = static_cast<double>(found->second.steps);
        sync.layers.push_back({name, 0, found->second.sum / steps,
                               static_cast<double>(found->second.negative) / steps, false});
    }
    std::uint64_t total = 0;
    for (const Block& block : plan->blocks) {
        if (!block.trainable() || !block.shared()) continue;
        sync.layers[layers.of_block[block.id.value]].parameters += block.elements;
        total += block.elements;
    }
    std::vector<std::size_t> order(sync.layers.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return sync.layers[a].cosine < sync.layers[b].cosine;
    });
    double left = part * static_cast<double>(total);
    for (const std::size_t i : order) {
        MeasuredLayer& layer = sync.layers[i];
        const auto size = static_cast<double>(layer.parameters);
        if (size > left && i != order.front()) continue;
        left -= size;
        layer.in_step = true;
    }
    for (const MeasuredLayer& layer : sync.layers) {
        if (layer.in_step) sync.patterns.push_back(pattern_of_layer(layer.layer, model));
    }
    return sync;
}

std::string to_text(const SyncPlan& plan) {
    std::string text;
    auto out = std::back_inserter(text);
    std::size_t width = 5;
    for (const MeasuredLayer& layer : plan.layers) width = std::max(width, layer.layer.size());
    fmt::format_to(out, "# {:<{}}  {:>12}  {:>11}  {:>8}  in step\n", "layer", width, "parameters",
                   "mean cosine", "negative");
    for (const MeasuredLayer& layer : plan.layers) {
        fmt::format_to(out, "# {:<{}}  {:>12}  {:>+11.4f}  {:>6.1f} %{}\n", layer.layer, width,
                       layer.parameters, layer.cosine, 100 * layer.negative,
                       layer.in_step ? "  yes" : "");
    }
    std::string list;
    for (const std::string& pattern : plan.patterns) {
        list += fmt::format("{}\"{}\"", list.empty() ? "" : ", ", pattern);
    }
    fmt::format_to(out, "\n[sync]\nlayers = [{}]\n", list);
    return text;
}

Result<void> resolve_sync_layers(Job& job, const ModelDescription& model) {
    // Of each step that is open a key per task, its notes and its word, and the word of one before.
    const std::size_t keys = (model.tasks.size() + 2) * (1 + job.pull_ahead) + 1;
    if (!job.sync_layers.empty() && keys > kMostKeysInFlight) {
        return fail(ErrorCode::bad_job,
                    fmt::format("sync.layers: {} tasks need {} averages in flight, at most {} may "
                                "be: use fewer tasks, or worker.pull_ahead = 0, or set "
                                "sync.layers = []",
                                model.tasks.size(), keys, kMostKeysInFlight));
    }
    const auto automatic = std::find(job.sync_layers.begin(), job.sync_layers.end(), "auto");
    if (automatic == job.sync_layers.end()) return {};
    if (job.sync_layers.size() > 1) {
        return fail(ErrorCode::bad_job,
                    "sync.layers: \"auto\" stands alone, found other patterns beside it");
    }
    if (job.sync_measured.empty()) {
        return fail(ErrorCode::bad_job,
                    "sync.layers = \"auto\" takes the layers from a run: set sync.measured to the "
                    "directory of one that trained this model with ledger.conflicts = \"layers\"");
    }
    auto plan = plan_sync(RunDirectory{job.sync_measured}, model, job, kPartOfAuto);
    if (plan.has_error()) {
        return fail(plan.error().code, "sync.measured: " + plan.error().text);
    }
    job.sync_layers = std::move(plan->patterns);
    return {};
}

}  // namespace detente
