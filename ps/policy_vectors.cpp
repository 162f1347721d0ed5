#include "ps/policy_vectors.h"

namespace detente {

void PolicyVectors::keep_copy(WorkerId worker, Version version, std::span<const float> weights) {
    std::deque<Copy>& copies = workers_[worker].copies;
    for (const Copy& copy : copies) {
        if (copy.version == version) return;  // asked for again
    }
    if (copies.size() >= kMostCopies) {  // its memory is used again
        copies.push_back(std::move(copies.front()));
        copies.pop_front();
    } else {
        copies.emplace_back();
    }
    copies.back().version = version;
    copies.back().weights.assign(weights.begin(), weights.end());
}

std::span<const float> PolicyVectors::copy_of(WorkerId worker, Version version) const {
    const auto found = workers_.find(worker);
    if (found == workers_.end()) return {};
    for (const Copy& copy : found->second.copies) {
        if (copy.version == version) return copy.weights;
    }
    return {};
}

void PolicyVectors::grow(std::vector<std::vector<float>>& vectors, std::uint32_t count,
                         std::size_t elements) {
    while (vectors.size() < count) vectors.emplace_back(elements, 0.0F);
}

BlockVectors PolicyVectors::of(const PolicyNeeds& needs, WorkerId worker, Version base,
                               std::span<const float> weights) {
    BlockVectors vectors;
    vectors.weights = weights;
    if (needs.stale_weights) vectors.stale = copy_of(worker, base);
    grow(block_, needs.block_vectors, weights.size());
    for (std::vector<float>& one : block_) vectors.block_vectors.emplace_back(one);
    if (needs.worker_vectors > 0) {
        std::vector<std::vector<float>>& own = workers_[worker].vectors;
        grow(own, needs.worker_vectors, weights.size());
        for (std::vector<float>& one : own) vectors.worker_vectors.emplace_back(one);
    }
    return vectors;
}

void PolicyVectors::forget(WorkerId worker) { workers_.erase(worker); }

}  // namespace detente
