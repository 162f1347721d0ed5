#include "tests/contracts/runtime_under_test.h"

namespace detente::testing {

const std::vector<RuntimeKind>& runtimes() {
    static const std::vector<RuntimeKind> all{simulated(), zmq_over_tcp(), zmq_over_ipc()};
    return all;
}

}  // namespace detente::testing
