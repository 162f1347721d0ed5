// A restart within a simulation. A worker's place is taken by another one while the run goes on. A
// lost server ends its run, as in reality; after a while the job
// is begun again from the newest complete checkpoint, as `detente run --resume` does: a new
// generation, shards of a new epoch, workers of a next incarnation, in a world where messages of
// the old ones are still on their way.
#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "common/random.h"
#include "launch/job.h"
#include "launch/latest_checkpoint.h"
#include "launch/simulation.h"
#include "launch/simulation_faults.h"
#include "ps/checkpoint_folder.h"
#include "ps/slice.h"

namespace detente {
namespace fs = std::filesystem;
namespace {

// Apart from the network's, which are keyed by a sender's role.
constexpr std::uint64_t kRestarts = 255;
constexpr Nanos kLatest = std::chrono::seconds(4);

// bit < 0: its second half is cut off.
void damage(const fs::path& file, std::int64_t bit) {
    std::error_code ignored;
    const auto bytes = static_cast<std::int64_t>(fs::file_size(file, ignored));
    if (ignored || bytes < 1) return;
    if (bit < 0) {
        fs::resize_file(file, static_cast<std::uintmax_t>(bytes / 2), ignored);
        return;
    }
    std::fstream stream(file, std::ios::binary | std::ios::in | std::ios::out);
    const std::int64_t at = bit / 8 % bytes;
    stream.seekg(at);
    const int byte = stream.get();
    stream.seekp(at);
    stream.put(static_cast<char>(byte ^ (1 << (bit % 8))));
}

}  // namespace

void Simulation::restart(const std::vector<NodeId>& nodes, const FaultConfig& fault,
                         const std::string& reason) {
    if (coordinator_ == nullptr) return;  // nothing runs
    for (const NodeId id : nodes) {
        if (!world_->alive(id)) continue;
        crash(id, reason);
        if (id.role == Role::worker) {
            world_->at(world_->now() + fault.lasts,
                       [this, id, generation = generation_] { join(id, generation); });
        } else {
            begins_again_after_ = fault.lasts;
        }
    }
}

// A coordinator has come to its end, and its run with it.
void Simulation::end_generation() {
    if (!begins_again_after_) return;
    const auto outcome = world_->outcome(kCoordinator);
    if (!outcome || !outcome->failed || broken_) {
        begins_again_after_.reset();
        return;
    }
    world_->at(world_->now() + *begins_again_after_, [this] { begin_again(); });
}

void Simulation::begin_again() {
    begins_again_after_.reset();
    for (const ProcessView& process : last_view_->processes) world_->crash(process.node);
    world_->crash(kMerger);
    world_->crash(kEvaluator);
    computers_.clear();
    flush_ledgers();
    ledgers_.clear();
    const auto listed = list_checkpoints(run_.path);
    const std::size_t complete = listed.has_error() ? 0 : listed->complete.size();
    const auto lost = static_cast<std::size_t>(std::count_if(
        spoiled_.begin(), spoiled_.end(),
        [](const FaultConfig& fault) { return fault.kind == FaultKind::lost_manifest; }));
    const bool none = lost >= complete && (complete > 0 || last_view_->checkpoints.empty());
    const std::optional<std::string> damaged = spoil_checkpoints();
    const auto begun = go_on_from(run_.path);
    if (begun.has_error()) {
        restarts_.refused = begun.error();
        restarts_.expected = damaged.has_value() || none;
        return;
    }
    ++restarts_.done;
    if (damaged && !broken_) {
        broken_ = fail(ErrorCode::internal,
                       fmt::format("a run goes on from {}, which was damaged", *damaged));
    }
}

Result<void> Simulation::go_on_from(const std::string& path) {
    auto point = resume_point(path, *plan_, setup_.engines->description());
    if (point.has_error()) return point.error();
    point_ = std::move(*point);
    joined_.clear();
    if (auto made = next_directory(); made.has_error()) return made;
    generation_ = next(std::max(generation_, point_.generation));
    world_->begin_generation(generation_);
    if (protocol_) protocol_->resumed(point_.number);
    impose_staleness();
    checkpoints_seen_ = 0;
    best_seen_.reset();
    if (auto added = add_nodes(); added.has_error()) return added;
    write_log(kCoordinator, world_->now(), LogLevel::information,
              "begun again from " + point_.directory);
    send_late();
    return {};
}

// A run keeps one generation: the next one's is a directory within the first's.
Result<void> Simulation::next_directory() {
    auto made = make_run_directory(
        fmt::format("{}/restart-{}", setup_.run.path, restarts_.done + 1), job_->name);
    if (made.has_error()) return made.error();
    run_ = std::move(*made);
    if (auto written = write_text(run_.job_file(), to_toml(*job_)); written.has_error()) {
        return written;
    }
    return write_text(run_.model_file(), to_json(setup_.engines->description()) + "\n");
}

// The folder of the newest checkpoint, where one of its slices was damaged.
std::optional<std::string> Simulation::spoil_checkpoints() {
    std::optional<std::string> damaged;
    std::stable_partition(spoiled_.begin(), spoiled_.end(), [](const FaultConfig& fault) {
        return fault.kind == FaultKind::lost_manifest;
    });
    std::uint64_t count = 0;
    for (const FaultConfig& fault : std::exchange(spoiled_, {})) {
        const auto newest = find_checkpoint(run_.path);
        if (newest.has_error()) break;
        const fs::path folder = newest->directory;
        std::error_code ignored;
        if (fault.kind == FaultKind::lost_manifest) {
            fs::rename(folder / "manifest.json", folder / "manifest.json.partial", ignored);
            continue;
        }
        for (const NodeId id : *nodes_named(fault.node, *job_)) {
            const std::uint64_t drawn =
                random_key(job_->seed, Purpose::network, {kRestarts, 0, ++count}) >> 1U;
            damage(folder / slice_file_name(ShardId{id.index}),
                   fault.kind == FaultKind::torn_slice ? -1 : static_cast<std::int64_t>(drawn));
        }
        damaged = newest->directory;
    }
    return damaged;
}

// What was last said in the generation before is heard in this one.
void Simulation::send_late() {
    std::uint64_t count = 0;
    for (Message& message : late_.take()) {
        Random random(random_key(job_->seed, Purpose::network,
                                 {kRestarts, 1 + std::uint64_t{restarts_.done}, ++count}));
        const double share = random.uniform();
        world_->arrive_late(std::move(message),
                            world_->now() + Nanos(static_cast<std::int64_t>(
                                                share * static_cast<double>(kLatest.count()))));
    }
}

void Simulation::flush_ledgers() {
    for (auto& [node, writer] : ledgers_) {
        if (writer == nullptr) continue;
        if (auto flushed = writer->flush(); flushed.has_error() && !broken_) {
            broken_ = flushed.error();
        }
    }
}

// Of a node that has come to an orderly end: credit, spares, or what it remembers of workers.
std::optional<std::string> Simulation::kept_by(NodeId id, Node& node) const {
    const auto outcome = world_->outcome(id);
    if (!outcome || outcome->failed) return std::nullopt;
    if (id.role == Role::worker) {
        const std::uint64_t bytes = dynamic_cast<const Worker&>(node).credit_in_use();
        if (bytes == 0) return std::nullopt;
        return fmt::format("{} bytes of credit not returned", bytes);
    }
    if (id.role != Role::shard) return std::nullopt;
    Shard& shard = dynamic_cast<Shard&>(node);
    if (!shard.drained()) return std::nullopt;
    if (auto left = shard.leftover()) return *left;
    BlockStore& store = shard.store();
    store.reclaim();
    const std::uint64_t lent = store.lent_bytes();
    if (store.idle_bytes() + lent != store.spare_bytes()) {
        return fmt::format("{} bytes of spares, of which {} are idle and {} lent",
                           store.spare_bytes(), store.idle_bytes(), lent);
    }
    if (lent == 0 || world_->underway(id) > 0) return std::nullopt;
    return fmt::format("{} bytes lent, and nothing underway that holds them", lent);
}

SimulatedRestarts Simulation::restarts() const {
    SimulatedRestarts told = restarts_;
    told.older_messages = world_->traffic().older;
    return told;
}

}  // namespace detente
