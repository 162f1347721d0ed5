// The ledger file of one node of a process, with who and on what it was.
#pragma once

#include <memory>
#include <string>

#include "common/runtime/zmq/loop.h"
#include "launch/control_client.h"
#include "ps/ledger.h"

namespace detente {

// RUN/ledger/<role>-<rank>.<incarnation>.ledger, attached to the node's loop. `machine`: what the
// bits of its computations depend on (machine_description()). Requires: before the loop runs.
Result<std::unique_ptr<LedgerWriter>> open_ledger(ZmqLoop& loop, const ControlClient& control,
                                                  const std::string& job,
                                                  const std::string& machine);

}  // namespace detente
