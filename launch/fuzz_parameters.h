// A policy's parameters as a case of `detente fuzz` draws them: within each one's range, small more
// often than large (bounds of 0 and 1 are where protocols break), and never so that training
// diverges. Each parameter is a function of its own key. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "common/staleness/parameters.h"
#include "launch/job_keys.h"

namespace detente {

// As a job file would have it: a value that Parameters::parse accepts.
std::string drawn_value(const ParameterSpec& spec, std::uint64_t key);

// All parameters of this policy, in a part of a case (fuzz_case.h).
ParameterList drawn_parameters(const std::string& policy, std::uint64_t seed, std::uint64_t part);

}  // namespace detente
