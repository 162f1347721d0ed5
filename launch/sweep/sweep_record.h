// What a sweep is: a grid over keys of a job file, and what became of each of its cells.
// DIR/sweep.json keeps it; `detente report` reads it.
//
//   DIR/sweep.json   DIR/cells/<cell>/   one run directory per cell   DIR/cells/<cell>.log
//
// Thread: plain values; reading a file is the only effect.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/result.h"

namespace detente {

struct GridAxis {
    std::string key;                  // of the job file: "staleness.policy"
    std::vector<std::string> values;  // as TOML: "\"bsp\"", "4"
};

enum class CellState { waiting, done, failed };
const char* name_of(CellState state);

struct SweepCell {
    std::string name;  // its folder's; the same for the same settings and seed in any grid
    std::vector<std::pair<std::string, std::string>> settings;  // key, value as TOML
    std::uint64_t seed = 1;
    CellState state = CellState::waiting;
    int exit_code = 0;
    std::string error;  // where failed: its first
};

struct SweepRecord {
    std::string job;   // its name
    std::string verb;  // "simulate" | "run"
    std::vector<GridAxis> axes;
    std::vector<SweepCell> cells;  // settings by settings, seeds within
};

std::string sweep_file(const std::string& directory);
std::string cell_dir(const std::string& directory, const SweepCell& cell);
std::string cell_log(const std::string& directory, const SweepCell& cell);

// "policy bsp, workers 4": the last part of each key and the value as people write it.
std::string title_of(const SweepCell& cell);

std::string to_json(const SweepRecord& record);
// io: not there; bad_message: not what to_json() writes, naming file and member.
Result<SweepRecord> read_sweep(const std::string& directory);

}  // namespace detente
