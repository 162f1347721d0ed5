// Who computes which batch. The lead shard leases ranges of the job's batches, so that fast workers
// take more; a lost worker's unfinished batches are leased again. Every batch of every data epoch
// is leased exactly once in a run without faults; where tasks are split over workers
// (worker.split_tasks), exactly once per task. Then a worker is given batches of the tasks it asks
// for, and others' only when those have none left to lease: so nobody waits for a slow worker, and
// the tasks of a lost one go on.
//
// Owner: the lead shard's loop. Pure: no clock, no messages; repeating a request repeats its
// answer.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "common/ids.h"
#include "common/messages.h"
#include "common/result.h"

namespace detente {

class Leases {
  public:
    // `batches` per data epoch; at most `lease_batches` per lease, fewer towards the end. `tasks`:
    // those that are split over workers, each with all batches of its own; empty: they are not.
    Leases(std::uint32_t batches, std::uint32_t data_epochs, std::uint32_t lease_batches,
           std::uint32_t workers, TaskSet tasks = {});

    struct Change {
        bool granted = true;  // false: given back
        WorkerId worker;
        BatchRange range;
    };
    struct Answer {
        WorkerId worker;
        LeaseReply reply;
    };
    // Takes a request. Its answer comes through answers(), now or when one becomes possible: a
    // worker waits while nothing is left to lease but somebody else's batches are unfinished.
    // `wanted`: the tasks it asks for, where they are split; empty: any.
    void request(WorkerId worker, const LeaseRequest& request, TaskSet wanted = {});
    // The worker is gone or has said farewell: its unfinished batches are leased again.
    void release(WorkerId worker);
    // Whether a request of this worker has no answer yet.
    bool waits(WorkerId worker) const { return waiting_.contains(worker); }
    // Whether this worker waits for a batch and holds none, or was told there are no more.
    bool idle(WorkerId worker) const;
    // Answers that are due; each is returned once.
    std::vector<Answer> answers();
    // Leases granted and given back since the last call, for the ledger.
    std::vector<Change> changes();

    std::uint64_t total() const;  // batches of the whole job, of all tasks together
    std::uint64_t finished() const { return finished_; }
    std::uint64_t leased() const { return leased_; }      // grants, counted in batches
    std::uint64_t returned() const { return returned_; }  // given back, counted in batches

    // The state as text for a checkpoint: finished batches are never leased again after a restore,
    // all others are.
    std::string save() const;
    // bad_checkpoint: text this class did not write, or of another number of batches or other
    // tasks.
    Result<void> restore(const std::string& text);

  private:
    struct Client {
        std::uint32_t last_request = 0;
        LeaseReply last_reply;
        bool waiting = false;
        TaskSet wanted;
        std::vector<BatchRange> outstanding;
    };
    // The next batch that was never leased: of a task, or, where they are not split, of the job.
    struct Cursor {
        TaskSet tasks;
        std::uint32_t epoch = 0;
        std::uint32_t batch = 0;
    };
    void finish(Client& client, const BatchRange& range);
    void grant(WorkerId worker, Client& client);
    // A range of the cursor's, given back ones first, of at most `most` batches; false: none left.
    bool grant_of(Cursor& cursor, std::uint32_t most, WorkerId worker, Client& client);
    bool left(const Cursor& cursor) const { return cursor.epoch < data_epochs_ && batches_ > 0; }
    bool nothing_outstanding() const;
    // A saved state as it is read back; what is wrong with it is returned as text.
    struct Former {
        std::istringstream text;
        std::vector<Cursor> cursors;
        std::deque<BatchRange> open;
        std::uint64_t finished = 0;
        std::uint64_t leased = 0;
    };
    std::string read_cursors(Former& former) const;
    std::string read_open(Former& former) const;
    bool split() const { return !cursors_.front().tasks.empty(); }

    std::uint32_t batches_;
    std::uint32_t data_epochs_;
    std::uint32_t lease_batches_;
    std::uint32_t workers_;
    std::vector<Cursor> cursors_;  // by task, ascending
    std::deque<BatchRange> given_back_;
    std::map<WorkerId, Client> clients_;
    std::set<WorkerId> waiting_;  // whose Client waits
    std::vector<Answer> due_;
    std::vector<Change> changes_;
    std::uint64_t finished_ = 0;
    std::uint64_t leased_ = 0;
    std::uint64_t returned_ = 0;
};

}  // namespace detente
