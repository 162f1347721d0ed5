#include "launch/run_directory.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <filesystem>

#include "common/file.h"

namespace detente {

namespace fs = std::filesystem;

std::string RunDirectory::log_file(const std::string& label) const {
    std::string name = label;
    std::replace(name.begin(), name.end(), ':', '-');
    return path + "/" + name + ".log";
}

namespace {

Error cannot_make(const fs::path& path, const std::error_code& why) {
    return fail(ErrorCode::io,
                fmt::format("cannot make the run directory {}: {}; choose another with --out DIR",
                            path.string(), why.message()));
}

// Made here, since of two runs that start in one second only one makes it.
Result<fs::path> make_unused(const std::string& name) {
    const std::time_t now = std::time(nullptr);
    const fs::path base =
        fs::path("runs") / fmt::format("{}-{:%Y%m%d-%H%M%S}", name, fmt::localtime(now));
    std::error_code error;
    fs::create_directories(base.parent_path(), error);
    if (error) return cannot_make(base, error);
    fs::path path = base;
    for (int i = 2; !fs::create_directory(path, error); ++i) {
        if (error) return cannot_make(path, error);
        path = base.string() + "-" + std::to_string(i);
    }
    return path;
}

// A symlink is replaced by rename, so that two runs started at once leave one of the two.
void point_latest_to(const fs::path& run) {
    std::error_code ignored;
    const fs::path link = run.parent_path() / "latest";
    const fs::path fresh = run.parent_path() / fmt::format(".latest-{}", ::getpid());
    if (fs::exists(fs::symlink_status(link, ignored)) && !fs::is_symlink(link, ignored)) return;
    fs::remove(fresh, ignored);
    std::error_code failed;
    fs::create_directory_symlink(run.filename(), fresh, failed);
    if (!failed) fs::rename(fresh, link, ignored);
}

}  // namespace

Result<RunDirectory> make_run_directory(const std::string& out, const std::string& name) {
    fs::path path = out;
    std::error_code error;
    if (out.empty()) {
        const auto unused = make_unused(name);
        if (unused.has_error()) return unused.error();
        path = *unused;
    }
    path = fs::absolute(path, error).lexically_normal();
    if (!path.has_filename()) path = path.parent_path();
    if (fs::exists(path / "job.toml", error)) {
        return fail(ErrorCode::io,
                    fmt::format("{} holds a run already: choose another --out, or delete it; to go "
                                "on from it use --resume {}",
                                path.string(), path.string()));
    }
    for (const fs::path& dir : {path, path / "ledger", path / "checkpoints"}) {
        fs::create_directories(dir, error);
        if (error) return cannot_make(dir, error);
    }
    if (::access(path.c_str(), W_OK | X_OK) != 0) {
        return cannot_make(path, std::error_code(errno, std::generic_category()));
    }
    point_latest_to(path);
    return RunDirectory{path.string()};
}

void point_best_to(const RunDirectory& run, std::uint64_t number) {
    std::error_code ignored;
    const fs::path link = run.path + "/best";
    const fs::path fresh = run.path + "/.best";
    fs::remove(fresh, ignored);
    fs::create_directory_symlink("checkpoints/" + std::to_string(number), fresh, ignored);
    fs::rename(fresh, link, ignored);
}

Result<void> write_text(const std::string& path, const std::string& text, unsigned mode) {
    const std::string partial = path + ".partial";
    const auto refuse = [&](int why) {
        ::unlink(partial.c_str());
        return io_error("write", path, why);
    };
    // Made anew: a file or link that is there already would keep its owner and mode.
    ::unlink(partial.c_str());
    const int file =
        ::open(partial.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (file < 0) return refuse(errno);
    std::size_t written = 0;
    while (written < text.size()) {
        const ssize_t count = ::write(file, text.data() + written, text.size() - written);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) {
            const int why = errno;
            ::close(file);
            return refuse(why);
        }
        written += static_cast<std::size_t>(count);
    }
    if (::close(file) != 0) return refuse(errno);
    if (::rename(partial.c_str(), path.c_str()) != 0) return refuse(errno);
    return {};
}

}  // namespace detente
