// The coordinator: who is here, who is lost, when training begins, and how a run ends. A node as
// any other: events in, effects out; sockets, processes and clocks live in
// launch/coordinator_loop.h, virtual ones in the tests.
//
// Its peers are the shards and workers of the job, and two services that its loop plays:
//   kMerger     takes CheckpointRequest once all shards' slices lie in the directory, answers
//               CheckpointReply;
//   kEvaluator  takes CheckpointRequest for a merged checkpoint, answers Stopped, whose status has
//               `accuracy.<task>` and `loss.<task>` per task.
// A Stop from kCoordinator itself is a signal: drain = true the first, false the second. So is a
// PolicyChange from there `detente control`'s; it goes to the lead shard, and PolicyChanged back.
// A PeerChange from there asks the worker that it names to leave; the job goes on. A
// CheckpointReply under kLastWord (common/worker_file.h) tells whether a worker that leaves wrote a
// file for the last checkpoint.
//
// Invariants: Welcome goes out once, when every rank of the job has said hello; Go once, when every
// rank is ready; a live process is heard from within deadlines.peer_s or is lost; every stage but
// training ends within a deadline, and so does every checkpoint that is made meanwhile. Once
// training has begun, shards and at least one clean worker are enough to end with a checkpoint.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/config.h"
#include "common/runtime/contracts.h"
#include "launch/cluster_view.h"
#include "launch/node_groups.h"

namespace detente {

inline constexpr NodeId kMerger{Role::evaluator, 0};
inline constexpr NodeId kEvaluator{Role::evaluator, 1};
// A hung evaluation must not keep the run for ever; a crashed one is seen at once.
inline constexpr Nanos kEvaluationDeadline = std::chrono::minutes(15);
// While training goes on a checkpoint may take as long as the last one, and at least so long:
// nobody waits for it, and what workers keep comes behind their gradients.
inline constexpr Nanos kLeastSavingDeadline = std::chrono::minutes(1);
// After an abort, how long processes have to say their last word.
inline constexpr Nanos kAbortDeadline = std::chrono::seconds(2);

struct CoordinatorOptions {
    Job job;
    std::string job_text;    // resolved, TOML
    std::string model_json;  // description
    std::vector<std::string> tasks;
    std::vector<std::string> metrics{};  // of the model's tasks; empty = accuracy
    TaskSet trained{};  // under worker.split_tasks: those that are computed (task_placement.h)
    std::uint64_t training_samples = 0;
    std::string checkpoint_dir;  // checkpoint n is written to checkpoint_dir/n
    std::uint64_t first_checkpoint = 1;
    std::string resumed_from;           // directory of a checkpoint; empty = none
    std::uint64_t samples_before = 0;   // applied in that
    std::vector<WorkerMethod> methods;  // remembered in that
    bool workers_keep_vectors = false;  // and write a file of each checkpoint
    std::string host;                   // this one's, for messages
    // Whether workers of different hosts are of different nodes; not where all is simulated.
    bool hosts_are_nodes = true;
};

class Coordinator final : public Node {
  public:
    explicit Coordinator(CoordinatorOptions options);
    void on(Event&& event, Time now, Effects& effects) override;
    const ClusterView& view() const { return view_; }
    // Complete checkpoints that may be deleted: all but the newest `checkpoints_kept` and the best.
    std::vector<std::uint64_t> superfluous_checkpoints() const;
    // Workers' places that a new process may take while training runs: node and next incarnation.
    std::vector<Endpoint> vacancies() const;
    // Workers that said they have written a file of the checkpoint that is being merged, or a last
    // word, which is taken in instead: the merger asks, so that none is left out unseen.
    std::set<WorkerId> worker_files() const;

  private:
    enum TimerKind : std::uint32_t { kTick, kStageDeadline, kSavingDeadline };
    struct Saving {
        enum class Step { writing, merging, evaluating };
        Step step = Step::writing;
        bool last = false;
        bool evaluate = false;
        CheckpointView checkpoint;
        std::set<NodeId> missing;  // shards, and workers that remember, that have not answered
        std::set<WorkerId> files;  // of workers that have written one
    };

