// The program's exit codes. They are stable: scripts and schedulers may test them.
#pragma once

#include "common/result.h"

namespace detente {

enum class ExitCode : int {
    ok = 0,
    bug = 1,             // an internal error: please report
    usage = 2,           // command line, job file or --set; nothing was trained
    model = 3,           // the model library, its dataset, or NaN or Inf in what it computed
    process_lost = 4,    // a process the job cannot do without died or fell silent
    deadline = 5,        // a wait ended without what it waited for; the text names who is missing
    books = 6,           // computed ≠ applied + rejected + cancelled + lost + in flight
    io = 7,              // disk or network: missing, unwritable, full, port taken
    checkpoint = 8,      // a checkpoint that is incomplete, altered, or of another model
    build_mismatch = 9,  // processes of different builds
    invariant = 10,      // fuzz: something that must always hold did not; replay: it differs
    interrupted = 130,   // Ctrl-C: ended in order, checkpoint written
    terminated = 143,    // SIGTERM: the same
};

// What a verb that failed with this error returns.
ExitCode exit_code_of(ErrorCode code);
// One line for the README's table and for `detente --help`.
const char* meaning_of(ExitCode code);
constexpr int value_of(ExitCode code) { return static_cast<int>(code); }

}  // namespace detente
