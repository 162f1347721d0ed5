// A worker's side of its conversation with one shard: pulls piece by piece, pushes within the
// credit, sends again what was not answered, and drops answers that came twice.
//
// Owner: the worker's loop. At most one pull (of it kMostPullBytes) and `credit` bytes of pushes
// are outstanding; everything outstanding is sent again after the reply deadline and given up after
// kGiveUpAfter of them.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/config.h"
#include "common/partition/plan.h"
#include "common/runtime/contracts.h"
#include "worker/step_time.h"

namespace detente {

class ShardClient {
  public:
    // Asked for and not here yet; in pieces, so that the next is on its way while one arrives.
    static constexpr std::uint64_t kMostPullBytes = 8U << 20U;
    static constexpr std::uint64_t kPullPieceBytes = kMostPullBytes / 2;
    static constexpr int kGiveUpAfter = 30;  // reply deadlines

    ShardClient(ShardId shard, const Plan& plan, const Job& job);

    ShardId shard() const { return shard_; }
    // Blocks of a push to this shard, part by part, each at most job.message_bytes (or one block).
    const std::vector<std::vector<BlockId>>& layout() const { return layout_; }
    const std::vector<BlockId>& trainable() const { return trainable_; }
    const std::vector<BlockId>& all_blocks() const { return all_; }
    bool takes_part() const { return !trainable_.empty(); }

    // What stands on every message to this shard: the worker's tasks, the shard's epoch as its last
    // message said it, and after how long without an answer it is sent again.
    Envelope envelope() const;
    void speaks_for(TaskSet tasks) { tasks_ = tasks; }
    void heard_from(const Envelope& envelope) { shard_epoch_ = envelope.shard_epoch; }

    // ---- requests; sent at once if credit and the one-pull rule allow, else when they do ----
    void pull(Step step, const std::vector<BlockId>& blocks, Time now, Effects& effects);
    void push(Push push, Time now, Effects& effects);
    void cancel(Step step, CancelReason reason, Time now, Effects& effects);
    void initialise(std::vector<WeightBlock> blocks, Time now, Effects& effects);
    void farewell(Time now, Effects& effects);
    // Forgets pulls of this step that are queued or outstanding; the next one in line is sent.
    void drop_pull(Step step, Time now, Effects& effects);

    // ---- answers: nothing if it came twice or nobody waits for it ----
    struct Weights {
        Step step;
        std::vector<WeightBlock> blocks;
        std::optional<Answered> answered{};  // with these, all that was asked for is here
    };
    std::optional<Weights> on(PullReply&& reply, Time now, Effects& effects);
    // What it answers, if it is the first answer to that part.
    std::optional<Answered> on(const PushReply& reply, Time now, Effects& effects);
    bool on(const CancelReply& reply);
    // What it answers for now; nothing but waiting follows until the answer proper.
    std::optional<Answered> on(const Wait& wait, Time now, Effects& effects);
    void on(const InitialiseReply& reply, Time now, Effects& effects);
    void on(const FarewellReply& reply);
    // What was altered on its way is sent again; any other refusal ends the worker.
    Result<void> on(const Refusal& refusal, Effects& effects);

    // Every block of the step here has been settled. Saying so again changes nothing.
    void settled(Step step);
    Result<void> send_overdue_again(Time now, Effects& effects);
    // For so long this process stood still: the shard's silence in that time does not count.
    void forgive(Nanos absence, Time now);

    Step acknowledged() const { return acknowledged_; }
    bool idle() const {
        return outstanding_.empty() && pulls_.empty() && pushes_.empty() && initials_.empty();
    }
    // Bytes of pushes that are not answered.
    std::uint64_t credit_in_use() const { return in_flight_bytes_; }
    // What is outstanding longest, for status and deadlines: "push reply of shard:1 (step 3, part
    // 0)".
    std::string waiting_for() const;
    Time waiting_since() const;
    std::uint64_t sent_again() const { return sent_again_; }

  private:
    enum class Kind : std::uint8_t { pull, push, cancel, initialise, farewell };
    struct Outstanding {
        Kind kind;
        Step step;
        std::uint32_t number = 0;  // part, or request
        Body body;
        std::uint64_t bytes = 0;  // counted against the credit, or asked for by a pull
        Time first_sent{};
        Time heard{};  // when it was first sent, or the shard last said that it has it
        Time sent{};
        std::set<BlockId> blocks_seen{};  // of a pull
        bool sent_again_at_once = false;
        Time open_since{};      // when it was first sent, or answered by a Wait
        bool straight = true;   // neither sent again nor told to wait
        bool staged = false;    // the shard has it and will answer: asked after without its blocks
        std::string refused{};  // why, if it was
    };
    struct WantedPull {
        Step step;
        std::vector<BlockId> blocks;
        bool opens = true;
        std::uint64_t bytes = 0;
    };
    void next_pull(Time now, Effects& effects);
    void send_within_credit(Time now, Effects& effects);
    void send(Outstanding outstanding, Time now, Effects& effects);
    void transmit(const Outstanding& outstanding, Effects& effects);
    std::vector<Outstanding>::iterator find(Kind kind, Step step, std::uint32_t number);

    ShardId shard_;
    Epoch shard_epoch_;
    TaskSet tasks_;  // empty = all
    const Plan* plan_;
    Nanos reply_deadline_;
    std::uint64_t message_bytes_;
    bool cut_;
    std::vector<BlockId> all_;
    std::vector<BlockId> trainable_;
    std::vector<std::vector<BlockId>> layout_;

    std::vector<Outstanding> outstanding_;
    // Short queues, taken from the front: an empty deque would take 600 bytes, and there is a
    // client per (worker, shard).
    std::vector<WantedPull> pulls_;
    std::vector<Push> pushes_;
    std::vector<Initialise> initials_;
    std::uint32_t request_ = 0;
    std::uint64_t credit_bytes_;
    std::uint64_t in_flight_bytes_ = 0;
    Step acknowledged_;
    std::set<Step> settled_ahead_;
    std::uint64_t sent_again_ = 0;
};

}  // namespace detente
