// The backends under test, each with its way to run members.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/collectives/members.h"

namespace detente::testing {

struct Kind {
    std::string name;
    std::string left_out;  // why it cannot be tested here; empty: it can
    // The same bits on every run, in whatever order members arrive.
    bool has_fixed_bits = false;
    // Others go on after a member's death (an MPI launcher ends them all).
    bool outlives_death = true;
    std::function<Reports(const std::string& scenario, std::size_t count)> run;
};
// What to run in every test of the contract. Says once, on standard output, what is left out.
const std::vector<Kind>& kinds();

Kind local_kind();
Kind shared_memory_kind();
// Different from any other test's and any other process's.
std::string unique_run();

}  // namespace detente::testing
