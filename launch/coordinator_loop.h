// The real runtime of the coordinator: hosts the node on one thread over Boost.Asio, with the
// control links, the HTTP pages, the processes it started (none under mpirun), signals, and the two
// services the node asks for: merging a checkpoint (on a thread of its own) and evaluating one (in
// a process of its own).
//
// Ctrl-Z (SIGTSTP) pauses the processes started here with this one, and fg or bg continues all:
// stopped alone (SIGSTOP) it is silent, which they take for its end (launch/role_link.h).
//
// Thread: the one that calls run(). Invariants: events reach the node one after the other; when
// run() returns, no process started here is left, and no port is bound.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/model_description.h"
#include "common/partition/plan.h"
#include "common/runtime/zmq/buffered_effects.h"
#include "launch/control_request.h"
#include "launch/control_server.h"
#include "launch/coordinator.h"
#include "launch/http_server.h"
#include "launch/processes.h"
#include "launch/run_directory.h"

namespace detente {

struct CoordinatorLoopOptions {
    Job job;
    std::string job_text;
    ModelDescription model;
    Plan plan;
    RunDirectory run;
    Generation generation;
    std::uint64_t first_checkpoint = 1;
    std::string resumed_from;           // directory of a checkpoint; empty = none
    std::uint64_t samples_before = 0;   // applied in that
    std::vector<WorkerMethod> methods;  // remembered in that
    bool workers_keep_vectors = false;
    std::string host;               // this one's name
    std::string listen_address;     // of the control links
    std::string advertise_address;  // what processes connect to; empty = listen_address
    std::uint16_t port = 0;         // 0 = any free one
};

// How the processes behind a failure ended, beside what the node knows.
struct EndedProcess {
    std::string label;
    ProcessEnd end;
    std::vector<std::string> last_lines;
};

class CoordinatorLoop {
  public:
    struct Callbacks {
        std::function<void(LogLevel level, const std::string& text)> log;
        // A warning or error of a process, for the screen.
        std::function<void(const std::string& label, const std::string& line)> said;
        std::function<void(const ClusterView& view)> seen;      // after every event
        std::function<void(const ClusterView& view)> stage;     // when it has changed
        std::function<void(const ClusterView& view)> progress;  // every progress_interval
        Nanos progress_interval = std::chrono::milliseconds(500);
    };
    CoordinatorLoop(CoordinatorLoopOptions options, Callbacks callbacks);
    ~CoordinatorLoop();
    CoordinatorLoop(const CoordinatorLoop&) = delete;
    CoordinatorLoop& operator=(const CoordinatorLoop&) = delete;

    // Binds the control port and the HTTP port and writes their addresses into the run directory.
    Result<void> open();
    std::string control_address() const;  // where processes connect to
    // Starts a process that will speak for these nodes. Requires: open() succeeded.
    Result<void> start(const std::string& label, std::vector<std::string> arguments,
                       std::vector<NodeId> nodes);
    // Until the node has finished and every process is gone.
    Outcome run();

    const ClusterView& view() const { return node_.view(); }
    std::vector<EndedProcess> ended() const { return ended_; }
    std::string http_address() const { return http_.address(); }
    int signal() const { return signal_; }  // that ended the run; 0 = none

  private:
    struct Local {  // a process started here
        std::vector<NodeId> nodes;
        bool ended = false;
        bool told = false;
        std::string how;  // it ended
        std::unique_ptr<boost::asio::steady_timer> grace;
    };

    struct PendingControl {
        HttpRespond respond;
        Job job;  // as it will be
        std::unique_ptr<boost::asio::steady_timer> deadline;
    };

    Time now() const;
    void deliver(Event event);  // queued: never from within the node
    void dispatch(Event&& event);
    void apply(Effect&& effect);
    void send(NodeId to, Message&& message);
    void fill(Message& message, NodeId from, NodeId to) const;
    void answer(NodeId from, Body body);  // of a service, to the node
    // Live changes (coordinator_control.cpp).
    void posted(const HttpPost& post, HttpRespond respond);
    Result<std::string> drained(const ControlRequest& request);
    void controlled(std::uint64_t number, const Result<std::string>& answer);
    void after_event();
    void greet();

    void merge(const CheckpointRequest& request);
    void remove_superfluous();
    void evaluate(const CheckpointRequest& request);
    void evaluated(const std::string& label, const ProcessEnd& end);

    void process_ended(const std::string& label, const ProcessEnd& end);
    void link_closed(NodeId node, const std::string& reason);
    void tell_if_gone(const std::string& label);
    std::string label_of(NodeId node) const;
    Message sign_of_life() const;
    void wait_for_signal();
    void pause();
    void show_progress();
    void wind_down();

    CoordinatorLoopOptions options_;
    Callbacks callbacks_;
    const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
    boost::asio::io_context loop_{1};
    Coordinator node_;
    BufferedEffects effects_;
    std::map<std::uint64_t, std::unique_ptr<boost::asio::steady_timer>> timers_;
    ControlServer control_;
    HttpServer http_;
    Processes processes_;
    boost::asio::signal_set signals_;
    boost::asio::steady_timer progress_timer_;
    boost::asio::steady_timer end_timer_;
    boost::asio::thread_pool merger_{1};
    std::map<std::string, Local> locals_;
    std::vector<EndedProcess> ended_;
    std::string evaluator_;                             // label of the newest
    std::string token_;                                 // what a POST must show
    std::map<std::uint64_t, PendingControl> controls_;  // by request
    std::uint64_t last_control_ = 0;
    std::vector<std::pair<NodeId, Incarnation>> offered_;  // places, to whoever connects
    Stage shown_stage_ = Stage::gathering;
    bool finished_ = false;
    Outcome outcome_;
    int signal_ = 0;
};

}  // namespace detente
