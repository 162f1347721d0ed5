#include "common/partition/layers.h"

#include <algorithm>

namespace detente {

std::string layer_of(const std::string& tensor) { return tensor.substr(0, tensor.rfind('.')); }

SharedLayers shared_layers(const Plan& plan, const std::vector<std::string>& tensors) {
    SharedLayers layers;
    layers.of_block.assign(plan.blocks.size(), 0);
    for (const Block& block : plan.blocks) {
        if (!block.trainable() || !block.shared()) continue;
        const std::string layer = layer_of(tensors[block.tensor]);
        const auto found = std::find(layers.names.begin(), layers.names.end(), layer);
        layers.of_block[block.id.value] = static_cast<std::size_t>(found - layers.names.begin());
        if (found == layers.names.end()) layers.names.push_back(layer);
    }
    return layers;
}

SharedLayers shared_layers(const Plan& plan, const ModelDescription& model) {
    std::vector<std::string> tensors;
    for (const TensorDescription& tensor : model.tensors) tensors.push_back(tensor.name);
    return shared_layers(plan, tensors);
}

std::vector<bool> sharing_pairs(const Plan& plan, std::size_t tasks) {
    std::vector<bool> shares(tasks * tasks, false);
    for (const Block& block : plan.blocks) {
        if (!block.trainable() || !block.shared()) continue;
        for (std::uint32_t i = 0; i < tasks; ++i) {
            for (std::uint32_t j = 0; j < tasks && block.owners.contains(TaskId{i}); ++j) {
                if (block.owners.contains(TaskId{j})) shares[i * tasks + j] = true;
            }
        }
    }
    return shares;
}

}  // namespace detente
