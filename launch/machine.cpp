#include "launch/machine.h"

#include <fmt/format.h>
#include <unistd.h>

#include "common/conflict/gramian_kernels.h"

namespace detente {

std::string machine_description(std::uint32_t intra_op_threads, const std::string& versions) {
    return fmt::format("instruction set {}, {} intra-op thread{}{}{}", kernels::instruction_set(),
                       intra_op_threads, intra_op_threads == 1 ? "" : "s",
                       versions.empty() ? "" : ", ", versions);
}

std::uint64_t memory_of_this_machine() {
    return static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
           static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace detente
