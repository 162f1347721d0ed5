#include "worker/worker_halves.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace detente {

Result<std::unique_ptr<WorkerHalves>> WorkerHalves::create(const Job& job, const Plan& plan) {
    std::unique_ptr<WorkerHalves> halves(new WorkerHalves);
    std::vector<const PolicyConfig*> configs{&job.policy};
    for (const PolicyFor& special : job.policy_for) configs.push_back(&special.policy);
    bool any = false;
    for (const PolicyConfig* config : configs) {
        auto policy = make_policy(*config);
        if (!policy) return policy.error();
        any = any || (*policy)->worker_half() != nullptr;
        halves->policies_.push_back(std::move(*policy));
    }
    if (!any) return std::unique_ptr<WorkerHalves>{};
    halves->workers_ = job.workers;
    halves->places_.resize(plan.blocks.size());
    for (const Block& block : plan.blocks) {
        if (!block.trainable()) continue;
        Place& place = halves->places_[block.id.value];
        place.half = halves->policies_[block.policy]->worker_half();
        if (place.half == nullptr) continue;
        place.learning_rate = block.rule == 0 ? job.rule.learning_rate
                                              : job.rule_for[block.rule - 1].rule.learning_rate;
        place.policy = halves->policies_[block.policy]->name();
        for (std::uint32_t v = 0; v < place.half->vectors(); ++v) {
            place.vectors.push_back(std::make_shared<std::vector<float>>(block.elements, 0.0F));
        }
    }
    return halves;
}

WorkerHalf::Place WorkerHalves::seen_by_half(Place& place) const {
    WorkerHalf::Place seen;
    seen.computed = place.computed;
    seen.workers = workers_;
    seen.learning_rate = place.learning_rate;
    seen.pulled = place.pulled;
    for (auto& vector : place.vectors) {
        if (place.shared) vector = std::make_shared<std::vector<float>>(*vector);
        seen.vectors.emplace_back(*vector);
    }
    place.shared = false;
    return seen;
}

std::span<const std::byte> WorkerHalves::before_compute(const WeightBlock& pulled) {
    Place& place = places_[pulled.block.value];
    if (place.half == nullptr) return pulled.weights.bytes;
    place.pulled.resize(pulled.weights.size() / sizeof(float));
    std::memcpy(place.pulled.data(), pulled.weights.bytes.data(), pulled.weights.size());
    rewritten_ = place.pulled;
    place.half->before_compute(seen_by_half(place), rewritten_);
    return std::as_bytes(std::span(rewritten_));
}

void WorkerHalves::before_push(BlockId id, std::span<float> gradient) {
    Place& place = places_[id.value];
    if (place.half == nullptr) return;
    place.half->before_push(seen_by_half(place), gradient);
    ++place.computed;
}

std::shared_ptr<const HalfVectors> WorkerHalves::kept() {
    auto kept = std::make_shared<HalfVectors>();
    kept->blocks.resize(places_.size());
    bool any = false;
    for (std::size_t i = 0; i < places_.size(); ++i) {
        Place& place = places_[i];
        if (place.vectors.empty() || place.computed == 0) continue;
        any = true;
        place.shared = true;
        kept->blocks[i] = {
            place.policy, place.computed, {place.vectors.begin(), place.vectors.end()}};
    }
    return any ? std::shared_ptr<const HalfVectors>(std::move(kept)) : nullptr;
}

std::string WorkerHalves::restore(const HalfVectors* kept) {
    std::string own;
    std::string other;
    for (std::size_t i = 0; i < places_.size(); ++i) {
        Place& place = places_[i];
        if (place.half == nullptr) continue;
        own = place.policy;
        if (kept == nullptr || kept->blocks[i].vectors.empty()) continue;
        const HalfVectors::OfBlock& saved = kept->blocks[i];
        if (saved.policy != place.policy || saved.vectors.size() != place.vectors.size()) {
            other = "the vectors of staleness policy '" + saved.policy + "', the job has '" +
                    place.policy + "', which begins anew";
            continue;
        }
        place.computed = saved.computed;
        for (std::size_t v = 0; v < saved.vectors.size(); ++v)
            *place.vectors[v] = *saved.vectors[v];
    }
    if (kept == nullptr && !own.empty()) {
        return "no vectors of staleness policy '" + own + "', which begins anew";
    }
    return other;
}

}  // namespace detente
