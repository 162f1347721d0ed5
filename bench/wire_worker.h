// A worker that computes nothing: it pushes and pulls as told, through the real shard client. For
// bench/wire_bench.cpp only.
#pragma once

#include <future>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "bench/wire_processes.h"
#include "common/runtime/zmq/loop.h"
#include "worker/shard_client.h"

namespace detente::bench {

struct WireCommand {
    enum class Kind { initialise, push, pull, push_pull };
    Kind kind = Kind::push;
    std::uint32_t steps = 1;   // one after the other (pull only: 1) …
    std::uint32_t window = 1;  // … with so many on their way (push only)
};

class WireWorkerNode : public Node {
  public:
    WireWorkerNode(const WireSetup& setup, std::shared_ptr<const Plan> plan);
    void on(Event&& event, Time now, Effects& effects) override;

    // What the next Go does; the future is told the seconds it took.
    std::future<double> prepare(WireCommand command);

  private:
    void begin(Time now, Effects& effects);
    void more(Time now, Effects& effects);
    void push_step(Time now, Effects& effects, bool opens);
    void part_done(Step step, Time now, Effects& effects);
    double seconds_since_began(Time now) const;
    // A pull, and a reply with weights, open a step that this worker never pushes: outside of the
    // measured time it is cancelled.
    void close_and_finish(Time now, Effects& effects);
    static void check(const std::vector<WeightBlock>& blocks);
    void receive(Received&& event, Time now, Effects& effects);

    Job job_;
    std::shared_ptr<const Plan> plan_;
    std::vector<ShardClient> clients_;
    std::size_t parts_per_step_ = 0;
    Payload memory_;  // gradients and first weights alike
    std::uint64_t tensor_bytes_;

    WireCommand command_;
    std::promise<double> done_;
    Time began_;
    Step step_;  // the last one begun
    std::uint32_t begun_ = 0;
    std::uint32_t ended_ = 0;
    std::map<Step, std::size_t> parts_left_;
    std::size_t blocks_left_ = 0;
    std::size_t closing_ = 0;  // cancel replies to come
    double measured_s_ = 0;
};

// The node on a loop and thread of its own.
class WireWorker {
  public:
    WireWorker(const WireSetup& setup, std::uint32_t index, const std::vector<Child>& servers);
    ~WireWorker();
    std::future<double> start(WireCommand command);
    double run(WireCommand command) { return start(command).get(); }

  private:
    std::unique_ptr<WireWorkerNode> node_;
    std::unique_ptr<ZmqLoop> loop_;
    std::thread thread_;
};

}  // namespace detente::bench
