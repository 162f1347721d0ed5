#include "launch/role_ledger.h"

#include "common/build_id.h"
#include "launch/run_directory.h"

namespace detente {

Result<std::unique_ptr<LedgerWriter>> open_ledger(ZmqLoop& loop, const ControlClient& control,
                                                  const std::string& job,
                                                  const std::string& machine) {
    LedgerOrigin origin;
    origin.node = loop.endpoint().node;
    origin.incarnation = loop.endpoint().incarnation;
    origin.generation = control.generation();
    origin.job = job;
    origin.build = build_description();
    origin.machine = machine;
    auto ledger = LedgerWriter::create(RunDirectory{control.run_dir()}.ledger_dir() + "/" +
                                           ledger_file_name(origin.node, origin.incarnation),
                                       origin);
    if (ledger.has_value()) loop.attach(**ledger);
    return ledger;
}

}  // namespace detente
