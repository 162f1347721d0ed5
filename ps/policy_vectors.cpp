#include "ps/policy_vectors.h"

#include <cstring>

namespace detente {
namespace {

Payload payload_of_vector(const std::shared_ptr<std::vector<float>>& vector) {
    return {vector, std::as_bytes(std::span<const float>(*vector))};
}

}  // namespace

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

std::vector<std::span<float>> PolicyVectors::writable(std::vector<Vector>& vectors,
                                                      std::uint32_t count, std::size_t elements) {
    while (vectors.size() < count) {
        vectors.push_back(std::make_shared<std::vector<float>>(elements, 0.0F));
    }
    std::vector<std::span<float>> spans;
    for (Vector& vector : vectors) {
        if (vector.use_count() > 1) vector = std::make_shared<std::vector<float>>(*vector);
        spans.emplace_back(*vector);
    }
    return spans;
}

BlockVectors PolicyVectors::of(const PolicyNeeds& needs, WorkerId worker, Version base,
                               std::span<const float> weights) {
    BlockVectors vectors;
    vectors.weights = weights;
    if (needs.stale_weights) vectors.stale = copy_of(worker, base);
    vectors.block_vectors = writable(block_, needs.block_vectors, weights.size());
    if (needs.worker_vectors > 0) {
        vectors.worker_vectors =
            writable(workers_[worker].vectors, needs.worker_vectors, weights.size());
    }
    return vectors;
}

void PolicyVectors::forget(WorkerId worker) { workers_.erase(worker); }

void PolicyVectors::forget(const Policy& policy, WorkerId worker, Version version,
                           std::span<const float> weights) {
    if (!knows(worker)) return;
    const PolicyNeeds needs = policy.needs();
    if (needs.worker_vectors > 0) policy.forgotten(of(needs, worker, version, weights));
    forget(worker);
}

SavedVectors PolicyVectors::save() const {
    SavedVectors saved;
    for (const Vector& vector : block_) saved.block.push_back(payload_of_vector(vector));
    for (const auto& [id, worker] : workers_) {
        if (worker.vectors.empty()) continue;
        for (const Vector& vector : worker.vectors) {
            saved.workers[id].push_back(payload_of_vector(vector));
        }
    }
    return saved;
}

void PolicyVectors::restore(const SavedVectors& saved) {
    const auto vectors_of = [](const std::vector<Payload>& payloads) {
        std::vector<Vector> vectors;
        for (const Payload& payload : payloads) {
            auto& vector = vectors.emplace_back(
                std::make_shared<std::vector<float>>(payload.size() / sizeof(float)));
            std::memcpy(vector->data(), payload.bytes.data(), payload.size());
        }
        return vectors;
    };
    block_ = vectors_of(saved.block);
    workers_.clear();
    for (const auto& [id, payloads] : saved.workers) workers_[id].vectors = vectors_of(payloads);
}

}  // namespace detente
