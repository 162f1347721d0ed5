// Which ledgers lie in a folder (RUN/ledger), by whose they are.
//
// Thread: pure reading.
#pragma once

#include <string>
#include <vector>

#include "common/ids.h"
#include "common/result.h"

namespace detente {

// Paths of the ledgers of all nodes of a role, sorted as texts: a rank is in the origin, not in the
// order. io: no such folder.
Result<std::vector<std::string>> ledger_files(const std::string& folder, Role role);

}  // namespace detente
