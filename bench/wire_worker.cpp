#include "bench/wire_worker.h"

#include <cstring>
#include <iostream>
#include <utility>

#include "common/checksum.h"
#include "common/invariant.h"

namespace detente::bench {

WireWorkerNode::WireWorkerNode(const WireSetup& setup, std::shared_ptr<const Plan> plan)
    : job_(setup.job()), plan_(std::move(plan)), tensor_bytes_(setup.tensor_bytes) {
    for (std::uint32_t shard = 0; shard < setup.servers; ++shard) {
        clients_.emplace_back(ShardId{shard}, *plan_, job_);
        parts_per_step_ += clients_.back().layout().size();
    }
    auto buffer = std::make_shared<AlignedBuffer>(setup.bytes());
    std::memset(buffer->data(), 0, buffer->size());
    memory_ = payload_of(std::move(buffer));
}

std::future<double> WireWorkerNode::prepare(WireCommand command) {
    command_ = command;
    done_ = {};
    return done_.get_future();
}

void WireWorkerNode::on(Event&& event, Time now, Effects& effects) {
    if (auto* received = std::get_if<Received>(&event)) receive(std::move(*received), now, effects);
}

void WireWorkerNode::receive(Received&& event, Time now, Effects& effects) {
    Body& body = event.message.body;
    if (std::holds_alternative<Stop>(body)) effects.finish({});
    if (std::holds_alternative<Go>(body)) begin(now, effects);
    if (const auto* no = std::get_if<Refusal>(&body)) {
        std::cerr << "refused: " << no->text << "\n";
        std::abort();
    }
    if (event.message.envelope.from.role != Role::shard) return;
    // As the real worker does on its loop; how its engine takes them over is no part of the wire.
    if (const auto* weights = std::get_if<PullReply>(&body)) check(weights->blocks);
    if (const auto* brought = std::get_if<PushReply>(&body)) check(brought->blocks);
    ShardClient& client = clients_[event.message.envelope.from.index];
    if (auto* pushed = std::get_if<PushReply>(&body)) {
        if (client.on(*pushed, now, effects)) part_done(pushed->step, now, effects);
    } else if (auto* pulled = std::get_if<PullReply>(&body)) {
        const auto weights = client.on(std::move(*pulled), now, effects);
        if (!weights) return;
        blocks_left_ -= weights->blocks.size();
        if (blocks_left_ == 0) close_and_finish(now, effects);
    } else if (auto* cancelled = std::get_if<CancelReply>(&body)) {
        if (!client.on(*cancelled) || --closing_ > 0) return;
        for (ShardClient& each : clients_) each.settled(cancelled->step);
        done_.set_value(measured_s_);
    } else if (auto* first = std::get_if<InitialiseReply>(&body)) {
        client.on(*first, now, effects);
        for (const ShardClient& each : clients_) {
            if (!each.idle()) return;
        }
        done_.set_value(seconds_since_began(now));
    }
}

void WireWorkerNode::check(const std::vector<WeightBlock>& blocks) {
    for (const WeightBlock& block : blocks) {
        if (!block.checksum) continue;
        invariant(checksum_of(block.weights.bytes) == *block.checksum, "weights come unaltered");
    }
}

void WireWorkerNode::begin(Time now, Effects& effects) {
    began_ = now;
    begun_ = ended_ = 0;
    if (command_.kind == WireCommand::Kind::initialise) {
        for (ShardClient& client : clients_) {
            std::vector<WeightBlock> blocks;
            for (const BlockId id : client.all_blocks()) {
                const Block& block = plan_->block(id);
                const std::uint64_t at = block.tensor * tensor_bytes_ + block.offset * 4;
                blocks.push_back({id,
                                  Epoch{1},
                                  Version{0},
                                  {memory_.owner, memory_.bytes.subspan(at, block.bytes())},
                                  std::nullopt});
            }
            client.initialise(std::move(blocks), now, effects);
        }
    } else if (command_.kind == WireCommand::Kind::pull) {
        invariant(command_.steps == 1, "a command of pulls is one pull");
        step_ = next(step_);
        blocks_left_ = plan_->blocks.size();
        for (ShardClient& client : clients_) {
            client.pull(step_, client.all_blocks(), now, effects);
        }
    } else {
        more(now, effects);
    }
}

void WireWorkerNode::more(Time now, Effects& effects) {
    const bool opens = command_.kind == WireCommand::Kind::push_pull;
    while (begun_ < command_.steps && begun_ - ended_ < command_.window) {
        ++begun_;
        step_ = next(step_);
        push_step(now, effects, opens);
    }
}

void WireWorkerNode::push_step(Time now, Effects& effects, bool opens) {
    parts_left_[step_] = parts_per_step_;
    for (ShardClient& client : clients_) {
        std::uint32_t number = 0;
        for (const auto& blocks : client.layout()) {
            Push push;
            push.step = step_;
            push.part = Part{number++};
            push.parts = static_cast<std::uint32_t>(client.layout().size());
            if (opens) push.opens = next(step_);
            push.batch.count = 1;
            push.samples = 1;
            for (const BlockId id : blocks) {
                const Block& block = plan_->block(id);
                const std::uint64_t at = block.tensor * tensor_bytes_ + block.offset * 4;
                push.blocks.push_back({id,
                                       TaskSet{1},
                                       Epoch{1},
                                       Version{0},
                                       {memory_.owner, memory_.bytes.subspan(at, block.bytes())},
                                       std::nullopt});
            }
            client.push(std::move(push), now, effects);
        }
    }
}

void WireWorkerNode::part_done(Step step, Time now, Effects& effects) {
    const auto found = parts_left_.find(step);
    if (--found->second > 0) return;
    parts_left_.erase(found);
    for (ShardClient& client : clients_) client.settled(step);
    ++ended_;
    if (ended_ < command_.steps) {
        more(now, effects);
        return;
    }
    if (command_.kind == WireCommand::Kind::push_pull) {
        step_ = next(step_);  // opened by the last replies
        close_and_finish(now, effects);
    } else {
        done_.set_value(seconds_since_began(now));
    }
}

double WireWorkerNode::seconds_since_began(Time now) const {
    return std::chrono::duration<double>(now - began_).count();
}

void WireWorkerNode::close_and_finish(Time now, Effects& effects) {
    measured_s_ = seconds_since_began(now);
    closing_ = clients_.size();
    for (ShardClient& client : clients_) {
        client.cancel(step_, CancelReason::dropped, now, effects);
    }
}

WireWorker::WireWorker(const WireSetup& setup, std::uint32_t index,
                       const std::vector<Child>& servers) {
    auto plan = make_plan(setup.model(), setup.job());
    invariant(plan.has_value(), "the bench's own job is a good one");
    node_ = std::make_unique<WireWorkerNode>(setup, std::make_shared<Plan>(std::move(*plan)));
    ZmqLoopOptions options;
    options.self = node_of(WorkerId{index});
    options.host = "bench";
    options.transport = setup.transport;
    options.checksum = setup.job().checksum;
    options.log = [](LogLevel, std::string_view text) { std::cerr << text << "\n"; };
    auto loop = ZmqLoop::open(std::move(options));
    invariant(loop.has_value(), "a worker binds nothing");
    loop_ = std::move(*loop);
    Welcome welcome;
    for (std::uint32_t i = 0; i < servers.size(); ++i) {
        welcome.peers.push_back(
            {node_of(ShardId{i}), Incarnation{1}, tcp_of(servers[i]), ipc_of(servers[i]), "bench"});
    }
    loop_->post(Received{Message{Envelope{}, std::move(welcome)}});
    thread_ = std::thread([this] { loop_->run(*node_); });
}

WireWorker::~WireWorker() {
    loop_->post(Received{Message{Envelope{}, Stop{"over", false}}});
    thread_.join();
}

std::future<double> WireWorker::start(WireCommand command) {
    auto future = node_->prepare(command);
    loop_->post(Received{Message{Envelope{}, Go{}}});
    return future;
}

}  // namespace detente::bench
