// What is checked of a message's bytes before a node sees it: that they decode, and the envelope
// (common/runtime/envelope_check.h). Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/ids.h"
#include "common/messages.h"
#include "common/payload.h"
#include "common/result.h"
#include "common/runtime/envelope_check.h"

namespace detente {

// `message` is present where the bytes decoded, also when the message is refused.
struct Inspected {
    std::optional<Message> message;
    std::optional<Error> refused;
};
Inspected inspect(const Expected& expected, const Payload& header, std::vector<Payload> payloads);

// The typed no to a refused message; carries its step, part and request where it has them.
Refusal refusal_of(const Error& error, const std::optional<Message>& refused);

}  // namespace detente
