// The folder of one run: what lies where. Plain paths; creating is the only effect.
//
//   RUN/job.toml            the resolved job          RUN/model.json        description
//   RUN/coordinator         control address, host:port, and the generation
//   RUN/http_address        host:port of /status, /metrics and /control
//   RUN/control_token       who can read it may POST to /control
//   RUN/<role>-<rank>.log   one per process           RUN/coordinator.log
//   RUN/ledger/             one file per shard/worker RUN/checkpoints/<n>/
//   RUN/best                symlink to the best evaluated checkpoint
//   RUN/series.jsonl        the run's course (launch/series.h)
//   RUN/summary.json        written at the end, failed runs too
#pragma once

#include <cstdint>
#include <string>

#include "common/ids.h"
#include "common/result.h"

namespace detente {

struct RunDirectory {
    std::string path;

    std::string job_file() const { return path + "/job.toml"; }
    std::string model_file() const { return path + "/model.json"; }
    std::string coordinator_file() const { return path + "/coordinator"; }
    std::string http_file() const { return path + "/http_address"; }
    std::string token_file() const { return path + "/control_token"; }
    std::string log_file(const std::string& label) const;  // "worker:2" → worker-2.log
    std::string ledger_dir() const { return path + "/ledger"; }
    std::string checkpoint_dir() const { return path + "/checkpoints"; }
    std::string series_file() const { return path + "/series.jsonl"; }
    std::string gaps_file() const { return path + "/staleness_gaps.json"; }
    std::string summary_file() const { return path + "/summary.json"; }
};

// Makes `out` (or, if empty, runs/<name>-<local time>, unused so far) with its sub-folders, and
// points the symlink `latest` beside it there. Refuses a folder that holds a run already. io, one
// error naming path, cause and remedy.
Result<RunDirectory> make_run_directory(const std::string& out, const std::string& name);

// Points RUN/best at a checkpoint.
void point_best_to(const RunDirectory& run, std::uint64_t number);

// Writes a small text file through a temporary one, so that a reader sees all of it or nothing.
Result<void> write_text(const std::string& path, const std::string& text, unsigned mode = 0644);

}  // namespace detente
