#include "worker/engine_computer.h"

#include <algorithm>
#include <cmath>

#include "common/checksum.h"
#include "common/invariant.h"
#include "common/random.h"
#include "common/staleness/delay_compensation.h"
#include "worker/kept_vectors.h"
#include "worker/stored_order_engine.h"

namespace detente {
namespace {

std::vector<std::string> tensor_names(const ModelDescription& description) {
    std::vector<std::string> names;
    for (const auto& tensor : description.tensors) names.push_back(tensor.name);
    return names;
}

}  // namespace

EngineComputer::EngineComputer(std::unique_ptr<Engine> engine, std::shared_ptr<const Plan> plan,
                               std::shared_ptr<SampleOrders> orders, bool hashes)
    : engine_(in_stored_order(std::move(engine), *plan)),
      plan_(std::move(plan)),
      hashes_(hashes),
      tasks_(engine_->description().tasks.size()),
      rows_(plan_, tensor_names(engine_->description()), tasks_),
      in_step_(*plan_, tasks_),
      orders_(std::move(orders)) {}

EngineComputer::EngineComputer(std::unique_ptr<Engine> engine, std::shared_ptr<const Plan> plan,
                               std::uint64_t seed, bool hashes)
    : EngineComputer(std::move(engine), std::move(plan), nullptr, hashes) {
    orders_ = std::make_shared<SampleOrders>(seed, engine_->description().training_samples);
}

Result<void> EngineComputer::use_methods_of(const Job& job) {
    auto halves = WorkerHalves::create(job, *plan_);
    if (!halves) return halves.error();
    halves_ = std::move(*halves);
    gates_ = GateRows::create(job, *plan_, engine_->description());
    method_ = job.aggregator.name;
    return {};
}

Result<std::string> EngineComputer::restore_vectors(const std::string& path) {
    auto kept = read_kept(path, *plan_, tasks_);
    if (!kept) return kept.error();
    std::string unused;
    if (kept->tasks != nullptr && kept->method != method_) {
        unused = path + " has the vectors of conflict.method '" + kept->method +
                 "', the job has '" + method_ + "', which begins anew";
    } else if (kept->tasks != nullptr) {
        rows_.restore(std::move(kept->tasks));
    }
    if (kept->gates != nullptr && gates_ != nullptr && !gates_->restore(std::move(kept->gates))) {
        unused += (unused.empty() ? "" : "; ") + path +
                  " is of other gates, or of others that they pass: they learn nothing in their "
                  "first step";
    }
    if (halves_ != nullptr) {
        const std::string anew = halves_->restore(kept->halves.get());
        if (!anew.empty()) unused += (unused.empty() ? "" : "; ") + path + " has " + anew;
    }
    return unused;
}

WorkResult EngineComputer::run(const Work& work, const std::atomic<bool>& cancelled,
                               const PartSink& part) {
    if (const auto* gradient = std::get_if<GradientWork>(&work)) {
        return run_gradient(*gradient, cancelled, part);
    }
    if (const auto* averaged = std::get_if<MeasureWork>(&work)) return run_measure(*averaged);
    if (const auto* combine = std::get_if<CombineWork>(&work)) return run_combine(*combine, part);
    if (const auto* carry = std::get_if<CompensateWork>(&work)) return run_compensate(*carry, part);
    if (std::holds_alternative<KeptWork>(work)) return run_kept(part);
    return run_initial(part);
}

WorkResult EngineComputer::run_initial(const PartSink& part) {
    for (const Block& block : plan_->blocks) {
        const std::span<const float> values =
            engine_->tensor(block.tensor).subspan(block.offset, block.elements);
        part(static_cast<std::uint32_t>(block.id.value), copy_of(std::as_bytes(values)));
    }
    return {InitialOutcome{}};
}

WorkResult EngineComputer::run_kept(const PartSink& part) const {
    const KeptVectors kept{method_, rows_.kept(), gates_ == nullptr ? nullptr : gates_->kept(),
                           halves_ == nullptr ? nullptr : halves_->kept()};
    auto pieces = to_pieces(kept, tasks_);
    if (pieces.has_error()) return pieces.error();
    std::uint32_t index = 0;
    for (Payload& piece : *pieces) part(index++, std::move(piece));
    return {KeptOutcome{}};
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

std::uint64_t EngineComputer::hash_of(const HeldGradients& gradients) const {
    std::uint64_t hash = 0;
    for (const auto& batch : gradients.batches) {
        for (const Block& block : plan_->blocks) {
            for (const float* row : rows_of(*batch, block, tasks_)) {
                if (row == nullptr) continue;
                const std::span<const float> values{row, block.elements};
                hash = scatter(hash ^ checksum_of(std::as_bytes(values)));
            }
        }
        for (std::uint32_t task = 0; task < tasks_; ++task) {
            const std::span<const float> row = batch->representation(TaskId{task});
            if (!row.empty()) hash = scatter(hash ^ checksum_of(std::as_bytes(row)));
        }
    }
    return std::max<std::uint64_t>(hash, 1);  // 0 says that none was made
}

Result<void> EngineComputer::load_weights(const GradientWork& work) {
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
    return {};
}

Result<std::shared_ptr<HeldGradients>> EngineComputer::gradients_of(
    const GradientWork& work, const std::atomic<bool>& cancelled, const PartSink& part,
    GradientOutcome& outcome) {
    const std::vector<std::uint32_t> samples = samples_of(work.batch, work.batch_samples);
    const bool halved = work.aggregator != nullptr && work.aggregator->needs().second_batch;
    if (halved && samples.size() < 2) {
        return fail(ErrorCode::bad_job,
                    "aggregator '" + work.aggregator->name() +
                        "' needs two halves of a batch, but this one (the last of the data epoch) "
                        "has one sample; choose another data.batch");
    }
    auto held = std::make_shared<HeldGradients>();
    outcome.samples = static_cast<std::uint32_t>(samples.size());
    outcome.losses.assign(tasks_, 0.0);
    invariant(!(halved && work.in_step), "a node does not average halves of batches");
    TaskSet told;  // whose rows in step are on their way
    std::optional<TaskId> not_finite;
    const auto tell = [&](TaskId task, const TaskGradients& rows) {
        if (told.contains(task) || in_step_.elements(task) == 0) return;
        told.insert(task);
        Payload packed = in_step_.pack(task, rows);
        const auto* values = reinterpret_cast<const float*>(packed.bytes.data());
        if (!std::isfinite(squared_norm(values, in_step_.elements(task)))) {
            if (!not_finite) not_finite = task;  // it would be in every member's average
            return;
        }
        part(task.value, std::move(packed));
    };
    const std::size_t halves = halved ? 2 : 1;
    for (std::size_t half = 0; half < halves; ++half) {
        const auto first =
            samples.begin() + static_cast<std::ptrdiff_t>(half == 0 ? 0 : samples.size() / 2);
        const auto last = halved && half == 0
                              ? samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 2)
                              : samples.end();
        GradientRequest request;
        request.samples.assign(first, last);
        request.data_epoch = work.batch.data_epoch;
        request.random_key =
            half == 0 ? work.random_key : random_key(work.random_key, Purpose::task_stream, {half});
        request.tasks = work.tasks;
        request.representation = work.space == ConflictSpace::representation;
        request.cancelled = &cancelled;
        if (work.in_step) request.task_done = tell;
        const double share = halved ? static_cast<double>(request.samples.size()) /
                                          static_cast<double>(samples.size())
                                    : 1.0;
        auto report = engine_->gradients(request);
        if (!report) return report.error();
        for (std::size_t task = 0; task < report->losses.size() && task < tasks_; ++task) {
            outcome.losses[task] += share * report->losses[task];
        }
        for (std::uint32_t task = 0; work.in_step && task < tasks_; ++task) {
            tell(TaskId{task}, *report->gradients);
        }
        if (not_finite) {
            return fail(ErrorCode::not_finite,
                        "the gradient of task " + engine_->description().tasks[not_finite->value] +
                            " has NaN or Inf in layers in step; lower the learning rate or clip "
                            "gradients");
        }
        held->batches.push_back(std::move(report->gradients));
        held->shares.push_back(share);
    }
    return held;
}

WorkResult EngineComputer::run_gradient(const GradientWork& work,
                                        const std::atomic<bool>& cancelled, const PartSink& part) {
    if (auto loaded = load_weights(work); !loaded) return loaded.error();
    GradientOutcome outcome;
    auto held = gradients_of(work, cancelled, part, outcome);
    if (!held) return held.error();
    if (hashes_) outcome.gradient_hash = hash_of(**held);
    if (work.in_step) {
        outcome.gradients = std::move(*held);
    } else {
        measure(work, std::move(*held), outcome);
    }
    return {std::move(outcome)};
}

WorkResult EngineComputer::run_measure(const MeasureWork& work) {
    const auto& own = static_cast<const HeldGradients&>(*work.computed.gradients);
    auto held = std::make_shared<HeldGradients>();
    held->batches = {in_step_.overlay(own.batches.front(), work.averages)};
    held->shares = own.shares;
    GradientOutcome outcome = work.computed;
    measure(work.of, std::move(held), outcome);
    return {std::move(outcome)};
}

void EngineComputer::measure(const GradientWork& work, std::shared_ptr<HeldGradients> held,
                             GradientOutcome& outcome) {
    invariant(gates_ != nullptr || engine_->description().gates.empty(),
              "a model's gates are learned where its gradients are computed");
    if (gates_ != nullptr) gates_->learn(*engine_, *held);
    rows_.measure(work, *held, outcome);
    outcome.gradients = std::move(held);
}

Result<std::shared_ptr<const TrunkGradient>> EngineComputer::through_trunk(
    const CombineWork& work, const HeldGradients& held) {
    if (held.space == ConflictSpace::parameters) return std::shared_ptr<const TrunkGradient>{};
    auto trunk =
        engine_->trunk_gradient(*held.batches.front(), rows_.combined_representation(work, held));
    if (!trunk) return trunk;
    // The rows were finite; what the trunk made of them is seen here first.
    for (const Block& block : plan_->blocks) {
        const float* row = block.trainable() ? (*trunk)->gradient(block.tensor) : nullptr;
        if (row == nullptr || std::isfinite(squared_norm(row + block.offset, block.elements))) {
            continue;
        }
        return fail(ErrorCode::not_finite,
                    "the gradient that all tasks together give tensor " +
                        engine_->description().tensors[block.tensor].name +
                        " has NaN or Inf; lower the learning rate or clip gradients");
    }
    return trunk;
}

WorkResult EngineComputer::run_combine(const CombineWork& work, const PartSink& part) {
    const auto& held = static_cast<const HeldGradients&>(*work.gradients);
    const auto trunk = through_trunk(work, held);
    if (!trunk) return trunk.error();
    rows_.keep(held);
    if (gates_ != nullptr) gates_->keep(held);
    CombineWork clipped = work;
    if (work.clip_norm > 0) {
        const double norm = std::sqrt(rows_.combined_norm_sq(work, held, trunk->get()));
        if (norm > work.clip_norm) clipped.clip_factor = work.clip_norm / norm;
    }
    CombineOutcome outcome;
    if (work.measured) outcome.products.assign(engine_->description().tasks.size(), 0.0);
    std::size_t measured = 0;
    for (std::size_t i = 0; i < work.layout.size(); ++i) {
        std::uint64_t bytes = 0;
        for (const BlockId id : work.layout[i]) bytes += plan_->block(id).bytes();
        auto buffer = std::make_shared<AlignedBuffer>(bytes);
        std::uint64_t at = 0;
        for (const BlockId id : work.layout[i]) {
            const Block& block = plan_->block(id);
            const std::span<float> out = buffer->floats().subspan(at, block.elements);
            rows_.combine(clipped, held, trunk->get(), block, out);
            if (work.measured && block.shared()) {
                rows_.add_result(held, block, out, outcome);
                ++measured;
            }
            if (halves_ != nullptr) halves_->before_push(id, out);
            at += block.elements;
        }
        part(static_cast<std::uint32_t>(i), payload_of(std::move(buffer)));
    }
    if (!work.measured || measured < rows_.shared_blocks()) return {CombineOutcome{}};
    for (double& product : outcome.products) product /= clipped.clip_factor;
    outcome.result_sq /= clipped.clip_factor * clipped.clip_factor;
    return {std::move(outcome)};
}

// Rows come from frames, at any address.
WorkResult EngineComputer::run_compensate(const CompensateWork& work, const PartSink& part) {
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
