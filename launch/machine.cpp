#include "launch/machine.h"

#include <fmt/format.h>

#include "common/conflict/gramian_kernels.h"

namespace detente {

std::string machine_description(std::uint32_t intra_op_threads, const std::string& versions) {
    return fmt::format("instruction set {}, {} intra-op thread{}{}{}", kernels::instruction_set(),
                       intra_op_threads, intra_op_threads == 1 ? "" : "s",
                       versions.empty() ? "" : ", ", versions);
}

}  // namespace detente
