// The gradients of a replay: each at the versions it was recorded to be computed at, once.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "common/partition/task_placement.h"
#include "common/random.h"
#include "launch/replay/replay.h"
#include "launch/worker_vectors.h"

namespace detente {
namespace {

std::span<const float> floats_of(const Payload& payload) {
    return {reinterpret_cast<const float*>(payload.bytes.data()), payload.size() / sizeof(float)};
}

Error named(const StepKey& key, const Error& error) {
    return fail(error.code, to_string(key) + ": " + error.text);
}

}  // namespace

// The first block whose version is not there yet.
std::optional<BlockId> Replay::missing(const StepKey& key, const RecordedStep& step) const {
    for (const BlockId block : trainable_) {  // a ledger that lacks its end lacks the pull
        if (!step.base.contains(block)) return block;
    }
    const auto handed = handed_.find(key);
    for (const auto& [block, version] : step.base) {
        if (kept_.contains({block, version})) continue;
        if (handed != handed_.end() && handed->second.contains(block)) continue;
        return block;
    }
    return std::nullopt;
}

std::optional<Replay::Lacking> Replay::lacking(const StepKey& key, const RecordedStep& step) const {
    std::set<RoundKey> seen;
    return lacking(key, step, seen);
}

// A worker's gradients are computed in the order it computed them: its aggregator may remember.
std::optional<Replay::Lacking> Replay::lacking(const StepKey& key, const RecordedStep& step,
                                               std::set<RoundKey>& seen) const {
    const auto of_one = [&](const StepKey& one,
                            const RecordedStep& recorded) -> std::optional<Lacking> {
        if (const auto block = missing(one, recorded)) return Lacking{one, *block};
        if (!recorded.round || !seen.insert(*recorded.round).second) return std::nullopt;
        for (const StepKey& other : recording_.rounds.at(*recorded.round).shares) {
            if (other == one) continue;
            if (const auto found = lacking(other, recording_.steps.at(other), seen)) return found;
        }
        return std::nullopt;
    };
    if (const auto found = of_one(key, step)) return found;
    const auto worker = workers_.find({key.worker, key.incarnation});
    const Step done = worker == workers_.end() ? Step{0} : worker->second.computed;
    for (auto at = recording_.steps.upper_bound({key.worker, key.incarnation, done});
         at != recording_.steps.end() && at->first < key; ++at) {
        if (const auto found = of_one(at->first, at->second)) return found;
    }
    return std::nullopt;
}

Result<Replay::Worker*> Replay::worker_of(const StepKey& key) {
    const auto [at, fresh] = workers_.try_emplace({key.worker, key.incarnation});
    Worker& worker = at->second;
    if (!fresh) return &worker;
    worker.computer =
        std::make_unique<EngineComputer>(engines_->engine(), plan_, orders_, job_->gradient_hashes);
    if (auto used = worker.computer->use_methods_of(*job_); used.has_error()) return used.error();
    const auto& restored_from = recording_.shards.front().restored;
    if (begun_.insert(key.worker).second && restored_from &&
        keeps_vectors(*job_, engines_->description())) {
        const auto unused = restore_vectors(*worker.computer, key.worker, restored_from->directory);
        if (unused.has_error()) return unused.error();
    }
    worker.resolver = first_;
    if (auto gone_on = remember(key, *worker.resolver); gone_on.has_error()) {
        return gone_on.error();
    }
    if (options_.gaps) {
        worker.beside = std::make_unique<EngineComputer>(engines_->engine(), plan_, orders_, false);
    }
    return &worker;
}

Result<void> Replay::remember(const StepKey& key, Resolver& resolver) const {
    if (!resolver.remembers()) return {};
    const auto worker = recording_.workers.find({key.worker, key.incarnation});
    if (worker == recording_.workers.end()) {
        return fail(
            ErrorCode::io,
            fmt::format("{}: the ledger of worker:{}, incarnation {}, is not here; what its "
                        "conflict.method went on from is only there: bring it here",
                        recording_.run.ledger_dir(), key.worker.value, key.incarnation.value));
    }
    return worker->second ? resolver.restore(*worker->second) : Result<void>{};
}

Result<void> Replay::compute_before(Worker& worker, const StepKey& key) {
    while (true) {
        const auto at =
            recording_.steps.upper_bound({key.worker, key.incarnation, worker.computed});
        if (at == recording_.steps.end() || !(at->first < key)) return {};
        if (auto done = compute(at->first, at->second); done.has_error()) return done;
    }
}

Result<void> Replay::compute(const StepKey& key, const RecordedStep& step) {
    if (step.round) return compute_round(*step.round);
    auto worker = worker_of(key);
    if (worker.has_error()) return worker.error();
    if (auto before = compute_before(**worker, key); before.has_error()) return before;
    (*worker)->computed = key.step;
    const std::vector<WeightBlock> weights = weights_of(key, step);
    const Resolver before = *(*worker)->resolver;
    auto gradient = step.carries ? carried(*(*worker)->computer, step, weights)
                                 : resolved(*(*worker)->computer, *(*worker)->resolver, key, step,
                                            weights, true);
    if (gradient.has_error()) return gradient.error();
    ++figures_.gradients;
    if (options_.gaps && !step.carries) {
        auto measured = measure_gap(*(*worker)->beside, before, key, step, weights, *gradient);
        if (measured.has_error()) return measured;
    }
    keep_gradient(key, step, std::move(*gradient));
    return {};
}

std::vector<WeightBlock> Replay::weights_of(const StepKey& key, const RecordedStep& step) {
    std::vector<WeightBlock> weights;
    const auto handed = handed_.find(key);
    for (const auto& [block, version] : step.base) {
        const bool ahead = handed != handed_.end() && handed->second.contains(block);
        const auto kept = kept_.find({block, version});
        weights.push_back(
            {block, epoch_, version, ahead ? handed->second.at(block) : kept->second, {}});
        if (kept != kept_.end()) let_go(kept->first);
    }
    if (handed != handed_.end()) handed_.erase(handed);
    return weights;
}

void Replay::keep_gradient(const StepKey& key, const RecordedStep& step, Blocks&& gradient) {
    const auto carried_rows = carried_rows_.find(key);
    const std::size_t more = carried_rows == carried_rows_.end() ? 0 : carried_rows->second;
    if (step.rows + more > 0) gradients_[key] = {std::move(gradient), step.rows + more};
}

// One gradient less will be computed at this version.
void Replay::let_go(const std::pair<BlockId, Version>& version) {
    if (--uses_.at(version) > 0) return;
    uses_.erase(version);
    kept_.erase(version);
}

Result<Replay::Blocks> Replay::carried(EngineComputer& computer, const RecordedStep& step,
                                       const std::vector<WeightBlock>& weights) {
    const StepKey& rejected = *step.carries;
    const RecordedStep& then = recording_.steps.at(rejected);
    CompensateWork work;
    work.lambda = job_->compensate_lambda;
    for (const WeightBlock& block : weights) {
        if (std::find(step.pushed.begin(), step.pushed.end(), block.block) == step.pushed.end()) {
            continue;
        }
        const std::pair at{block.block, then.base.at(block.block)};
        work.rows[block.block] = {gradients_.at(rejected).blocks.at(block.block), kept_.at(at),
                                  block.weights};
        let_go(at);
        work.layout.push_back({block.block});
    }
    Blocks gradient;
    const auto keep = [&](std::uint32_t i, Payload part) {
        gradient[work.layout[i].front()] = std::move(part);
    };
    if (auto done = computer.run(work, never_, keep); done.has_error()) return done.error();
    ++figures_.carried;
    used(rejected, step.pushed.size());
    return gradient;
}

// As worker/worker.cpp has it computed, resolved and combined.
Result<Replay::Blocks> Replay::resolved(EngineComputer& computer, Resolver& resolver,
                                        const StepKey& key, const RecordedStep& step,
                                        std::vector<WeightBlock> weights, bool compare) {
    if (step.samples > job_->batch_samples) {
        return fail(
            ErrorCode::bad_message,
            fmt::format("{} pushed averages of {} samples, but its worker's ledger does not "
                        "say of what: it lacks its end, or is on another host",
                        to_string(key), step.samples));
    }
    const GradientWork work = work_of(resolver, key, step, std::move(weights));
    auto result = computer.run(work, never_, {});
    if (result.has_error()) return named(key, result.error());
    auto& outcome = std::get<GradientOutcome>(*result);
    if (compare) {
        if (auto same = compare_hash(key, step, outcome); same.has_error()) return same.error();
    }
    return combined(computer, resolver, key, step, std::move(outcome));
}

GradientWork Replay::work_of(const Resolver& resolver, const StepKey& key, const RecordedStep& step,
                             std::vector<WeightBlock> weights) const {
    GradientWork work;
    work.step = key.step;
    work.weights = std::move(weights);
    work.batch = step.batch;
    work.batch_samples = job_->batch_samples;
    work.random_key =
        random_key(job_->seed, Purpose::task_stream, {step.batch.data_epoch, step.batch.first});
    work.tasks = tasks_of(step.batch, engines_->description().tasks.size());
    resolver.prepare(work);
    return work;
}

Result<void> Replay::compare_hash(const StepKey& key, const RecordedStep& step,
                                  const GradientOutcome& outcome) {
    if (step.gradient_hash == 0) return {};
    if (outcome.gradient_hash != step.gradient_hash) {
        return fail(ErrorCode::internal,
                    fmt::format("{}, batch {} of data epoch {}: the hash of its gradients is "
                                "{:016x}, recorded was {:016x}; it is the first that differs, "
                                "after {} that are the same",
                                to_string(key), step.batch.first, step.batch.data_epoch,
                                outcome.gradient_hash, step.gradient_hash, figures_.hashes));
    }
    ++figures_.hashes;
    return {};
}

Result<Replay::Blocks> Replay::combined(EngineComputer& computer, Resolver& resolver,
                                        const StepKey& key, const RecordedStep& step,
                                        GradientOutcome&& outcome) {
    auto combine = resolver.resolve(
        std::move(outcome),
        random_key(job_->seed, Purpose::aggregator, {key.worker.value, key.step.value}));
    if (combine.has_error()) return named(key, combine.error());
    for (const BlockId block : step.pushed) combine->layout.push_back({block});
    Blocks gradient;
    const auto keep = [&](std::uint32_t i, Payload part) {
        gradient[step.pushed[i]] = std::move(part);
    };
    if (auto done = computer.run(*combine, never_, keep); done.has_error()) {
        return named(key, done.error());
    }
    return gradient;
}

Result<void> Replay::measure_gap(EngineComputer& computer, Resolver resolver, const StepKey& key,
                                 const RecordedStep& step, const std::vector<WeightBlock>& stale,
                                 const Blocks& gradient) {
    std::vector<WeightBlock> current;
    std::uint64_t staleness = 0;
    double gap_sq = 0;
    for (const WeightBlock& then : stale) {
        const LiveBlock& now = live(then.block);
        current.push_back({then.block, now.epoch, now.version, now.weight_payload(), {}});
        if (now.plan->frozen) continue;
        staleness = std::max(staleness, now.version.value - then.version.value);
        const std::span<const float> a = floats_of(current.back().weights);
        const std::span<const float> b = floats_of(then.weights);
        for (std::size_t i = 0; i < a.size(); ++i) {
            const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
            gap_sq += difference * difference;
        }
    }
    double cosine = 1;
    if (staleness > 0) {
        auto fresh = resolved(computer, resolver, key, step, std::move(current), false);
        if (fresh.has_error()) return fresh.error();
        double product = 0;
        double stale_sq = 0;
        double fresh_sq = 0;
        for (const auto& [block, values] : gradient) {
            const std::span<const float> a = floats_of(values);
            const std::span<const float> b = floats_of(fresh->at(block));
            for (std::size_t i = 0; i < a.size(); ++i) {
                product += static_cast<double>(a[i]) * b[i];
                stale_sq += static_cast<double>(a[i]) * a[i];
                fresh_sq += static_cast<double>(b[i]) * b[i];
            }
        }
        const double norms = std::sqrt(stale_sq) * std::sqrt(fresh_sq);
        cosine = norms > 0 ? product / norms : 0;
    }
    StalenessGap& gap = figures_.gaps[staleness];
    ++gap.gradients;
    gap.gap_sum += std::sqrt(gap_sq);
    gap.cosine_sum += cosine;
    return {};
}

}  // namespace detente
