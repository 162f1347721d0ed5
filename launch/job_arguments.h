// What every verb that reads a job takes. Apart from launch/cli.h, because CLI11 takes most of the
// time that its readers are compiled in.
#pragma once

#include <string>
#include <vector>

#include "common/config.h"
#include "common/result.h"

namespace detente {

// JOB [--set a.b=value]…
struct JobArguments {
    std::string job_file;
    std::vector<std::string> overrides;
};
Result<Job> read_job(const JobArguments& arguments);
// Prints "detente VERB: text" to the standard error and returns the error's exit code.
int report(const std::string& verb, const Error& error);

}  // namespace detente
