// A group over MPI: see mpi_module.cpp for what it promises. Below the module only.
#pragma once

#include <mpi.h>

#include <condition_variable>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "worker/collectives/collective.h"
#include "worker/collectives/keys_in_flight.h"
#include "worker/collectives/mpi/notes.h"

namespace detente {

// What outlives a group: sums that MPI has not ended, and cannot cancel, with their memory.
struct Abandoned {
    struct Sum {
        MPI_Request request;
        std::shared_ptr<AlignedBuffer> memory;
    };
    std::list<Sum> sums;
};

class MpiCollective final : public Collective {
  public:
    // `ranks`: of the members, in MPI_COMM_WORLD. Takes the communicator.
    MpiCollective(Group group, WorkerId self, std::vector<int> ranks, MPI_Comm communicator,
                  Notes& notes, Abandoned& abandoned);
    ~MpiCollective() override;

    const Group& group() const override { return group_; }
    WorkerId self() const override { return self_; }
    Result<GradientBuffer> buffer(std::size_t bytes) override;
    Result<void> begin(const CollectiveKey& key, GradientShare share, Time deadline) override;
    void give_up(const CollectiveKey& key, const Error& why) override { fail_here(why, key); }
    std::vector<CollectiveEnd> poll(Time now) override;
    const std::optional<Broken>& broken() const override { return broken_; }
    std::optional<Time> next_deadline() const override { return keys_.next_deadline(); }
    void wait(Nanos at_most) override;
    void wake() override;

  private:
    enum class Stage { joined, summing, summed, ended };
    struct Entry {
        GradientShare share;
        Stage stage = Stage::joined;
        MPI_Request request = MPI_REQUEST_NULL;
        std::shared_ptr<AlignedBuffer> sum{};
        double weight_sum = 0;
        bool asked = false;  // has told the first member that it is overdue
    };
    // What the first member knows of a key.
    struct Known {
        std::uint64_t joined = 0;
        std::uint64_t summed = 0;
        std::vector<std::uint64_t> elements;
        std::vector<double> weights;
        bool is_summing = false;
    };

    bool is_first() const { return index_ == 0; }
    std::uint64_t all() const { return (std::uint64_t{1} << group_.members.size()) - 1; }
    CollectiveKey key_in(const Note& note) const;
    Note note_of(NoteKind kind, const CollectiveKey& key) const;
    void tell(std::size_t member, const Note& note);
    void tell_others(const Note& note);

    void hear(const Note& note);
    void hear_joined(const CollectiveKey& key, const Note& note);
    void hear_summed(const CollectiveKey& key, std::size_t member);
    void miss(const CollectiveKey& key);
    // The first member's: decides, and tells all.
    void decide_broken(std::uint64_t missing, ErrorCode code, const CollectiveKey& key);
    void set_broken(std::uint64_t missing, ErrorCode code, const CollectiveKey& key);
    void fail_here(const Error& error, const CollectiveKey& key);

    void start_sum(const CollectiveKey& key, const std::vector<double>& weights);
    void look_at_sums();
    void end_done(const CollectiveKey& key);
    void end_all_broken();

    const Group group_;
    const WorkerId self_;
    const std::size_t index_;
    const std::vector<int> ranks_;
    MPI_Comm communicator_;
    Notes& notes_;
    Abandoned& abandoned_;
    KeysInFlight keys_;
    std::map<CollectiveKey, Entry> entries_;
    std::map<CollectiveKey, Known> known_;
    std::vector<CollectiveEnd> ends_;  // since the last poll()
    std::optional<Broken> broken_;
    int looks_ = 0;     // in vain, since there was something to do
    std::mutex mutex_;  // of woken_, for wake()
    std::condition_variable changed_;
    bool woken_ = false;
};

}  // namespace detente
