// The rounds in which a node's workers averaged layers in step: all members' gradients of a round
// are computed, averaged as their collective did (common/collective/average.h), and resolved.
#include <fmt/format.h>

#include <algorithm>

#include "common/collective/average.h"
#include "launch/replay/replay.h"

namespace detente {

// Each member computes nothing else from its own gradient to the averages, so that what came before
// it, at every member, comes first.
Result<void> Replay::compute_round(const RoundKey& key) {
    const RecordedRound& round = recording_.rounds.at(key);
    for (const StepKey& one : round.shares) {
        auto worker = worker_of(one);
        if (worker.has_error()) return worker.error();
        if (auto done = compute_before(**worker, one); done.has_error()) return done;
        (*worker)->computed = one.step;
    }
    std::vector<Share> shares;
    for (const StepKey& one : round.shares) {
        auto share = share_of(one);
        if (share.has_error()) return share.error();
        shares.push_back(std::move(*share));
    }
    const auto averages = averages_of(key, shares);
    if (averages.has_error()) return averages.error();
    ++figures_.rounds;
    for (Share& share : shares) {
        if (!share.step->averaged) continue;
        if (auto done = go_on_with(std::move(share), *averages); done.has_error()) return done;
    }
    return {};
}

Result<Replay::Share> Replay::share_of(const StepKey& key) {
    Share share;
    share.key = key;
    share.step = &recording_.steps.at(key);
    auto worker = worker_of(key);
    if (worker.has_error()) return worker.error();
    share.worker = *worker;
    share.work = work_of(*share.worker->resolver, key, *share.step, weights_of(key, *share.step));
    share.work.in_step = true;
    const auto keep = [&share](std::uint32_t task, Payload rows) {
        if (share.step->brought.contains(TaskId{task})) share.rows[TaskId{task}] = std::move(rows);
    };
    auto result = share.worker->computer->run(share.work, never_, keep);
    share.work.weights.clear();
    ++figures_.gradients;
    if (result.has_value()) {
        share.outcome = std::move(std::get<GradientOutcome>(*result));
        if (auto same = compare_hash(key, *share.step, *share.outcome); same.has_error()) {
            return same.error();
        }
    } else if (share.step->averaged) {
        return fail(result.error().code, to_string(key) + ": " + result.error().text);
    }
    if (share.rows.size() == static_cast<std::size_t>(share.step->brought.count())) return share;
    return fail(ErrorCode::internal,
                fmt::format("{} was recorded to bring rows of {} tasks to its node, here it has {}",
                            to_string(key), share.step->brought.count(), share.rows.size()));
}

Result<std::vector<Payload>> Replay::averages_of(const RoundKey& key,
                                                 const std::vector<Share>& shares) {
    double samples = 0;
    std::vector<Payload> averages(in_step_.tasks());
    for (std::uint32_t task = 0; task < in_step_.tasks(); ++task) {
        std::vector<double> weights;
        std::vector<const float*> rows;
        for (const Share& share : shares) {
            const auto found = share.rows.find(TaskId{task});
            const bool there = found != share.rows.end();
            weights.push_back(there ? static_cast<double>(share.step->share_samples) : 0.0);
            rows.push_back(there ? reinterpret_cast<const float*>(found->second.bytes.data())
                                 : nullptr);
        }
        const MeanShares mean_weights = mean_shares(weights);
        samples = std::max(samples, mean_weights.weight_sum);
        const std::uint64_t elements = in_step_.elements(TaskId{task});
        if (elements == 0 || mean_weights.weight_sum == 0) continue;
        auto mean = std::make_shared<AlignedBuffer>(elements * sizeof(float));
        write_mean(mean_weights.of, rows, 0, mean->floats());
        averages[task] = payload_of(std::move(mean));
    }
    const std::uint32_t recorded = recording_.rounds.at(key).samples;
    if (recorded == 0 || samples == recorded) return averages;
    std::string who;
    for (const Share& share : shares) who += (who.empty() ? "" : ", ") + to_string(share.key);
    return fail(ErrorCode::bad_message,
                fmt::format("round {} of group {} averaged {} samples, but the ledgers here name "
                            "{}, of {}: another member's lacks its end (it was killed), or is on "
                            "another host",
                            key.round.value, key.group.value, recorded, samples, who));
}

Result<void> Replay::go_on_with(Share&& share, const std::vector<Payload>& averages) {
    const StepKey& key = share.key;
    MeasureWork work;
    work.of = std::move(share.work);
    work.computed = std::move(*share.outcome);
    work.averages = averages;
    auto measured = share.worker->computer->run(work, never_, {});
    const auto usable = [&](const Error& error) {
        // Its worker skipped the step as well: nothing of it was pushed.
        return share.step->rows > 0 || error.code != ErrorCode::not_finite;
    };
    if (measured.has_error()) {
        if (!usable(measured.error())) return {};
        return fail(measured.error().code, to_string(key) + ": " + measured.error().text);
    }
    auto gradient = combined(*share.worker->computer, *share.worker->resolver, key, *share.step,
                             std::move(std::get<GradientOutcome>(*measured)));
    if (gradient.has_error()) {
        if (!usable(gradient.error())) return {};
        return gradient.error();
    }
    keep_gradient(key, *share.step, std::move(*gradient));
    return {};
}

Result<void> Replay::compute_last_rounds() {
    for (const auto& [key, round] : recording_.rounds) {
        for (const StepKey& one : round.shares) {
            auto worker = worker_of(one);
            if (worker.has_error()) return worker.error();
            const RecordedStep& step = recording_.steps.at(one);
            // A ledger that was cut off may lack the versions; nothing came of these then.
            if ((*worker)->computed >= one.step || lacking(one, step)) continue;
            if (auto done = compute(one, step); done.has_error()) return done;
        }
    }
    return {};
}

}  // namespace detente
