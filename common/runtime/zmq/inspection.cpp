#include "common/runtime/zmq/inspection.h"

#include <utility>

#include "common/codec/codec.h"

namespace detente {

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
