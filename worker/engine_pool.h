// A few engines for many workers of one process: each worker sees an engine of its own
// (PooledEngine), which keeps that worker's weights and borrows a real one to compute with. What
// comes out is a function of those weights and the request, whichever engine it was.
//
// Thread: make() and computing from any; an engine is used by one thread at a time.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "worker/engine.h"

namespace detente {

class EnginePool : public std::enable_shared_from_this<EnginePool> {
  public:
    // Makes so many engines, all alike; only one where the first draws from what all would share,
    // so that computations take turns. Requires: count > 0.
    static Result<std::shared_ptr<EnginePool>> create(
        std::size_t count, const std::function<Result<std::unique_ptr<Engine>>()>& make);

    const ModelDescription& description() const { return description_; }
    // The first weights of every tensor.
    const std::vector<std::vector<float>>& initial() const { return initial_; }
    // Runs `work` with an engine that holds these weights, or with `wanted` alone; waits while it
    // is lent.
    template <class Work>
    auto with(const std::vector<std::vector<float>>& weights, Work&& work,
              const Engine* wanted = nullptr) {
        const Loan loan(*this, wanted);
        for (std::size_t i = 0; i < weights.size(); ++i) {
            loan.engine->load(i, 0, std::as_bytes(std::span<const float>(weights[i])));
        }
        return work(*loan.engine);
    }
    // For one worker.
    std::unique_ptr<Engine> engine();

  private:
    struct Loan {
        Loan(EnginePool& from, const Engine* wanted) : pool(from), engine(from.take(wanted)) {}
        ~Loan() { pool.give_back(std::move(engine)); }
        Loan(const Loan&) = delete;
        Loan& operator=(const Loan&) = delete;
        EnginePool& pool;
        std::unique_ptr<Engine> engine;
    };
    std::unique_ptr<Engine> take(const Engine* wanted);
    void give_back(std::unique_ptr<Engine> engine);

    ModelDescription description_;
    std::vector<std::vector<float>> initial_;
    std::mutex mutex_;  // over engines_; a computation takes far longer than it is held
    std::condition_variable returned_;
    std::vector<std::unique_ptr<Engine>> engines_;
};

}  // namespace detente
