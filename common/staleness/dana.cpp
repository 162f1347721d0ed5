// DANA: each worker has a momentum of its own, and computes at an estimate of where the model will
// be when its gradient arrives: θ − ηγ·Σᵢvᵢ.
// Hakimi, Barkai, Gabel, Schuster 2019, "Taming Momentum in a Distributed Asynchronous
// Environment".
//   dana_zero (algorithm 4): the server keeps vᵢ = γvᵢ + g for every worker, applies vᵢ, and hands
//   out the look-ahead. Worker vector: vᵢ. Block vector: Σvᵢ, kept in step with them.
//   dana_slim (algorithm 6, appendix): the same trajectory in other coordinates, Θ = θ − ηγΣvᵢ:
//   the worker sends γvᵢ + g, and the server is plain asynchronous SGD without look-ahead. Its
//   worker half is below.
// Both want rule sgd without momentum: the momentum is here.
#include "common/staleness/makers.h"

namespace detente {
namespace {

class DanaZero final : public Policy {
  public:
    explicit DanaZero(double gamma) : gamma_(static_cast<float>(gamma)) {}
    std::string name() const override { return "dana_zero"; }
    PolicyNeeds needs() const override {
        PolicyNeeds needs;
        needs.corrects = true;
        needs.block_vectors = 1;
        needs.worker_vectors = 1;
        needs.look_ahead = true;
        needs.plain_sgd = true;
        return needs;
    }
    void on(const PolicyEvent& event, PolicyState& /*state*/,
            std::vector<PolicyOutcome>& outcomes) const override {
        const auto* arrived = std::get_if<Arrived>(&event);
        if (arrived == nullptr) return;
        outcomes.emplace_back(alone(*arrived));
    }
    void correct(const Arrived& /*arrived*/, const PolicyState& /*state*/,
                 const BlockVectors& block, std::span<float> gradient) const override {
        for (std::size_t i = 0; i < gradient.size(); ++i) {
            float& velocity = block.worker_vectors[0][i];
            const float before = velocity;
            velocity = gamma_ * velocity + gradient[i];
            block.block_vectors[0][i] += velocity - before;
            gradient[i] = velocity;
        }
    }
    void forgotten(const BlockVectors& block) const override {
        for (std::size_t i = 0; i < block.block_vectors[0].size(); ++i) {
            block.block_vectors[0][i] -= block.worker_vectors[0][i];
        }
    }
    void look_ahead(double learning_rate, const BlockVectors& block,
                    std::span<float> weights) const override {
        const auto rate = static_cast<float>(learning_rate) * gamma_;
        for (std::size_t i = 0; i < weights.size(); ++i) {
            weights[i] -= rate * block.block_vectors[0][i];
        }
    }

  private:
    float gamma_;
};

// Worker vector: v.
class SlimWorker final : public WorkerHalf {
  public:
    explicit SlimWorker(double gamma) : gamma_(static_cast<float>(gamma)) {}
    std::uint32_t vectors() const override { return 1; }
    void before_push(const Place& place, std::span<float> gradient) const override {
        for (std::size_t i = 0; i < gradient.size(); ++i) {
            float& velocity = place.vectors[0][i];
            velocity = gamma_ * velocity + gradient[i];
            gradient[i] = gamma_ * velocity + gradient[i];
        }
    }

  private:
    float gamma_;
};

class DanaSlim final : public Policy {
  public:
    explicit DanaSlim(double gamma) : worker_(gamma) {}
    std::string name() const override { return "dana_slim"; }
    PolicyNeeds needs() const override {
        PolicyNeeds needs;
        needs.plain_sgd = true;
        return needs;
    }
    void on(const PolicyEvent& event, PolicyState& /*state*/,
            std::vector<PolicyOutcome>& outcomes) const override {
        const auto* arrived = std::get_if<Arrived>(&event);
        if (arrived == nullptr) return;
        outcomes.emplace_back(alone(*arrived));
    }
    const WorkerHalf* worker_half() const override { return &worker_; }

  private:
    SlimWorker worker_;
};

}  // namespace

PolicyEntry dana_zero_policy() {
    return {"dana_zero",
            {{"gamma", "momentum of each worker", 0.9, 0, 0.9999999}},
            [](const Parameters& parameters) -> Result<std::unique_ptr<const Policy>> {
                return std::make_unique<const DanaZero>(parameters.real("gamma"));
            }};
}

PolicyEntry dana_slim_policy() {
    return {"dana_slim",
            {{"gamma", "momentum of each worker", 0.9, 0, 0.9999999}},
            [](const Parameters& parameters) -> Result<std::unique_ptr<const Policy>> {
                return std::make_unique<const DanaSlim>(parameters.real("gamma"));
            }};
}

}  // namespace detente
