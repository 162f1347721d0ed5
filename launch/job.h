// The job file: strict TOML in, a resolved Job out, and back. One table of keys (launch/job_keys.h)
// drives parsing, --set, --explain, the errors and the writing, so that none can forget a key.
//
// Errors are bad_job, one line per mistake: "FILE:LINE: KEY: what was expected, what was found".
// Thread: pure functions; read_job() also looks at the file system.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/config.h"
#include "common/result.h"

namespace detente {

// Parses and validates; `file` names the text in errors. Each override is "a.b=value" as after
// --set, with entries of repeated tables counted from 0 ("rule.for.0.learning_rate=0.01"). Looks at
// no file: model.library and data.dir stay as written. Also what a process does with the resolved
// text that the coordinator sends it.
Result<Job> parse_job(std::string_view text, const std::string& file,
                      const std::vector<std::string>& overrides = {});

// Reads and parses a job file, and resolves what it names: model.library to an absolute path that
// exists, data.dir to an absolute path (whether the data is there is the model's to say).
// `program_dir` is where the program lies, for libraries named without a path.
Result<Job> read_job(const std::string& path, const std::vector<std::string>& overrides,
                     const std::string& program_dir);

// The folder of the running program, for read_job().
std::string program_folder();

// The resolved job as TOML, every key written out. parse_job() of it gives the same Job.
std::string to_toml(const Job& job);
// The same, still valid TOML, with each key's meaning, unit, default and valid values as comments;
// repeated tables without an entry are shown as comments.
std::string explain(const Job& job);

}  // namespace detente
