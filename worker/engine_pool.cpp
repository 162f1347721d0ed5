#include "worker/engine_pool.h"

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
        return pool_->with(held(), [&](Engine& engine) { return engine.gradients(request); });
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

std::unique_ptr<Engine> EnginePool::take() {
    std::unique_lock<std::mutex> lock(mutex_);
    returned_.wait(lock, [this] { return !engines_.empty(); });
    std::unique_ptr<Engine> engine = std::move(engines_.back());
    engines_.pop_back();
    return engine;
}

void EnginePool::give_back(std::unique_ptr<Engine> engine) {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        engines_.push_back(std::move(engine));
    }
    returned_.notify_one();
}

}  // namespace detente
