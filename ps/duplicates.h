// What a shard remembers of each worker, so that every push is judged exactly once and every opened
// step is closed exactly once: open steps, the verdicts given, and how far the worker has settled.
//
// Owner: the shard's loop. Bounded: a worker may have kMostOpenSteps steps unsettled; what it has
// acknowledged is forgotten, and an idle worker costs one small record (≤ 256 bytes).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/books.h"
#include "common/ids.h"
#include "common/ledger_entry.h"
#include "common/messages.h"
#include "common/result.h"
#include "ps/by_worker.h"

namespace detente {

class Duplicates {
  public:
    static constexpr std::size_t kMostOpenSteps = 16;

    // `blocks` = what a worker pushes to this shard per step.
    explicit Duplicates(std::uint32_t blocks);

    struct Closed {
        Step step;
        std::uint32_t blocks = 0;
    };

    // Meets a message's sender. peer_lost: an older incarnation than the one known (a late zombie),
    // or one that was declared dead. A newer incarnation closes what the older left open: `lost`.
    Result<void> meet(WorkerId worker, Incarnation incarnation, std::vector<Closed>& lost);
    // The worker will not ask again for steps up to `step`.
    void acknowledge(WorkerId worker, Step step);

    enum class Opening { opened, known, settled };
    // Opens the books of a step once. over_limit: too many unsettled steps.
    Result<Opening> open(WorkerId worker, Step step);
    // The verdicts already given for this part, if it was judged before.
    const std::vector<BlockVerdict>* judged(WorkerId worker, Step step, Part part) const;
    bool settled(WorkerId worker, Step step) const;
    // Whether these blocks may still be settled in this open step. over_limit: more than are open,
    // or one that an earlier part settled.
    Result<void> fits(WorkerId worker, Step step, const std::vector<GradientBlock>& blocks) const;
    bool has_left(WorkerId worker) const;  // said farewell
    // Nobody waits for this step any more: it is settled, or its worker was lost or replaced. What
    // a restore knows of an older incarnation says nothing of a newer one.
    bool is_over(const PushId& step) const;
    // This step and all before it are over.
    bool is_over_up_to(const PushId& last) const;
    // A step before this one, and of the same process, has blocks that are not settled.
    bool open_before(const PushId& step) const;
    // The newest step of the worker's process that was opened or acknowledged; 0 = none.
    Step newest_step(WorkerId worker) const;
    // Records the verdicts of a part and settles its blocks. over_limit: more blocks than the step
    // has.
    Result<void> record(WorkerId worker, Step step, Part part, std::vector<BlockVerdict> verdicts);
    // Step scope: the part is kept until decide() says what became of it, whatever happens to its
    // worker; its blocks stay in flight. over_limit: more blocks than the step has open.
    Result<void> stage(WorkerId worker, Step step, std::size_t blocks);
    // The staged part is not kept: its blocks are open as before, to be judged. Requires: staged
    // of this worker's newest process, and not decided.
    void unstage(WorkerId worker, Step step, std::size_t blocks);
    // Settles a staged part; `buffered` leaves it in flight, to be decided once more.
    void decide(const PushId& push, Part part, std::vector<BlockVerdict> verdicts);
    // Closes what is left of a step as cancelled; the number of blocks closed (0 if done before).
    std::uint32_t cancel(WorkerId worker, Step step);
    // The worker is gone for good: what it left open is lost.
    std::vector<Closed> lose(WorkerId worker, Incarnation incarnation);
    // The worker said farewell: everything open is cancelled, only a small mark stays.
    std::vector<Closed> farewell(WorkerId worker);

    const Books& books() const { return books_; }
    std::uint32_t open_steps() const;
    Incarnation newest_incarnation() const;  // of all workers met; 0 = none

    struct ClosedBy {
        WorkerId worker;
        Incarnation incarnation;
        Closed step;
    };
    // ---- checkpoints (duplicates_saved.cpp) ----
    // The table and its books as text. `kept`: staged gradients, whose bytes it does not have.
    std::string save(const std::vector<ClosedBy>& kept = {}) const;
    // Becomes the table that was saved. Gradients that were buffered are lost: their bytes are
    // gone. bad_checkpoint: no text of save(); nothing is changed.
    Result<void> restore(const std::string& saved);
    // An update that the restore took back. Its step is kept as lost by the restore, of each worker
    // the last kMostOpenSteps: it has acknowledged what is older.
    void take_back(const LostRecord& update);
    // Closes all that was open when it was saved as lost: those gradients came after the
    // checkpoint, or never. A push to such a step gets the verdict `lost`.
    std::vector<ClosedBy> lose_restored();
    bool lost_by_restore(WorkerId worker, Step step) const;
    // The books of a table that is not kept, because its blocks now live elsewhere.
    void carry(const Books& books) { books_.add(books); }
    std::uint32_t blocks() const { return blocks_; }

  private:
    struct JudgedPart {
        Part part;
        std::vector<BlockVerdict> verdicts;
    };
    struct OpenStep {
        Step step;
        std::uint32_t open_blocks = 0;
        std::vector<JudgedPart> parts;
        bool lost_by_restore = false;
        std::uint32_t buffered_lost = 0;  // between restore() and lose_restored()
    };
    struct Client {
        Incarnation incarnation{0};
        bool gone = false;
        Step acknowledged;
        std::vector<OpenStep> steps;
    };
    const OpenStep* find(WorkerId worker, Step step) const;
    OpenStep* find(WorkerId worker, Step step);
    std::vector<Closed> close_all(Client& client, std::uint64_t& count);
    void count(const std::vector<BlockVerdict>& verdicts);

    std::uint32_t blocks_;
    ByWorker<Client> clients_;
    Books books_;
    std::vector<ClosedBy> kept_lost_;  // between restore() and lose_restored()
};

}  // namespace detente
