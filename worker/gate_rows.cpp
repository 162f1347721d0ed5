#include "worker/gate_rows.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/invariant.h"

namespace detente {
namespace {

// Below it a gate is closed: what it passed cannot be told from nothing.
constexpr double kClosed = 1e-30;

double sigmoid(double a) { return 1 / (1 + std::exp(-a)); }

double inner_product(const std::vector<float>& x, const std::vector<float>& y) {
    Gramian both(2);
    const std::vector<const float*> rows = {x.data(), y.data()};
    both.add_block(rows, x.size());
    return both.at(0, 1);
}

// A step's rows, with the gates' own gradients in place of their tensors' rows.
class LearnedRows final : public TaskGradients {
  public:
    LearnedRows(std::shared_ptr<const TaskGradients> rows,
                std::shared_ptr<const std::map<std::size_t, float>> gates)
        : rows_(std::move(rows)), gates_(std::move(gates)) {}
    const float* gradient(TaskId task, std::size_t tensor) const override {
        const float* row = rows_->gradient(task, tensor);
        if (row == nullptr) return nullptr;  // another task's, or frozen
        const auto gate = gates_->find(tensor);
        return gate == gates_->end() ? row : &gate->second;
    }

  private:
    std::shared_ptr<const TaskGradients> rows_;
    std::shared_ptr<const std::map<std::size_t, float>> gates_;  // by tensor
};

}  // namespace

std::unique_ptr<GateRows> GateRows::create(const Job& job, const Plan& plan,
                                           const ModelDescription& model) {
    if (model.gates.empty()) return nullptr;
    std::unique_ptr<GateRows> rows(new GateRows);
    rows->tasks_ = model.tasks.size();
    std::map<std::uint64_t, std::size_t> place_of;  // in blocks_, by block id
    for (const GateDescription& described : model.gates) {
        Gate gate;
        gate.tensor = described.tensor;
        gate.task = described.task.value;
        const bool learned = !model.tensors[described.tensor].frozen;
        for (const Block& block : plan.blocks) {
            const auto& gated = described.gated;
            if (!block.trainable() ||
                std::find(gated.begin(), gated.end(), block.tensor) == gated.end()) {
                continue;
            }
            const auto [at, fresh] = place_of.emplace(block.id.value, rows->blocks_.size());
            if (fresh) {
                const double rate = block.rule == 0
                                        ? job.rule.learning_rate
                                        : job.rule_for[block.rule - 1].rule.learning_rate;
                rows->blocks_.push_back(
                    {block, rate, std::vector<std::vector<std::size_t>>(rows->tasks_)});
            }
            rows->blocks_[at->second].passes[gate.task].push_back(rows->gates_.size());
            if (learned && block.owners.contains(described.task)) gate.blocks.push_back(at->second);
        }
        rows->gates_.push_back(std::move(gate));
    }
    return rows;
}

bool GateRows::restore(std::shared_ptr<const GateVectors> kept) {
    if (kept->size() != gates_.size()) return false;
    for (std::size_t g = 0; g < gates_.size(); ++g) {
        const auto& vectors = (*kept)[g];
        if (vectors.size() != gates_[g].blocks.size()) return false;
        for (std::size_t k = 0; k < vectors.size(); ++k) {
            if (vectors[k].size() != blocks_[gates_[g].blocks[k]].block.elements) return false;
        }
    }
    kept_ = std::move(kept);
    return true;
}

std::vector<float> GateRows::ungated_sum(const GatedBlock& gated, const std::vector<double>& open,
                                         const HeldGradients& held) const {
    std::vector<double> weights;
    std::vector<const float*> rows;
    for (std::size_t batch = 0; batch < held.batches.size(); ++batch) {
        for (std::uint32_t task = 0; task < tasks_; ++task) {
            const float* row = held.batches[batch]->gradient(TaskId{task}, gated.block.tensor);
            double passed = 1;
            for (const std::size_t gate : gated.passes[task]) passed *= open[gate];
            if (row == nullptr || passed < kClosed) continue;
            rows.push_back(row + gated.block.offset);
            weights.push_back(held.shares[batch] / passed);
        }
    }
    std::vector<float> sum(gated.block.elements);
    combine(weights, rows, sum);
    return sum;
}

void GateRows::learn(const Engine& engine, HeldGradients& held) const {
    invariant(!held.batches.empty(), "gates learn from gradients that are there");
    std::vector<double> open;
    for (const Gate& gate : gates_) {
        open.push_back(sigmoid(static_cast<double>(engine.tensor(gate.tensor).front())));
    }
    std::vector<std::vector<float>> sums(blocks_.size());
    for (std::size_t b = 0; kept_ != nullptr && b < blocks_.size(); ++b) {
        sums[b] = ungated_sum(blocks_[b], open, held);
    }
    auto gradients = std::make_shared<std::map<std::size_t, float>>();
    auto next = std::make_shared<GateVectors>(gates_.size());
    for (std::size_t g = 0; g < gates_.size(); ++g) {
        const Gate& gate = gates_[g];
        double slope = 0;
        for (std::size_t k = 0; k < gate.blocks.size(); ++k) {
            const GatedBlock& gated = blocks_[gate.blocks[k]];
            if (kept_ != nullptr) {
                slope -= gated.learning_rate * inner_product(sums[gate.blocks[k]], (*kept_)[g][k]);
            }
            std::vector<double> weights;
            std::vector<const float*> rows;
            for (std::size_t batch = 0; batch < held.batches.size(); ++batch) {
                const float* row =
                    held.batches[batch]->gradient(TaskId{gate.task}, gated.block.tensor);
                if (row == nullptr) continue;  // the task was not asked for
                rows.push_back(row + gated.block.offset);
                weights.push_back(held.shares[batch] * (1 - open[g]));
            }
            (*next)[g].emplace_back(gated.block.elements);
            combine(weights, rows, (*next)[g].back());
        }
        (*gradients)[gate.tensor] = static_cast<float>(slope);
    }
    for (auto& batch : held.batches) batch = std::make_shared<LearnedRows>(batch, gradients);
    held.gates = std::move(next);
}

}  // namespace detente
