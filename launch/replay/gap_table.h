// What a replay measured per staleness, for people and as JSON.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <map>
#include <string>

#include "common/result.h"
#include "launch/replay/replay.h"
#include "launch/run_directory.h"

namespace detente {

std::string gap_table(const std::map<std::uint64_t, StalenessGap>& gaps);
// [{"staleness": 2, "gradients": 120, "gap": …, "cosine": …}, …]: means.
boost::json::array gaps_json(const std::map<std::uint64_t, StalenessGap>& gaps);
// Replays the run for its gaps and puts them into RUN/staleness_gaps.json, for reports.
Result<std::map<std::uint64_t, StalenessGap>> measure_gaps(const RunDirectory& run,
                                                           const Plan& plan,
                                                           std::shared_ptr<EnginePool> engines);
Result<void> write_gaps(const RunDirectory& run, const std::map<std::uint64_t, StalenessGap>& gaps);

}  // namespace detente
