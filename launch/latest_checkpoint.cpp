#include "launch/latest_checkpoint.h"

#include <fmt/core.h>

#include <filesystem>

#include "ps/checkpoint.h"

namespace detente {

namespace fs = std::filesystem;

namespace {

Result<FoundCheckpoint> open_one(const fs::path& directory) {
    const auto manifest = read_manifest(directory.string());
    if (manifest.has_error()) return manifest.error();
    return FoundCheckpoint{manifest->number, directory.string(), manifest->newest_incarnation};
}

}  // namespace

Result<FoundCheckpoint> find_checkpoint(const std::string& path) {
    std::error_code error;
    // What runs/latest points to, and not that name: the next run takes it.
    fs::path directory = fs::weakly_canonical(path, error);
    if (error) directory = fs::absolute(path, error).lexically_normal();
    if (!directory.has_filename()) directory = directory.parent_path();
    if (!fs::is_directory(directory, error)) {
        return fail(ErrorCode::bad_checkpoint,
                    fmt::format("{} is no directory: expected a run's or a checkpoint's", path));
    }
    if (fs::exists(directory / "manifest.json", error)) return open_one(directory);
    FoundCheckpoint newest;
    for (const fs::directory_entry& entry :
         fs::directory_iterator(directory / "checkpoints", error)) {
        if (!fs::exists(entry.path() / "manifest.json", error)) continue;
        const auto found = open_one(entry.path());
        if (found.has_error()) continue;  // an older complete one will do
        if (found->number > newest.number) newest = *found;
    }
    if (newest.number == 0) {
        return fail(
            ErrorCode::bad_checkpoint,
            fmt::format("{} has no complete checkpoint: looked for checkpoints/*/manifest.json",
                        directory.string()));
    }
    return newest;
}

}  // namespace detente
