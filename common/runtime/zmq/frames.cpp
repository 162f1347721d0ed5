#include "common/runtime/zmq/frames.h"

#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "common/invariant.h"
#include "common/runtime/zmq/tsan.h"

namespace detente {
namespace {

struct ReceivedFrame {
    zmq_msg_t message;
    ReceivedFrame() { zmq_msg_init(&message); }
    ~ReceivedFrame() { zmq_msg_close(&message); }
    ReceivedFrame(const ReceivedFrame&) = delete;
    ReceivedFrame& operator=(const ReceivedFrame&) = delete;
};

}  // namespace

SentFrames::~SentFrames() {
    drain();
    invariant(lent_ == 0, "every lent frame came back before its stack is destroyed");
    while (spare_ != nullptr) delete std::exchange(spare_, spare_->next);
}

void SentFrames::fill(zmq_msg_t& out, const Payload& payload) {
    if (payload.size() < kCopiedFrameBytes) {
        if (zmq_msg_init_size(&out, payload.size()) != 0) throw std::bad_alloc();
        if (!payload.empty()) {
            std::memcpy(zmq_msg_data(&out), payload.bytes.data(), payload.size());
        }
        return;
    }
    SentFrame* frame = spare_ != nullptr ? std::exchange(spare_, spare_->next) : new SentFrame;
    frame->payload = payload;
    frame->home = this;
    ++lent_;
    tsan_gives(frame);
    // libzmq takes a void*; it only reads what it sends.
    auto* bytes = const_cast<std::byte*>(payload.bytes.data());
    if (zmq_msg_init_data(&out, bytes, payload.size(), &SentFrames::returned, frame) != 0) {
        throw std::bad_alloc();
    }
}

void SentFrames::returned(void*, void* hint) {
    auto* frame = static_cast<SentFrame*>(hint);
    tsan_takes(frame);
    SentFrames* home = frame->home;
    home->returned_.push(frame);
    if (home->wakes_) home->wakeup_.notify();
}

std::size_t SentFrames::drain() {
    std::size_t count = 0;
    for (SentFrame* frame = returned_.take_all(); frame != nullptr; ++count) {
        SentFrame* following = frame->next;
        frame->payload = {};
        frame->next = spare_;
        spare_ = frame;
        frame = following;
    }
    lent_ -= count;
    return count;
}

Payload payload_of_received(zmq_msg_t& message) {
    auto frame = std::make_shared<ReceivedFrame>();
    zmq_msg_move(&frame->message, &message);
    const auto* bytes = static_cast<const std::byte*>(zmq_msg_data(&frame->message));
    const std::size_t size = zmq_msg_size(&frame->message);
    tsan_takes(const_cast<std::byte*>(bytes));
    return {std::move(frame), {bytes, size}};
}

}  // namespace detente
