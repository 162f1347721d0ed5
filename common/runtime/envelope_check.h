// What is checked of a message's envelope before a node sees the message, whatever runtime brings
// it: that it comes from who the connection says, is meant for this node, and is of the same build
// and generation. Pure.
#pragma once

#include <cstdint>
#include <optional>

#include "common/ids.h"
#include "common/messages.h"
#include "common/result.h"

namespace detente {

struct Expected {
    NodeId from;
    std::optional<Incarnation> incarnation;  // where the connection states it
    NodeId to;
    Generation generation;
    std::uint64_t build = 0;
};

// Why the message is refused; nothing: it may be handed over.
std::optional<Error> check_envelope(const Expected& expected, const Message& message);

}  // namespace detente