    // membership (coordinator.cpp)
    void on_message(Message&& message, Effects& effects);
    void on_hello(const Envelope& envelope, Hello&& hello, Effects& effects);
    void on_ready(ProcessView& process, Effects& effects);
    void on_status(ProcessView& process, Status&& status, Effects& effects);
    void on_policy_change(PolicyChange&& change, Effects& effects);
    void on_stopped(ProcessView& process, Stopped&& stopped, Effects& effects);
    void on_timer(const TimerFired& timer, Effects& effects);
    void tick(Effects& effects);
    void forgive_own_absence(Nanos gap, Effects& effects);
    void welcome_all(Effects& effects);
    void begin_training(Effects& effects);
    void lose(ProcessView& process, Failure failure, Effects& effects);
    std::string why_it_ends_the_run(const Failure& failure) const;
    void change_phase(ProcessView& process, Phase phase);
    Failure failure_of(const ProcessView& process, ErrorCode code, std::string text) const;

    // workers that leave and join (coordinator_elastic.cpp)
    void on_drain(const PeerChange& leaving, Effects& effects);
    bool may_take_place(const ProcessView& process, const Hello& hello) const;
    void take_place(ProcessView& process, Hello&& hello, Effects& effects);
    // For a worker beyond those the job began with; none where it has no such place.
    ProcessView* open_place(NodeId node, const Hello& hello);
    bool is_late_to_prepare(const ProcessView& process) const;
    // What a worker reports and what those before it in its place had.
    Status with_earlier(NodeId node, Status status) const;
    void forget_losses(ProcessView& process) const;

    // nodes (coordinator_elastic.cpp)
    Endpoint seat_of(const ProcessView& process) const;
    bool begin_groups(Effects& effects);  // false: the run is over
    void form_groups(const std::vector<Group>& groups, Effects& effects);
    void left_its_node(const ProcessView& process, Effects& effects);
    void on_lost_group(WorkerId from, const LostGroup& lost, Effects& effects);
    std::optional<Error> never_in_step() const;

    // ending (coordinator_end.cpp)
    void on_signal(const Stop& stop, Effects& effects);
    void end_training(const std::string& reason, std::optional<Error> error, Effects& effects);
    void advance(Effects& effects);  // goes on to the next stage if this one is done
    void stage_deadline_passed(Effects& effects);
    void abort(Error error, Effects& effects);
    void stop_shards(Effects& effects);
    void finish(Effects& effects);
    std::string resume_hint() const;

    // checkpoints (coordinator_end.cpp)
    void start_checkpoint(bool last, bool evaluate, Effects& effects);
    void remember(NodeId worker, MethodState state);
    void written(NodeId from, Effects& effects);
    void save_when_due(Effects& effects);
    void on_checkpoint_reply(NodeId from, const CheckpointReply& reply, Effects& effects);
    void on_evaluated(const Stopped& stopped, Effects& effects);
    void checkpoint_failed(Error error, Effects& effects);
    void last_checkpoint_failed(Error error, Effects& effects);
    void checkpoint_done(Effects& effects);
    void watch_saving(std::optional<Nanos> deadline, Effects& effects);
    void saving_deadline_passed(Effects& effects);
    std::string saving_awaits() const;
    void end_saving(Effects& effects);

    void enter(Stage stage, std::optional<Nanos> deadline, Effects& effects);
    void send(NodeId to, Body body, Effects& effects) const;
    template <class Predicate>
    std::string names_where(Predicate predicate) const;

    CoordinatorOptions options_;
    ClusterView view_;
    NodeGroups nodes_;
    // Why a group could not be formed or go on, where nobody's lateness or loss explains it.
    std::optional<Error> not_in_step_;
    std::optional<TimerId> stage_timer_;
    Time stage_due_{};
    std::optional<TimerId> saving_timer_;  // of a checkpoint in the middle of training
    Time saving_due_{};
    Time saving_since_{};
    Time last_tick_{};
    std::optional<Error> error_;                               // what the run will have ended with
    std::map<NodeId, std::map<std::string, double>> earlier_;  // of workers that were replaced
    std::map<NodeId, std::vector<std::uint64_t>> earlier_bins_;  // likewise: Status::cosine_bins
    std::set<NodeId> asked_to_leave_;
    std::optional<Saving> saving_;
    bool workers_remember_ = false;                // they have something to save
    std::map<NodeId, MethodState> method_states_;  // as each worker last said
    std::set<WorkerId> last_words_;                // of workers that have written one, and left
    bool last_checkpoint_wanted_ = false;
    bool last_checkpoint_done_ = false;
    bool last_checkpoint_failed_ = false;
    std::uint64_t next_checkpoint_ = 1;
    std::uint64_t next_evaluation_samples_ = 0;
    std::uint64_t next_save_samples_ = 0;
};

}  // namespace detente
