#include "launch/replay/recording.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "launch/job.h"
#include "launch/ledger_files.h"
#include "launch/replay/recorded_rounds.h"

namespace detente {
namespace {

std::optional<Epoch> epoch_of(const LedgerEntry& entry) {
    if (const auto* pull = std::get_if<PullRecord>(&entry.record)) return pull->epoch;
    if (const auto* push = std::get_if<VerdictRecord>(&entry.record)) return push->epoch;
    return std::nullopt;
}

Error begun_again(const std::string& path) {
    return fail(ErrorCode::not_supported,
                fmt::format("{}: this run was begun again from a checkpoint while it went on; only "
                            "runs that a checkpoint began can be replayed",
                            path));
}

Result<RecordedShard> read_shard(const std::string& path, Recording& recording) {
    auto reader = LedgerReader::open(path);
    if (reader.has_error()) return reader.error();
    RecordedShard shard;
    shard.origin = reader->origin();
    LedgerEntry entry;
    bool began = false;
    while (true) {
        const auto more = reader->next(entry);
        if (more.has_error()) return more.error();
        if (!*more) break;
        if (const auto* control = std::get_if<ControlRecord>(&entry.record)) {
            if (auto restored = restored_from(*control)) {
                if (began || shard.restored) return begun_again(path);
                shard.restored = std::move(*restored);
            }
        }
        if (const auto epoch = epoch_of(entry)) {
            began = true;
            const Epoch expected = shard.restored ? shard.restored->epoch : Epoch{1};
            if (*epoch != expected) {
                return fail(ErrorCode::bad_message,
                            fmt::format("{}: \"{}\" is of epoch {}, expected {}: the ledger does "
                                        "not say what this epoch began with",
                                        path, ledger_to_text(entry), epoch->value, expected.value));
            }
        }
        shard.entries.push_back(std::move(entry));
    }
    if (const auto& torn = reader->torn_tail()) {
        recording.remarks.push_back(
            fmt::format("{}: {} bytes at its end are cut off, as a crash "
                        "leaves them; replayed up to there",
                        path, torn->bytes));
    }
    return shard;
}

// A pull may have been answered more than once; the push says which answer it was computed at.
void take_steps(const RecordedShard& shard, std::map<StepKey, RecordedStep>& steps) {
    for (const LedgerEntry& entry : shard.entries) {
        if (const auto* pull = std::get_if<PullRecord>(&entry.record)) {
            RecordedStep& step = steps[key_of(*pull)];
            for (std::size_t i = 0; i < pull->blocks.size(); ++i) {
                step.base[pull->blocks[i]] = pull->versions[i];
            }
        }
    }
    for (const LedgerEntry& entry : shard.entries) {
        const auto* push = std::get_if<VerdictRecord>(&entry.record);
        if (push == nullptr) continue;
        RecordedStep& step = steps[key_of(*push)];
        step.batch = push->batch;
        step.gradient_hash = push->gradient_hash;
        step.samples = std::max(step.samples, push->samples);
        for (const VerdictRecord::Row& row : push->rows) {
            ++step.rows;
            step.base[row.block] = row.base;
            step.pushed.push_back(row.block);
        }
    }
}

// Where rejected gradients are compensated, a worker's next step of the same batch is that.
void find_carried(std::map<StepKey, RecordedStep>& steps) {
    std::map<std::tuple<WorkerId, Incarnation, BatchRange>, StepKey> latest;
    for (auto& [key, step] : steps) {
        const auto batch = std::tuple(key.worker, key.incarnation, step.batch);
        const auto [before, first] = latest.try_emplace(batch, key);
        if (first) continue;
        step.carries = std::exchange(before->second, key);
    }
}

Result<void> read_shards(Recording& recording) {
    const auto files = ledger_files(recording.run.ledger_dir(), Role::shard);
    if (files.has_error()) return files.error();
    std::map<std::uint32_t, RecordedShard> found;
    for (const std::string& file : *files) {
        auto shard = read_shard(file, recording);
        if (shard.has_error()) return shard.error();
        const std::uint32_t index = shard->origin.node.index;
        if (index >= recording.job.shards() || found.contains(index)) {
            return fail(ErrorCode::bad_message,
                        fmt::format("{}: a ledger of shard {}: a replay takes one of each of the "
                                    "job's {} shards",
                                    file, index, recording.job.shards()));
        }
        found.emplace(index, std::move(*shard));
    }
    for (auto& [index, shard] : found) recording.shards.push_back(std::move(shard));
    if (recording.shards.size() == recording.job.shards()) {
        for (const RecordedShard& shard : recording.shards) {
            const RecordedShard& lead = recording.shards.front();
            if (shard.restored == lead.restored) continue;
            const auto begins = [](const RecordedShard& one) {
                return one.restored ? one.restored->directory : "the first weights";
            };
            return fail(ErrorCode::bad_message,
                        fmt::format("{}: shard:{} begins with {}, shard:0 with {}: these ledgers "
                                    "are not of one run",
                                    recording.run.ledger_dir(), shard.origin.node.index,
                                    begins(shard), begins(lead)));
        }
        return {};
    }
    return fail(
        ErrorCode::io,
        fmt::format("{}: {} of {} shards' ledgers; the run's other hosts have the rest: "
                    "bring them here",
                    recording.run.ledger_dir(), recording.shards.size(), recording.job.shards()));
}

// Ledgers of workers may lie on other hosts: what only they know is then not there.
Result<void> read_workers(Recording& recording) {
    const auto files = ledger_files(recording.run.ledger_dir(), Role::worker);
    if (files.has_error()) return files.error();
    std::set<std::string> machines;
    for (const std::string& file : *files) {
        auto reader = LedgerReader::open(file);
        if (reader.has_error()) continue;
        const LedgerOrigin& origin = reader->origin();
        machines.insert(origin.machine);
        if (!recording.job.sync_layers.empty()) {
            if (auto read = read_rounds(file, *reader, recording); read.has_error()) return read;
            continue;
        }
        LedgerEntry entry;  // it is the first a worker writes, if anything
        const auto more = reader->next(entry);
        if (more.has_error()) continue;
        auto& state = recording.workers[{WorkerId{origin.node.index}, origin.incarnation}];
        const auto* control = *more ? std::get_if<ControlRecord>(&entry.record) : nullptr;
        if (control != nullptr) state = method_went_on(*control);
    }
    recording.machines.assign(machines.begin(), machines.end());
    return {};
}

}  // namespace

std::string to_string(const StepKey& key) {
    return fmt::format(
        "{}{}, step {}", to_string(node_of(key.worker)),
        key.incarnation.value > 1 ? fmt::format(" (incarnation {})", key.incarnation.value) : "",
        key.step.value);
}

Result<Recording> read_recording(const std::string& directory,
                                 const std::vector<std::string>& overrides) {
    Recording recording;
    recording.run = RunDirectory{directory};
    auto job = read_job(recording.run.job_file(), overrides, program_folder());
    if (job.has_error()) return job.error();
    recording.job = std::move(*job);
    if (auto read = read_shards(recording); read.has_error()) return read.error();
    for (const RecordedShard& shard : recording.shards) take_steps(shard, recording.steps);
    if (auto read = read_workers(recording); read.has_error()) return read.error();
    if (auto settled = settle_rounds(recording); settled.has_error()) return settled.error();
    std::erase_if(recording.steps,
                  [](const auto& entry) { return entry.second.rows == 0 && !entry.second.round; });
    if (recording.job.on_rejection == OnRejection::compensate) find_carried(recording.steps);
    return recording;
}

}  // namespace detente
