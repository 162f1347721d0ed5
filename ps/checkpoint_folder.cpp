#include "ps/checkpoint_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <system_error>

namespace detente {
namespace fs = std::filesystem;
namespace {

fs::path folder_of(const std::string& run_directory) {
    return fs::path(run_directory) / "checkpoints";
}

Error failed(const std::string& doing, const fs::path& path, const std::error_code& error) {
    return fail(ErrorCode::io,
                fmt::format("cannot {} {}: {}", doing, path.string(), error.message()));
}

std::optional<std::uint64_t> number_of(const std::string& name) {
    std::uint64_t number = 0;
    const char* end = name.data() + name.size();
    const auto [stopped, error] = std::from_chars(name.data(), end, number);
    if (error != std::errc() || stopped != end || name.empty()) return std::nullopt;
    return number;
}

bool is_complete(const fs::path& directory) {
    std::error_code ignored;
    return fs::exists(directory / "manifest.json", ignored);
}

}  // namespace

std::string checkpoint_directory(const std::string& run_directory, std::uint64_t number) {
    return (folder_of(run_directory) / std::to_string(number)).string();
}

Result<CheckpointNumbers> list_checkpoints(const std::string& run_directory) {
    CheckpointNumbers numbers;
    const fs::path folder = folder_of(run_directory);
    std::error_code error;
    if (!fs::exists(folder, error)) return numbers;
    fs::directory_iterator at(folder, error);
    for (; !error && at != fs::directory_iterator(); at.increment(error)) {
        const auto number = number_of(at->path().filename().string());
        if (!number) continue;
        (is_complete(at->path()) ? numbers.complete : numbers.incomplete).push_back(*number);
    }
    if (error) return failed("list", folder, error);
    std::sort(numbers.complete.begin(), numbers.complete.end());
    std::sort(numbers.incomplete.begin(), numbers.incomplete.end());
    return numbers;
}

Result<std::string> latest_checkpoint(const std::string& run_directory) {
    const Result<CheckpointNumbers> numbers = list_checkpoints(run_directory);
    if (numbers.has_error()) return numbers.error();
    if (!numbers->complete.empty()) {
        return checkpoint_directory(run_directory, numbers->complete.back());
    }
    const std::string found =
        numbers->incomplete.empty()
            ? "found none"
            : fmt::format("found only incomplete ones without a manifest.json ({})",
                          fmt::join(numbers->incomplete, ", "));
    return fail(ErrorCode::bad_checkpoint,
                fmt::format("expected a complete checkpoint in {}, {}; start the job anew",
                            folder_of(run_directory).string(), found));
}

Result<void> mark_best(const std::string& run_directory, std::uint64_t number) {
    const fs::path link = folder_of(run_directory) / "best";
    const fs::path fresh = folder_of(run_directory) / "best.partial";
    std::error_code error;
    fs::remove(fresh, error);
    fs::create_directory_symlink(std::to_string(number), fresh, error);
    if (error) return failed("link", fresh, error);
    fs::rename(fresh, link, error);
    if (error) return failed("rename the link to", link, error);
    return {};
}

std::optional<std::uint64_t> best_checkpoint(const std::string& run_directory) {
    std::error_code error;
    const fs::path target = fs::read_symlink(folder_of(run_directory) / "best", error);
    if (error) return std::nullopt;
    return number_of(target.filename().string());
}

Result<std::vector<std::uint64_t>> prune_checkpoints(const std::string& run_directory,
                                                     std::size_t kept) {
    const Result<CheckpointNumbers> numbers = list_checkpoints(run_directory);
    if (numbers.has_error()) return numbers.error();
    std::vector<std::uint64_t> removed;
    const std::vector<std::uint64_t>& complete = numbers->complete;
    const std::optional<std::uint64_t> best = best_checkpoint(run_directory);
    for (std::size_t i = 0; i + kept < complete.size(); ++i) {
        if (complete[i] != best) removed.push_back(complete[i]);
    }
    for (const std::uint64_t number : numbers->incomplete) {
        if (!complete.empty() && number < complete.back()) removed.push_back(number);
    }
    std::sort(removed.begin(), removed.end());
    for (const std::uint64_t number : removed) {
        const fs::path directory = checkpoint_directory(run_directory, number);
        std::error_code error;
        fs::remove(directory / "manifest.json", error);
        if (!error) fs::remove_all(directory, error);
        if (error) return failed("remove", directory, error);
    }
    return removed;
}

}  // namespace detente
