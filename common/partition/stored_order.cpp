#include "common/partition/stored_order.h"

namespace detente {

StoredOrder::StoredOrder(const Plan& plan) {
    for (const Block& block : plan.blocks) {
        if (block.stride == 1) continue;
        if (moved_.empty() || moved_.back() != block.tensor) moved_.push_back(block.tensor);
    }
    if (!any()) return;
    blocks_.resize(moved_.back() + 1);
    for (const std::size_t tensor : moved_) {
        for (const Block& block : plan.blocks) {
            if (block.tensor == tensor) blocks_[tensor].push_back(block);
        }
    }
}

void StoredOrder::store(std::size_t tensor, const float* own, std::span<float> stored) const {
    for (const Block& block : blocks_[tensor]) {
        for (std::uint64_t k = 0; k < block.elements; ++k) {
            stored[block.offset + k] = own[block.first + k * block.stride];
        }
    }
}

void StoredOrder::restore(std::size_t tensor, std::span<const float> stored, float* own) const {
    for (const Block& block : blocks_[tensor]) {
        for (std::uint64_t k = 0; k < block.elements; ++k) {
            own[block.first + k * block.stride] = stored[block.offset + k];
        }
    }
}

}  // namespace detente
