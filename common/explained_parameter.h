// A parameter of a policy or a method, as people and job files see it.
#pragma once

#include <string>

namespace detente {

struct ExplainedParameter {
    std::string name;      // in job files
    std::string meaning;   // with its range and default
    std::string standard;  // what a job that does not name it means, as text
};

}  // namespace detente
