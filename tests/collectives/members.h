// Ways to run a scenario in every member of a group: threads of this process, forked processes, or
// ranks started by a launcher.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/collectives/scenarios.h"

namespace detente::testing {

// What a member said, line by line; a member that died said "died", however it went.
using Reports = std::vector<Lines>;
using MakeBackend = std::function<std::unique_ptr<CollectiveBackend>()>;

// Called with all that was said so far, whenever there is more; may kill a process.
struct ProcessView {
    std::vector<int> pids;
    std::vector<Lines> said;
};
using Watch = std::function<void(ProcessView&)>;

// Runs it on threads. A member that dies ends its thread.
Reports run_on_threads(const MakeBackend& make, const std::string& scenario, std::size_t count);
// In forked processes; one that dies gets SIGKILL. Those that do not end in a minute are killed,
// and say so.
Reports run_in_processes(const MakeBackend& make, const std::string& scenario, std::size_t count,
                         const Watch& watch = {});
// Which member a forked process is, from 0.
inline constexpr const char* kMemberVariable = "DETENTE_TEST_MEMBER";
// A forked process's body, to run anything else: its lines, read to the end.
Reports fork_members(
    const std::function<Lines(std::size_t, const std::function<void(const std::string&)>& say)>&
        body,
    std::size_t count, const Watch& watch = {});
// One scenario in one member, exceptions as lines.
Lines run_member(Member& member, const std::string& scenario);

}  // namespace detente::testing
