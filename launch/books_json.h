// The books of updates as JSON, the same members wherever they stand: /status, summary.json,
// series.jsonl, reports.
#pragma once

#include <boost/json/object.hpp>

#include "common/books.h"

namespace detente {

// {"computed":…,"applied":…,"rejected":…,"cancelled":…,"lost":…,"in_flight":…}
boost::json::object json_of(const Books& books);

}  // namespace detente
