#include "common/ids.h"

namespace detente {

const char* name_of(Role role) {
    switch (role) {
        case Role::coordinator:
            return "coordinator";
        case Role::shard:
            return "shard";
        case Role::worker:
            return "worker";
        case Role::evaluator:
            return "evaluator";
    }
    return "unknown role";
}

std::string to_string(NodeId id) {
    if (id == kCoordinator) return "coordinator";
    return std::string(name_of(id.role)) + ":" + std::to_string(id.index);
}

}  // namespace detente
