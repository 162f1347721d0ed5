#include "common/runtime/zmq/wakeup.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>

#include "common/invariant.h"

namespace detente {

Wakeup::Wakeup() : descriptor_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    invariant(descriptor_ >= 0, "the process may open one more file descriptor (ulimit -n)");
}

Wakeup::~Wakeup() { ::close(descriptor_); }

void Wakeup::notify() {
    if (!sleeping_.exchange(false)) return;
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(descriptor_, &one, sizeof one);
}

void Wakeup::done(bool readable) {
    sleeping_.store(false);
    if (!readable) return;
    std::uint64_t count = 0;
    [[maybe_unused]] const auto got = ::read(descriptor_, &count, sizeof count);
}

}  // namespace detente
