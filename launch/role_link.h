// What a server and a worker share: their control link, from hello to the last word.
//
// Thread: made and used on the main thread; what arrives on the link's thread is handed over here.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/config.h"
#include "common/model_description.h"
#include "common/partition/plan.h"
#include "common/runtime/loop.h"
#include "launch/control_client.h"
#include "launch/exit_code.h"
#include "launch/process_log.h"
#include "launch/roles.h"

namespace detente {

// What a welcome says, understood.
struct Briefing {
    Message welcome;
    std::shared_ptr<const Job> job;
    ModelDescription model;
    std::shared_ptr<const Plan> plan;
};

class RoleLink {
  public:
    RoleLink(std::unique_ptr<ControlClient> control, const RoleOptions& options);
    ~RoleLink();
    RoleLink(const RoleLink&) = delete;
    RoleLink& operator=(const RoleLink&) = delete;

    // The job as the coordinator's greeting told it; what it says is heard from here on. bad_job.
    Result<Job> begin();
    // This process will be that node.
    void speak_for(NodeId node) { nodes_.push_back(node); }
    // io: it cannot be written; give_up() tells the coordinator.
    Result<void> open_log(const std::string& label);
    void hello(NodeId node, Endpoint endpoint, bool has_weights);
    // Heartbeats with this activity for all nodes, until hand_over().
    void announce(const std::string& activity);
    // Waits for the coordinator's welcome. cancelled: it said stop; peer_lost: it is gone;
    // timed_out: it is silent.
    Result<Briefing> wait_for_welcome();
    // From now on `node` is heard through its own loop; what arrived for it meanwhile is posted,
    // the welcome first.
    void hand_over(NodeId node, EventSink& loop, const Message& welcome);
    // The last word for nodes that never ran, and the exit code.
    ExitCode give_up(const Error& error);
    // Waits until what was sent has arrived. The exit code of what the nodes ended with.
    ExitCode end(const std::vector<Outcome>& outcomes);

    ControlClient& control() { return *control_; }
    const ProcessLog& log() const { return log_; }

  private:
    void received(Message&& message);
    void closed(const std::string& reason);
    void watch_coordinator();
    std::string coordinator() const;
    void abandoned(Error error);
    void end_soon_or_be_ended(const std::string& why, ExitCode code);

    std::unique_ptr<ControlClient> control_;
    std::vector<NodeId> nodes_;
    bool log_to_file_;
    std::string placement_;  // empty = nothing to tell
    ProcessLog log_ = ProcessLog::to_standard_error();
    Nanos heartbeat_interval_{};
    Nanos start_deadline_{};
    Nanos peer_deadline_{};
    std::set<NodeId> said_hello_;

    std::mutex mutex_;  // between the link's thread and the main one; not on the data path
    std::condition_variable changed_;
    std::optional<Message> welcome_;
    std::optional<Error> over_;
    // The coordinator is gone (peer_lost), silent (timed_out), or gave this process up (peer_lost).
    std::optional<Error> abandoned_;
    bool told_to_stop_ = false;              // before that, if at all
    std::uint64_t coordinator_process_ = 0;  // pid; 0 = not told yet
    std::map<NodeId, EventSink*> sinks_;
    std::map<NodeId, std::vector<Event>> early_;
};

}  // namespace detente
