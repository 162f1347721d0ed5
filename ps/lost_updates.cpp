#include "ps/lost_updates.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "ps/ledger.h"

namespace detente {
namespace fs = std::filesystem;
namespace {

using AtCheckpoint = std::map<BlockId, std::pair<Epoch, Version>>;

// RUN/ledger of RUN/checkpoints/<n>, also where that is named through a link.
fs::path ledger_folder(const std::string& checkpoint) {
    std::error_code error;
    fs::path directory = fs::canonical(checkpoint, error);
    if (error) directory = checkpoint;
    return directory.parent_path().parent_path() / "ledger";
}

std::vector<std::string> ledgers_of(const fs::path& folder, ShardId shard) {
    const std::string prefix = fmt::format("shard-{}.", shard.value);
    std::vector<std::string> files;
    std::error_code error;
    for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
        const std::string name = at->path().filename().string();
        if (name.starts_with(prefix) && name.ends_with(".ledger")) files.push_back(at->path());
    }
    std::sort(files.begin(), files.end());
    return files;
}

// Nothing, if no block of the part was taken back.
void add(const VerdictRecord& record, const AtCheckpoint& kept, const std::string& reason,
         LostUpdates& lost) {
    LostRecord update{
        record.worker, record.incarnation, record.step, record.part, record.epoch, {}, {}, reason};
    for (const VerdictRecord::Row& row : record.rows) {
        if (row.verdict != Verdict::applied) continue;
        const auto block = kept.find(row.block);
        if (block == kept.end()) continue;
        if (std::pair(record.epoch, row.version) <= block->second) continue;
        update.blocks.push_back(row.block);
        update.versions.push_back(row.version);
    }
    if (!update.blocks.empty()) lost.updates.push_back(std::move(update));
}

Result<void> read_one(const std::string& path, Generation generation, const AtCheckpoint& kept,
                      const std::string& reason, LostUpdates& lost) {
    auto reader = LedgerReader::open(path);
    if (!reader) return reader.error();
    if (reader->origin().generation != generation) {
        return fail(ErrorCode::wrong_generation,
                    fmt::format("{} is of generation {}, the checkpoint of {}", path,
                                reader->origin().generation.value, generation.value));
    }
    LedgerEntry entry;
    while (true) {
        const Result<bool> more = reader->next(entry);
        if (!more) return more.error();
        if (!*more) return {};
        const auto* verdict = std::get_if<VerdictRecord>(&entry.record);
        if (verdict != nullptr) add(*verdict, kept, reason, lost);
    }
}

}  // namespace

std::size_t LostUpdates::blocks() const {
    std::size_t count = 0;
    for (const LostRecord& update : updates) count += update.blocks.size();
    return count;
}

LostUpdates find_lost_updates(const Checkpoint& checkpoint, ShardId shard) {
    LostUpdates lost;
    const AtCheckpoint kept = checkpoint.versions(shard);
    const fs::path folder = ledger_folder(checkpoint.directory());
    const std::vector<std::string> files = ledgers_of(folder, shard);
    if (files.empty()) {
        lost.gaps.push_back(fmt::format(
            "no ledger of shard {} in {}: updates applied after the checkpoint are lost, but "
            "cannot be listed",
            shard.value, folder.string()));
    }
    const std::string reason = fmt::format("applied after checkpoint {}, which was restored",
                                           checkpoint.manifest().number);
    for (const std::string& file : files) {
        const auto read = read_one(file, checkpoint.manifest().generation, kept, reason, lost);
        if (read.has_error()) {
            lost.gaps.push_back(read.error().text +
                                "; lost updates beyond that point are not listed");
        }
    }
    return lost;
}

}  // namespace detente
