#include "common/runtime/zmq/outbox.h"

#include <utility>

namespace detente {

Outgoing outgoing_of(Frames frames, Time now) {
    Outgoing outgoing{std::move(frames), 0, now};
    outgoing.bytes = outgoing.frames.header.size();
    for (const Payload& payload : outgoing.frames.payloads) outgoing.bytes += payload.size();
    return outgoing;
}

bool Outbox::put(Outgoing message) {
    if (messages_.size() >= kMostMessages || bytes_ + message.bytes > kMostBytes) return false;
    bytes_ += message.bytes;
    messages_.push_back(std::move(message));
    return true;
}

void Outbox::pop() {
    bytes_ -= messages_.front().bytes;
    messages_.pop_front();
}

}  // namespace detente
