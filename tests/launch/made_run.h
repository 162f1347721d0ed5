// A run directory as a run leaves it, made in a moment by the writers of real runs.
#pragma once

#include <string>

namespace detente::test {

// The name of the job and of its first task.
inline constexpr const char* kHostile = "<script>alert(1)</script>&\"'";

// Two workers, two shards whose clocks differ by a second, tasks kHostile and "b", three steps of
// each worker in the ledgers, of which the second was rejected. `share_right` is the accuracy on
// the first task; the other's is 0.5.
void write_run(const std::string& path, double share_right = 0.75);

}  // namespace detente::test
