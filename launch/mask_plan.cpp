#include "launch/mask_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <numeric>

#include "common/conflict/interference.h"
#include "common/partition/layers.h"
#include "common/partition/plan.h"
#include "launch/conflict_ledger.h"

namespace detente {
namespace {

Result<std::map<std::string, InterferenceIndex>> measured_indices(const RunDirectory& run) {
    std::map<std::string, InterferenceIndex> indices;
    const auto read = visit_layers(run, [&](const std::string& layer, const Gramian& gramian) {
        indices[layer].add(gramian);
    });
    if (read.has_error()) return read.error();
    return indices;
}

// The index of all that is shared: now, and with only that part of each layer, as if the part were
// like the rest of it.
Result<void> compare(const RunDirectory& run, MaskPlan& masks) {
    std::map<std::string, double> kept;
    for (const MaskedLayer& layer : masks.layers) kept[layer.layer] = layer.shared;
    InterferenceIndex before;
    InterferenceIndex after;
    auto read = read_resolved_steps(run, [&](const NamesRecord& names, const ResolvedStep& step) {
        Gramian part(names.tasks.size());
        for (std::size_t l = 0; l < step.gramians.size(); ++l) {
            const auto found = kept.find(names.layers[l]);
            const double share = found == kept.end() ? 0 : found->second;
            for (std::size_t i = 0; i < part.tasks(); ++i) {
                for (std::size_t j = 0; j < part.tasks(); ++j) {
                    part.at(i, j) += share * step.gramians[l].at(i, j);
                }
            }
        }
        before.add(step.whole());
        after.add(part);
    });
    masks.index_before = before.value();
    masks.index_after = after.value();
    return read;
}

}  // namespace

Result<void> visit_layers(const RunDirectory& run, const VisitLayer& visit) {
    bool by_layer = true;
    auto read = read_resolved_steps(run, [&](const NamesRecord& names, const ResolvedStep& step) {
        if (step.gramians.size() != names.layers.size()) by_layer = false;
        for (std::size_t i = 0; by_layer && i < step.gramians.size(); ++i) {
            visit(names.layers[i], step.gramians[i]);
        }
    });
    if (read.has_error() || by_layer) return read;
    return fail(ErrorCode::not_supported,
                fmt::format("{}: its workers did not record conflicts by layer; run it with "
                            "ledger.conflicts = \"layers\"",
                            run.path));
}

std::string pattern_of_layer(const std::string& layer, const ModelDescription& model) {
    const bool is_tensor =
        std::any_of(model.tensors.begin(), model.tensors.end(),
                    [&](const TensorDescription& tensor) { return tensor.name == layer; });
    return is_tensor ? layer : layer + ".*";
}

Error not_recorded(const RunDirectory& run, const std::string& layer) {
    return fail(ErrorCode::bad_job,
                fmt::format("{}: layer {} of this job's model was not recorded there: it is a run "
                            "of another model, or with a mask or exclude on it",
                            run.path, layer));
}

Result<MaskPlan> plan_masks(const RunDirectory& run, const ModelDescription& model, Job job,
                            double shared) {
    job.masks.clear();
    const auto plan = make_plan(model, job);
    if (plan.has_error()) return plan.error();
    const auto indices = measured_indices(run);
    if (indices.has_error()) return indices.error();
    const SharedLayers layers = shared_layers(*plan, model);
    MaskPlan masks;
    masks.wanted = shared;
    for (const std::string& name : layers.names) {
        const auto found = indices->find(name);
        if (found == indices->end()) return not_recorded(run, name);
        masks.layers.push_back({name, 0, found->second.value(), 0});
    }
    std::uint64_t total = 0;
    for (const Block& block : plan->blocks) {
        if (!block.trainable() || !block.shared()) continue;
        masks.layers[layers.of_block[block.id.value]].parameters += block.elements;
        total += block.elements;
    }
    std::vector<std::size_t> order(masks.layers.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return masks.layers[a].index < masks.layers[b].index;
    });
    double left = shared * static_cast<double>(total);
    for (const std::size_t i : order) {
        MaskedLayer& layer = masks.layers[i];
        const auto size = static_cast<double>(layer.parameters);
        layer.shared = size == 0 ? 1 : std::clamp(left / size, 0.0, 1.0);
        left -= layer.shared * size;
    }
    const auto compared = compare(run, masks);
    if (compared.has_error()) return compared.error();
    for (const MaskedLayer& layer : masks.layers) {
        if (layer.shared < 1) {
            const double rounded = std::round(layer.shared * 1e4) / 1e4;
            masks.masks.push_back(
                {pattern_of_layer(layer.layer, model), rounded, ExclusiveParts::runs});
        }
    }
    return masks;
}

std::string to_text(const MaskPlan& plan) {
    std::string text;
    auto out = std::back_inserter(text);
    std::size_t width = 5;
    for (const MaskedLayer& layer : plan.layers) width = std::max(width, layer.layer.size());
    fmt::format_to(out, "# {:<{}}  {:>12}  {:>12}  {:>7}\n", "layer", width, "parameters",
                   "interference", "shared");
    for (const MaskedLayer& layer : plan.layers) {
        fmt::format_to(out, "# {:<{}}  {:>12}  {:>12.4f}  {:>5.1f} %\n", layer.layer, width,
                       layer.parameters, layer.index, 100 * layer.shared);
    }
    fmt::format_to(out,
                   "# interference index of what is shared: {:.4f} with all of it, {:.4f} expected "
                   "with {:.1f} %\n",
                   plan.index_before, plan.index_after, 100 * plan.wanted);
    for (const MaskConfig& mask : plan.masks) {
        fmt::format_to(out, "\n[[mask]]\npattern = \"{}\"\nshared = {}\n", mask.pattern,
                       mask.shared);
        if (mask.exclusive == ExclusiveParts::strided) text += "exclusive = \"strided\"\n";
    }
    return text;
}

}  // namespace detente
