// Who computes which batch. The lead shard leases ranges of the job's batches, so that fast workers
// take more; a lost worker's unfinished batches are leased again. Every batch of every data epoch
// is leased exactly once in a run without faults.
//
// Owner: the lead shard's loop. Pure: no clock, no messages; repeating a request repeats its
// answer.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/ids.h"
#include "common/messages.h"
#include "common/result.h"

namespace detente {

class Leases {
  public:
    // `batches` per data epoch; at most `lease_batches` per lease, fewer towards the end.
    Leases(std::uint32_t batches, std::uint32_t data_epochs, std::uint32_t lease_batches,
           std::uint32_t workers);

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
    void request(WorkerId worker, const LeaseRequest& request);
    // The worker is gone or has said farewell: its unfinished batches are leased again.
    void release(WorkerId worker);
    // Whether this worker waits for a batch and holds none, or was told there are no more.
    bool idle(WorkerId worker) const;
    // Answers that are due; each is returned once.
    std::vector<Answer> answers();
    // Leases granted and given back since the last call, for the ledger.
    std::vector<Change> changes();

    std::uint64_t total() const;  // batches of the whole job
    std::uint64_t finished() const { return finished_; }
    std::uint64_t leased() const { return leased_; }      // grants, counted in batches
    std::uint64_t returned() const { return returned_; }  // given back, counted in batches

    // The state as text for a checkpoint: finished batches are never leased again after a restore,
    // all others are.
    std::string save() const;
    // bad_checkpoint: text this class did not write, or of another number of batches.
    Result<void> restore(const std::string& text);

  private:
    struct Client {
        std::uint32_t last_request = 0;
        LeaseReply last_reply;
        bool waiting = false;
        std::vector<BatchRange> outstanding;
    };
    void finish(Client& client, const BatchRange& range);
    void grant(WorkerId worker, Client& client);
    bool nothing_outstanding() const;

    std::uint32_t batches_;
    std::uint32_t data_epochs_;
    std::uint32_t lease_batches_;
    std::uint32_t workers_;
    std::uint32_t epoch_ = 0;  // next never-leased batch
    std::uint32_t batch_ = 0;
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
