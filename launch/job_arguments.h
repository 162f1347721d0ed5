// What every verb that reads a job takes. Apart from launch/cli.h, whose library of command lines
// takes its readers ten seconds to compile.
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
