// A peer that says what no loop of ours would.
#pragma once

#include <zmq.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/codec/codec.h"

namespace detente::testing {

// A plain libzmq dealer, to say what no loop of ours would.
class RawDealer {
  public:
    RawDealer(const std::string& address, const std::string& routing_id)
        : context_(zmq_ctx_new()), socket_(zmq_socket(context_, ZMQ_DEALER)) {
        const int linger_ms = 0;
        const int wait_ms = 20000;
        zmq_setsockopt(socket_, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
        zmq_setsockopt(socket_, ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms);
        if (!routing_id.empty()) {
            zmq_setsockopt(socket_, ZMQ_ROUTING_ID, routing_id.data(), routing_id.size());
        }
        zmq_connect(socket_, address.c_str());
    }
    ~RawDealer() {
        zmq_close(socket_);
        zmq_ctx_term(context_);
    }
    RawDealer(const RawDealer&) = delete;
    RawDealer& operator=(const RawDealer&) = delete;

    void send(const std::vector<std::string>& frames) {
        for (std::size_t i = 0; i < frames.size(); ++i) {
            zmq_send(socket_, frames[i].data(), frames[i].size(),
                     i + 1 < frames.size() ? ZMQ_SNDMORE : 0);
        }
    }
    void send(const Message& message) {
        const Frames frames = encode(message, true);
        std::vector<std::string> texts;
        texts.push_back(text_of(frames.header));
        for (const Payload& payload : frames.payloads) texts.push_back(text_of(payload));
        send(texts);
    }
    std::optional<Message> receive() {
        std::vector<Payload> frames;
        int more = 1;
        while (more != 0) {
            zmq_msg_t frame;
            zmq_msg_init(&frame);
            if (zmq_msg_recv(&frame, socket_, 0) < 0) return std::nullopt;
            more = zmq_msg_more(&frame);
            frames.push_back(copy_of(
                {static_cast<const std::byte*>(zmq_msg_data(&frame)), zmq_msg_size(&frame)}));
            zmq_msg_close(&frame);
        }
        const Payload header = frames.front();
        frames.erase(frames.begin());
        auto message = decode(header.bytes, std::move(frames));
        if (!message) return std::nullopt;
        return std::move(*message);
    }

  private:
    static std::string text_of(const Payload& payload) {
        return {reinterpret_cast<const char*>(payload.bytes.data()), payload.size()};
    }
    void* context_;
    void* socket_;
};

}  // namespace detente::testing
