#include "worker/engine_pool.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace detente {
namespace {

class PooledEngine final : public Engine {
  public:
    explicit PooledEngine(std::shared_ptr<EnginePool> pool) : pool_(std::move(pool)) {}

    const ModelDescription& description() const override { return pool_->description(); }
    std::span<const float> tensor(std::size_t index) const override {
        return weights_.empty() ? pool_->initial()[index] : weights_[index];
    }
    void load(std::size_t index, std::size_t offset, std::span<const std::byte> values) override {
        if (weights_.empty()) weights_ = pool_->initial();
        std::memcpy(weights_[index].data() + offset, values.data(), values.size());
    }
    Result<GradientReport> gradients(const GradientRequest& request) override {
        return pool_->with(held(), [&](Engine& engine) {
            graph_in_ = &engine;
            return engine.gradients(request);
        });
    }
    bool at_representation() const override {
        return pool_->with(held(), [](Engine& engine) { return engine.at_representation(); });
    }
    Result<std::shared_ptr<const TrunkGradient>> trunk_gradient(
        const TaskGradients& of, std::span<const float> combined) override {
        const auto work = [&](Engine& engine) { return engine.trunk_gradient(of, combined); };
        return pool_->with(held(), work, graph_in_);
    }
    Result<std::vector<TaskScore>> evaluate() override {
        return pool_->with(held(), [](Engine& engine) { return engine.evaluate(); });
    }

  private:
    const std::vector<std::vector<float>>& held() const {
        return weights_.empty() ? pool_->initial() : weights_;
    }

    std::shared_ptr<EnginePool> pool_;
    std::vector<std::vector<float>> weights_;  // empty: still the first ones
    const Engine* graph_in_ = nullptr;         // what computed the last gradients
};

}  // namespace

Result<std::shared_ptr<EnginePool>> EnginePool::create(
    std::size_t count, const std::function<Result<std::unique_ptr<Engine>>()>& make) {
    auto pool = std::make_shared<EnginePool>();
    for (std::size_t i = 0; i < count; ++i) {
        auto engine = make();
        if (!engine) return engine.error();
        pool->engines_.push_back(std::move(*engine));
        if (pool->engines_.front()->draws_from_shared_generator()) break;
    }
    const Engine& first = *pool->engines_.front();
    pool->description_ = first.description();
    for (std::size_t i = 0; i < pool->description_.tensors.size(); ++i) {
        const std::span<const float> values = first.tensor(i);
        pool->initial_.emplace_back(values.begin(), values.end());
    }
    return pool;
}

std::unique_ptr<Engine> EnginePool::engine() {
    return std::make_unique<PooledEngine>(shared_from_this());
}

std::unique_ptr<Engine> EnginePool::take(const Engine* wanted) {
    std::unique_lock<std::mutex> lock(mutex_);
    auto found = engines_.end();
    returned_.wait(lock, [&] {
        found = std::find_if(engines_.begin(), engines_.end(), [wanted](const auto& engine) {
            return wanted == nullptr || engine.get() == wanted;
        });
        return found != engines_.end();
    });
    std::unique_ptr<Engine> engine = std::move(*found);
    engines_.erase(found);
    return engine;
}

void EnginePool::give_back(std::unique_ptr<Engine> engine) {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        engines_.push_back(std::move(engine));
    }
    returned_.notify_all();  // who waits may want another one
}

}  // namespace detente
