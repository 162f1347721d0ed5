#include "worker/engine_computer.h"

#include <algorithm>
#include <cstring>

#include "common/checksum.h"
#include "common/invariant.h"
#include "common/random.h"
#include "common/staleness/delay_compensation.h"

namespace detente {
namespace {

class HeldGradients : public GradientSet {
  public:
    explicit HeldGradients(std::shared_ptr<const TaskGradients> gradients)
        : gradients_(std::move(gradients)) {}
    const TaskGradients& get() const { return *gradients_; }

  private:
    std::shared_ptr<const TaskGradients> gradients_;
};

}  // namespace

EngineComputer::EngineComputer(std::unique_ptr<Engine> engine, std::shared_ptr<const Plan> plan,
                               std::shared_ptr<SampleOrders> orders, bool hashes)
    : engine_(std::move(engine)),
      plan_(std::move(plan)),
      hashes_(hashes),
      tasks_(engine_->description().tasks.size()),
      orders_(std::move(orders)) {}

EngineComputer::EngineComputer(std::unique_ptr<Engine> engine, std::shared_ptr<const Plan> plan,
                               std::uint64_t seed, bool hashes)
    : EngineComputer(std::move(engine), std::move(plan), nullptr, hashes) {
    orders_ = std::make_shared<SampleOrders>(seed, engine_->description().training_samples);
}

WorkResult EngineComputer::run(const Work& work, const std::atomic<bool>& cancelled,
                               const std::function<void(std::uint32_t, Payload)>& part) {
    if (const auto* gradient = std::get_if<GradientWork>(&work)) {
        return run_gradient(*gradient, cancelled);
    }
    if (const auto* combine = std::get_if<CombineWork>(&work)) return run_combine(*combine, part);
    if (const auto* carry = std::get_if<CompensateWork>(&work)) return run_compensate(*carry, part);
    return run_initial(part);
}

WorkResult EngineComputer::run_initial(const std::function<void(std::uint32_t, Payload)>& part) {
    for (const Block& block : plan_->blocks) {
        const std::span<const float> values =
            engine_->tensor(block.tensor).subspan(block.offset, block.elements);
        part(static_cast<std::uint32_t>(block.id.value), copy_of(std::as_bytes(values)));
    }
    return {InitialOutcome{}};
}

std::vector<std::uint32_t> EngineComputer::samples_of(const BatchRange& batch,
                                                      std::uint32_t batch_samples) {
    const SampleOrders::Order order = orders_->order_of(batch.data_epoch);
    const std::uint64_t total = order->size();
    const std::uint64_t first = std::min(total, std::uint64_t{batch.first} * batch_samples);
    const std::uint64_t last = std::min(total, first + batch_samples);
    return {order->begin() + static_cast<std::ptrdiff_t>(first),
            order->begin() + static_cast<std::ptrdiff_t>(last)};
}

std::vector<const float*> EngineComputer::rows_of(const TaskGradients& gradients,
                                                  const Block& block) const {
    std::vector<const float*> rows(tasks_, nullptr);
    for (std::uint32_t task = 0; task < tasks_; ++task) {
        if (!block.owners.contains(TaskId{task})) continue;
        const float* row = gradients.gradient(TaskId{task}, block.tensor);
        if (row != nullptr) rows[task] = row + block.offset;
    }
    return rows;
}

std::uint64_t EngineComputer::hash_of(const TaskGradients& gradients) const {
    std::uint64_t hash = 0;
    for (const Block& block : plan_->blocks) {
        for (const float* row : rows_of(gradients, block)) {
            if (row == nullptr) continue;
            const std::span<const float> values{row, block.elements};
            hash = scatter(hash ^ checksum_of(std::as_bytes(values)));
        }
    }
    return std::max<std::uint64_t>(hash, 1);  // 0 says that none was made
}

WorkResult EngineComputer::run_gradient(const GradientWork& work,
                                        const std::atomic<bool>& cancelled) {
    for (const WeightBlock& weights : work.weights) {
        const Block& block = plan_->block(weights.block);
        if (auto verified = verify_block(weights.weights.bytes, std::nullopt); !verified) {
            return fail(verified.error().code,
                        "weights of block " + std::to_string(weights.block.value) + " (" +
                            engine_->description().tensors[block.tensor].name +
                            ") as pulled: " + verified.error().text);
        }
        if (weights.weights.size() != block.bytes()) {
            return fail(ErrorCode::bad_length,
                        "weights of block " + std::to_string(weights.block.value) + ": " +
                            std::to_string(weights.weights.size()) + " bytes, expected " +
                            std::to_string(block.bytes()));
        }
        engine_->load(
            block.tensor, block.offset,
            halves_ != nullptr ? halves_->before_compute(weights) : weights.weights.bytes);
    }
    GradientRequest request;
    request.samples = samples_of(work.batch, work.batch_samples);
    request.data_epoch = work.batch.data_epoch;
    request.random_key = work.random_key;
    request.tasks = work.tasks;
    request.cancelled = &cancelled;
    const auto samples = static_cast<std::uint32_t>(request.samples.size());
    auto report = engine_->gradients(request);
    if (!report) return report.error();

    GradientOutcome outcome;
    outcome.losses = std::move(report->losses);
    outcome.samples = samples;
    outcome.gramian = Gramian(tasks_);
    outcome.exclusive_norms_sq.assign(tasks_, 0.0);
    for (const Block& block : plan_->blocks) {
        if (block.frozen || block.owners.empty()) continue;
        const std::vector<const float*> rows = rows_of(*report->gradients, block);
        if (block.shared()) {
            outcome.gramian.add_block(rows, block.elements);
            continue;
        }
        for (std::size_t task = 0; task < tasks_; ++task) {
            if (rows[task] == nullptr) continue;
            outcome.exclusive_norms_sq[task] += squared_norm(rows[task], block.elements);
        }
    }
    if (hashes_) outcome.gradient_hash = hash_of(*report->gradients);
    outcome.gradients = std::make_shared<HeldGradients>(std::move(report->gradients));
    return {std::move(outcome)};
}

WorkResult EngineComputer::run_combine(const CombineWork& work,
                                       const std::function<void(std::uint32_t, Payload)>& part) {
    const auto& gradients = static_cast<const HeldGradients&>(*work.gradients).get();
    std::vector<double> shared_weights = work.weights;
    for (double& weight : shared_weights) weight *= work.clip_factor;
    const std::vector<double> own_weights(tasks_, work.clip_factor);
    for (std::size_t i = 0; i < work.layout.size(); ++i) {
        std::uint64_t bytes = 0;
        for (const BlockId id : work.layout[i]) bytes += plan_->block(id).bytes();
        auto buffer = std::make_shared<AlignedBuffer>(bytes);
        std::uint64_t at = 0;
        for (const BlockId id : work.layout[i]) {
            const Block& block = plan_->block(id);
            const std::span<float> out = buffer->floats().subspan(at, block.elements);
            combine(block.shared() ? shared_weights : own_weights, rows_of(gradients, block), out);
            if (halves_ != nullptr) halves_->before_push(id, out);
            at += block.elements;
        }
        part(static_cast<std::uint32_t>(i), payload_of(std::move(buffer)));
    }
    return {CombineOutcome{}};
}

// Rows come from frames, at any address.
WorkResult EngineComputer::run_compensate(const CompensateWork& work,
                                          const std::function<void(std::uint32_t, Payload)>& part) {
    const auto value_at = [](const Payload& payload, std::size_t i) {
        float value = 0;
        std::memcpy(&value, payload.bytes.data() + i * sizeof(float), sizeof(float));
        return value;
    };
    for (std::size_t i = 0; i < work.layout.size(); ++i) {
        std::size_t bytes = 0;
        for (const BlockId id : work.layout[i]) bytes += work.rows.at(id).gradient.size();
        auto buffer = std::make_shared<AlignedBuffer>(bytes);
        std::size_t at = 0;
        for (const BlockId id : work.layout[i]) {
            const CompensateWork::Row& row = work.rows.at(id);
            const std::size_t elements = row.gradient.size() / sizeof(float);
            const std::span<float> out = buffer->floats().subspan(at, elements);
            for (std::size_t k = 0; k < elements; ++k) {
                out[k] = delay_compensated(value_at(row.gradient, k), work.lambda,
                                           value_at(row.now, k), value_at(row.then, k));
            }
            at += elements;
        }
        part(static_cast<std::uint32_t>(i), payload_of(std::move(buffer)));
    }
    return {CombineOutcome{}};
}

}  // namespace detente
