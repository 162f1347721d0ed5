// What is checked of a message before a node sees it: that it decodes, comes from who the
// connection says, is meant for this node, and is of the same build and generation. Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/ids.h"
#include "common/messages.h"
#include "common/payload.h"
#include "common/result.h"

namespace detente {

struct Expected {
    NodeId from;
    std::optional<Incarnation> incarnation;  // where the connection states it
    NodeId to;
    Generation generation;
    std::uint64_t build = 0;
};

// `message` is present where the bytes decoded, also when the message is refused.
struct Inspected {
    std::optional<Message> message;
    std::optional<Error> refused;
};
Inspected inspect(const Expected& expected, const Payload& header, std::vector<Payload> payloads);

// The typed no to a refused message; carries its step, part and request where it has them.
Refusal refusal_of(const Error& error, const std::optional<Message>& refused);

}  // namespace detente
