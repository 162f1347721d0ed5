#include "common/runtime/zmq/inspection.h"

#include <string>
#include <utility>

#include "common/codec/codec.h"

namespace detente {
namespace {

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

}  // namespace

Inspected inspect(const Expected& expected, const Payload& header, std::vector<Payload> payloads) {
    auto decoded = decode(header.bytes, std::move(payloads));
    if (!decoded) return {std::nullopt, decoded.error()};
    Inspected inspected;
    inspected.refused = check_envelope(expected, *decoded);
    inspected.message = std::move(*decoded);
    return inspected;
}

Refusal refusal_of(const Error& error, const std::optional<Message>& refused) {
    Refusal refusal;
    refusal.code = error.code;
    refusal.text = error.text;
    if (!refused) return refusal;
    std::visit(
        [&](const auto& body) {
            if constexpr (requires { refusal.step = body.step; }) refusal.step = body.step;
            if constexpr (requires { refusal.part = body.part; }) refusal.part = body.part;
            if constexpr (requires { refusal.request = body.request; }) {
                refusal.request = body.request;
            }
        },
        refused->body);
    return refusal;
}

}  // namespace detente
