// A ZmqLoop on a thread of its own, for tests: peers are told by introduce(), its log is kept.
#pragma once

#include <catch2/catch.hpp>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "common/runtime/zmq/loop.h"
#include "tests/contracts/scripted_node.h"

namespace detente::testing {

class KeptLog {
  public:
    LogSink sink() {
        return [this](LogLevel, std::string_view text) {
            const std::lock_guard lock(mutex_);
            lines_.emplace_back(text);
        };
    }
    std::size_t containing(const std::string& text) const {
        const std::lock_guard lock(mutex_);
        std::size_t count = 0;
        for (const auto& line : lines_) {
            if (line.find(text) != std::string::npos) ++count;
        }
        return count;
    }

  private:
    mutable std::mutex mutex_;
    std::vector<std::string> lines_;
};

inline ZmqLoopOptions options_of(NodeId self) {
    ZmqLoopOptions options;
    options.self = self;
    options.host = "here";
    options.linger = std::chrono::seconds(1);
    return options;
}

class RunningLoop {
  public:
    RunningLoop(ZmqLoopOptions options, ScriptedNode::Script script) : node_(std::move(script)) {
        if (!options.log) options.log = log.sink();
        auto opened = ZmqLoop::open(std::move(options));
        if (!opened) FAIL(opened.error().text);
        loop_ = std::move(*opened);
    }
    ~RunningLoop() {
        if (!end_.valid()) return;
        stop();
        end_.wait();
    }

    ZmqLoop& loop() { return *loop_; }
    void start() {
        end_ = std::async(std::launch::async, [this] { return loop_->run(node_); });
    }
    // Tells it of a peer as the coordinator does.
    void introduce(const Endpoint& peer) {
        PeerChange change{peer.node, peer.incarnation, true, "", peer};
        loop_->post(Received{Message{Envelope{}, std::move(change)}});
    }
    void lose(NodeId peer, Incarnation incarnation) {
        PeerChange change{peer, incarnation, false, "as told", {}};
        loop_->post(Received{Message{Envelope{}, std::move(change)}});
    }
    void stop() { loop_->post(Received{Message{Envelope{}, Stop{"test", false}}}); }
    bool ended_within(Nanos deadline) {
        return end_.wait_for(deadline) == std::future_status::ready;
    }
    Outcome outcome() { return end_.get(); }

    KeptLog log;

  private:
    ScriptedNode node_;
    std::unique_ptr<ZmqLoop> loop_;
    std::future<Outcome> end_;
};

inline constexpr Nanos kTestDeadline = std::chrono::seconds(60);
inline constexpr NodeId kShard0 = node_of(ShardId{0});
inline constexpr NodeId kWorker0 = node_of(WorkerId{0});

inline bool is_stop(const Event& event) {
    const auto* received = std::get_if<Received>(&event);
    return received != nullptr && std::holds_alternative<Stop>(received->message.body);
}

}  // namespace detente::testing
