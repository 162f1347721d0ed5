// What no single value shows: whether a job's values go together.
#pragma once

#include <string>
#include <vector>

#include "common/config.h"

namespace detente {

struct JobProblem {
    std::string path;      // the key to blame, entries numbered: "rule.for.0.momentum"
    std::string sentence;  // the rest of a sentence that starts with it
};
// Nothing wrong: empty.
std::vector<JobProblem> check_job(const Job& job);

}  // namespace detente
