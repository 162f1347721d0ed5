#include "launch/rendezvous.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "common/file.h"

namespace detente {
namespace {

namespace fs = std::filesystem;

Error cannot_write(const std::string& file, int why) {
    return fail(ErrorCode::io,
                fmt::format("cannot write {}, through which ranks find rank 0: {}; choose another "
                            "folder with --out DIR, or set DETENTE_COORDINATOR=host:port",
                            file, std::strerror(why)));
}

Error held_by_another(const std::string& file) {
    const auto text = read_text(file, 4096);
    const std::string address = text ? text->substr(0, text->find('\n')) : "";
    return fail(
        ErrorCode::io,
        fmt::format("another launch of this job holds {} ({}): its ranks and this launch's would "
                    "find each other. Give each launch its own --out DIR or DETENTE_LAUNCH_KEY, or "
                    "wait for its end",
                    file, address.empty() ? "it is starting" : "its rank 0 listens on " + address));
}

// A rank 0 that ended may have removed the file between our opening and our locking it.
bool still_there(int descriptor, const std::string& file) {
    struct stat ours {};
    struct stat there {};
    return ::fstat(descriptor, &ours) == 0 && ::stat(file.c_str(), &there) == 0 &&
           ours.st_ino == there.st_ino && ours.st_dev == there.st_dev;
}

}  // namespace

Result<Rendezvous> Rendezvous::hold(const std::string& file) {
    std::error_code ignored;  // opening tells
    if (fs::path(file).has_parent_path()) {
        fs::create_directories(fs::path(file).parent_path(), ignored);
    }
    while (true) {
        const int descriptor = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (descriptor < 0) return cannot_write(file, errno);
        Rendezvous held(file, descriptor);
        if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
            // A file system without locks cannot tell launches apart; ranks still find each other.
            const bool held_elsewhere = errno == EWOULDBLOCK;
            if (held_elsewhere) {
                ::close(std::exchange(held.held_, -1));  // not ours to remove
                return held_by_another(file);
            }
        } else if (!still_there(descriptor, file)) {
            ::close(std::exchange(held.held_, -1));
            continue;
        }
        if (::ftruncate(descriptor, 0) != 0) return cannot_write(file, errno);
        return held;
    }
}

Rendezvous::Rendezvous(Rendezvous&& other) noexcept
    : file_(std::move(other.file_)), held_(std::exchange(other.held_, -1)) {}

Rendezvous::~Rendezvous() {
    if (held_ < 0) return;
    ::unlink(file_.c_str());
    ::close(held_);
}

Result<void> Rendezvous::announce(const std::string& address) {
    const std::string line = address + "\n";
    // One small write: a reader sees all of it or nothing, and tries again until it connects.
    if (::pwrite(held_, line.data(), line.size(), 0) != static_cast<ssize_t>(line.size())) {
        return cannot_write(file_, errno);
    }
    return {};
}

}  // namespace detente
