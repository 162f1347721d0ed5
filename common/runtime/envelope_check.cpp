#include "common/runtime/envelope_check.h"

#include <string>
#include <variant>

namespace detente {

std::optional<Error> check_envelope(const Expected& expected, const Message& message) {
    const Envelope& envelope = message.envelope;
    if (envelope.from != expected.from ||
        (expected.incarnation && envelope.incarnation != *expected.incarnation)) {
        return fail(ErrorCode::bad_message,
                    "the message says it is from " + to_string(envelope.from) +
                        ", its connection belongs to " + to_string(expected.from));
    }
    if (envelope.to != expected.to) {
        return fail(ErrorCode::bad_message, "the message is for " + to_string(envelope.to) +
                                                ", this is " + to_string(expected.to));
    }
    // A refusal is taken from any build or generation, and never answered: two peers that refuse
    // each other would go on for ever.
    if (std::holds_alternative<Refusal>(message.body)) return std::nullopt;
    if (envelope.build != expected.build) {
        return fail(ErrorCode::wrong_build, to_string(envelope.from) + " runs another build than " +
                                                to_string(expected.to) +
                                                ": install the same build on every host");
    }
    if (envelope.generation != expected.generation) {
        return fail(ErrorCode::wrong_generation,
                    to_string(envelope.from) + " speaks of generation " +
                        std::to_string(envelope.generation.value) + ", " + to_string(expected.to) +
                        " is of generation " + std::to_string(expected.generation.value) +
                        ": the message belongs to another job, or to before a restore");
    }
    return std::nullopt;
}

}  // namespace detente
