// Runs another program to its end and collects what it printed. For short work: describing a model,
// asking a tool for its version. (A run's own processes live with the launcher.)
//
// Thread: blocks the caller, for at most the deadline.
#pragma once

#include <string>
#include <vector>

#include "common/ids.h"
#include "common/result.h"

namespace detente {

struct ChildOutput {
    int exit_code = 0;  // 128 + signal where one killed it
    int signal = 0;     // 0 = ended by itself
    std::string output;
    std::string errors;
};

// `command[0]` is looked up on PATH. The child reads `input`, and is killed when the deadline
// passes (timed_out) or this process dies. io: it cannot be started.
Result<ChildOutput> run_child(const std::vector<std::string>& command, const std::string& input,
                              Nanos deadline);

}  // namespace detente
