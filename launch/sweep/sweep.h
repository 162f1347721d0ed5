// Runs the cells of a sweep as processes of their own, some at a time, and goes on where an earlier
// call stopped: a cell whose run ended well is not run again, one that failed or was cut off is.
//
// Thread: the caller's, until everything has ended. Invariants: DIR belongs to one sweep at a time;
// when it returns, no process started here is left, and sweep.json says what became of each cell.
#pragma once

#include <cstdint>
#include <string>

#include "common/result.h"
#include "launch/exit_code.h"
#include "launch/sweep/grid.h"

namespace detente {

struct SweepOptions {
    GridWanted wanted;
    std::string directory;  // empty = sweeps/<name of the job>
    std::uint32_t at_once = 1;
};

// Prints a line per cell and a table at the end. The exit code is ok, or that of the first cell
// that failed, or of the signal that stopped it.
Result<ExitCode> run_sweep(const SweepOptions& options);

// How the command of one cell goes, after the program's name.
std::vector<std::string> arguments_of(const GridWanted& wanted, const SweepCell& cell,
                                      const std::string& run_dir);

}  // namespace detente
