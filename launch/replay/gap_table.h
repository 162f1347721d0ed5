// What a replay measured per staleness, for people and as JSON.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <map>
#include <string>

#include "launch/replay/replay.h"

namespace detente {

std::string gap_table(const std::map<std::uint64_t, StalenessGap>& gaps);
// [{"staleness": 2, "gradients": 120, "gap": …, "cosine": …}, …]: means.
boost::json::array gaps_json(const std::map<std::uint64_t, StalenessGap>& gaps);

}  // namespace detente
