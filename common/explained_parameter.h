// A parameter of a policy or a method, as people and job files see it.
#pragma once

#include <string>

namespace detente {

struct ExplainedParameter {
    std::string name;      // in job files
    std::string meaning;   // with its range and default
    std::string standard;  // what a job that does not name it means, as text
    // Of a conflict method: may list a value per task, separated by ','; or, separated by ';', a
    // list per task of other tasks' numbers.
    bool per_task = false;
};

}  // namespace detente
