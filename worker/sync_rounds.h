// A worker's part in the rounds in which its node keeps designated layers in step ([sync]).
//
// A round has T + 2 buckets, of which every member joins each exactly once:
//   0          notes: who takes part, and at which versions it computes
//   1 … T      the task's rows of tensors in step; weight = samples, or 0
//   T + 1      what became of the node's push, from the one who made it
// The first member that takes part pushes for all, based on the oldest version of any of them. A
// member that was cancelled, or has no batch, joins what is left with weight 0, so nobody hangs.
//
// Notes travel as floats: whole numbers in digits of 16 bits, each member's at a place of its own,
// so that the mean times the number of members, rounded, is each member's digit (the error of a
// float mean is below 65535 · 2⁻²² < ½).
//
// Owner: the worker's loop. Invariant: a group's rounds are begun in order, the same at all
// members.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/config.h"
#include "common/runtime/contracts.h"
#include "worker/in_step_rows.h"

namespace detente {

// Bytes that a member of a group of `members` brings to one round, and that the averages take
// again; each bucket's rounded up to 64.
std::uint64_t round_bytes(const Plan& plan, std::size_t tasks, std::size_t members);

class SyncRounds {
  public:
    using Base = std::map<BlockId, std::pair<Epoch, Version>>;

    SyncRounds(WorkerId self, const Plan& plan, const Job& job, std::size_t tasks);

    bool designated() const { return rows_.any(); }
    const std::vector<BlockId>& blocks() const { return rows_.blocks(); }

    // ---- the group ----

    // Asks for a newer group; false for one that is not newer. Rounds of the group before go on
    // until formed() says that all their ends are known: one key ends alike at all members, so that
    // what was averaged is pushed by one, and what was not is computed again by all. Requires: the
    // group has this worker.
    bool form(Group group, Effects& effects);
    enum class Formed { no, ready, lost };
    // What the event says of the group asked for last; `no`: nothing. Every round is given up
    // otherwise. A group of one is ready whatever became of its forming.
    Formed formed(const GroupFormed& event);
    // Whether it is the present group that broke; every round is given up then.
    bool broke(const GroupBroken& event);
    GroupEpoch epoch() const { return group_.epoch; }  // of the rounds that are under way
    const Group& group() const { return forming_ ? *forming_ : group_; }
    // Gradients may be computed: alone, or with a group that is there.
    bool ready() const { return !designated() || state_ == State::ready; }
    // Gradients are averaged with others.
    bool averages() const {
        return designated() && state_ == State::ready && group_.members.size() > 1;
    }

    // ---- rounds ----

    // Begins the next round with what this worker computes at; its number. Without a base it only
    // lets the others go on. Requires: averages().
    Step open(const Base* base, std::uint32_t samples, Effects& effects);
    // A task's rows. Ignored if the round was given up.
    void bring(Step round, TaskId task, Payload rows, Effects& effects);
    // This worker's gradient will not come.
    void withdraw(Step round, Effects& effects);
    // What a round's gradients became, once it is there.
    struct Averages {
        bool pushes = false;           // this worker, for all
        std::uint32_t samples = 0;     // behind the averages
        Base base;                     // the oldest of any member's; of the blocks in step
        std::vector<Payload> by_task;  // empty: no member had any
    };
    // Hands it over, once; a member that does not push then waits for the word of the one who does.
    std::optional<Averages> take_averages(Step round, Effects& effects);
    // From the one who pushed: these were rejected, to be repaired as the job says.
    void tell(Step round, const std::vector<BlockId>& rejected, Effects& effects);

    // An average arrived; the round it ended, if it did.
    struct Ended {
        Step round;
        std::vector<BlockId> rejected;
        bool dropped = false;  // who was to push was cancelled: nobody has pushed
    };
    std::optional<Ended> reduced(Reduced&& event);
    bool has(Step round) const { return rounds_.contains(round); }
    // A round that this worker only lets pass is under way.
    bool passes() const;
    std::string waiting_for() const;  // empty: for nothing
    std::uint64_t ended() const { return ended_; }

  private:
    enum class State { none, forming, ready, lost };
    struct Round {
        bool takes_part = false;
        std::uint32_t samples = 0;
        std::vector<bool> brought;  // by task
        bool told = false;
        bool taken = false;
        std::optional<std::vector<float>> notes;
        std::vector<std::optional<Averaged>> averages;  // by task; no mean: empty
    };
    std::uint64_t note_elements() const;
    void reduce(Step round, std::uint32_t bucket, GradientShare share, Effects& effects) const;
    std::uint64_t digits(const std::vector<float>& notes, std::size_t at, std::size_t count) const;
    // Position of the first member that takes part; none: nobody does.
    std::optional<std::size_t> pusher(const std::vector<float>& notes) const;
    Base oldest(const std::vector<float>& notes) const;

    const WorkerId self_;
    const Nanos deadline_;
    const Nanos form_deadline_;
    const InStepRows rows_;
    Group group_;
    std::optional<Group> forming_;
    State state_ = State::none;
    Step next_{1};
    std::map<Step, Round> rounds_;
    std::uint64_t ended_ = 0;
};

}  // namespace detente
