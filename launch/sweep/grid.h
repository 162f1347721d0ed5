// From --grid KEY=[VALUE, …] and --seeds to the cells of a sweep, every one checked against the job
// file before anything is started.
//
// Thread: pure functions, but for reading the job file.
#pragma once

#include <string>
#include <vector>

#include "common/config.h"
#include "common/result.h"
#include "launch/sweep/sweep_record.h"

namespace detente {

struct GridWanted {
    std::string job_file;
    std::vector<std::string> overrides;  // --set, of every cell
    std::vector<std::string> grid;       // --grid
    std::uint32_t seeds = 1;             // the job's seed, and the next ones
    std::string verb = "simulate";
};

inline constexpr std::size_t kMostCells = 4096;

// bad_job: no KEY=[…], a key the job does not have (the nearest named), values that do not go
// together, the same key twice, more than kMostCells.
Result<SweepRecord> plan_sweep(const GridWanted& wanted, const std::string& program_dir);

// The --set of one cell, seed included.
std::vector<std::string> overrides_of(const GridWanted& wanted, const SweepCell& cell);
// What the cell's run directory will hold as its resolved job.
Result<Job> job_of(const GridWanted& wanted, const SweepCell& cell, const std::string& program_dir);

}  // namespace detente
