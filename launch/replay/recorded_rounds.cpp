#include "launch/replay/recorded_rounds.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/ledger_controls.h"

namespace detente {
namespace {

std::string to_string(const RoundKey& key) {
    return fmt::format("round {} of group {}", key.round.value, key.group.value);
}

void take_share(const ShareRecord& share, const StepKey& key, Recording& recording) {
    RecordedStep& step = recording.steps[key];
    step.batch = share.batch;
    step.gradient_hash = share.gradient_hash;
    step.round = RoundKey{share.group, share.round};
    step.brought = share.tasks;
    step.share_samples = share.samples;
    // What pulls said last, and pushes of a node's oldest, is not what it was computed at.
    for (std::size_t i = 0; i < share.blocks.size(); ++i) {
        step.base[share.blocks[i]] = share.versions[i];
    }
    recording.rounds[*step.round].shares.push_back(key);
}

Error unsound(const Recording& recording, const RoundKey& key, const std::string& why) {
    return fail(ErrorCode::bad_message,
                fmt::format("{}: {}: {}: these ledgers are not of one run",
                            recording.run.ledger_dir(), to_string(key), why));
}

}  // namespace

Result<void> read_rounds(const std::string& path, LedgerReader& reader, Recording& recording) {
    const WorkerId worker{reader.origin().node.index};
    const Incarnation incarnation = reader.origin().incarnation;
    auto& state = recording.workers[{worker, incarnation}];
    LedgerEntry entry;
    while (true) {
        const auto more = reader.next(entry);
        if (more.has_error()) return more.error();
        if (!*more) break;
        if (const auto* control = std::get_if<ControlRecord>(&entry.record)) {
            if (auto went_on = method_went_on(*control)) state = std::move(went_on);
            if (const auto by = summed_elsewhere(*control)) {
                return fail(ErrorCode::not_supported,
                            fmt::format("{}: averages of layers in step were summed by {}, in an "
                                        "order that is not recorded, so that their bits cannot be "
                                        "had again; runs over shared memory and simulated ones "
                                        "can be replayed (sync.backend)",
                                        path, *by));
            }
        } else if (const auto* share = std::get_if<ShareRecord>(&entry.record)) {
            take_share(*share, {worker, incarnation, share->step}, recording);
        } else if (const auto* averaged = std::get_if<AveragedRecord>(&entry.record)) {
            RecordedRound& round = recording.rounds[{averaged->group, averaged->round}];
            round.averaged = true;
            round.samples = std::max(round.samples, averaged->samples);
            recording.steps[{worker, incarnation, averaged->step}].averaged = true;
        }
    }
    if (const auto& torn = reader.torn_tail()) {
        recording.remarks.push_back(fmt::format(
            "{}: {} bytes at its end are cut off, as a crash leaves them", path, torn->bytes));
    }
    return {};
}

Result<void> settle_rounds(Recording& recording) {
    if (recording.job.sync_layers.empty()) return {};
    std::map<std::pair<WorkerId, Incarnation>, RoundKey> latest;
    for (auto& [key, step] : recording.steps) {
        if (!step.round) continue;
        // In this order a worker begins them, so that no two wait for each other here.
        const auto [last, first] = latest.try_emplace({key.worker, key.incarnation}, *step.round);
        if (!first && !(std::exchange(last->second, *step.round) < *step.round)) {
            return unsound(recording, *step.round, to_string(key) + " begins it too late");
        }
        if (step.rows == 0) continue;
        // A killed one may have said no more than what it brought.
        step.averaged = true;
        recording.rounds[*step.round].averaged = true;
    }
    for (auto& [key, round] : recording.rounds) {
        std::sort(round.shares.begin(), round.shares.end());
        const auto twice = std::adjacent_find(
            round.shares.begin(), round.shares.end(),
            [](const StepKey& a, const StepKey& b) { return a.worker == b.worker; });
        if (twice != round.shares.end() || round.shares.size() > kMostGroupMembers) {
            return unsound(recording, key, "more was brought than a group has members");
        }
        if (round.averaged && round.shares.empty()) {
            return unsound(recording, key, "it became averages, but nobody says what it brought");
        }
        if (round.averaged) continue;
        for (const StepKey& share : round.shares) recording.steps.at(share).round.reset();
    }
    std::erase_if(recording.rounds, [](const auto& round) { return !round.second.averaged; });
    return {};
}

}  // namespace detente
