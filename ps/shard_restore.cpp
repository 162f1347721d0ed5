// What a shard does about the past when it is restored from a checkpoint: the books go on from
// there, what was in flight is lost, and so is every update that had been applied after it.
#include "common/ledger_controls.h"
#include "ps/shard.h"

namespace detente {

Result<void> Shard::take_over(const std::vector<FormerShard>& former) {
    for (const FormerShard& one : former) {
        Duplicates table(store_.trainable());
        if (!one.duplicates.empty()) {
            if (auto restored = table.restore(one.duplicates); !restored) return restored;
        }
        for (const LostRecord& update : one.lost) {
            table.take_back(update);
            updates_taken_back_ += update.blocks.size();
            taken_back_.push_back(update);
        }
        for (const Duplicates::ClosedBy& closed : table.lose_restored()) {
            lost_by_restore_.push_back(closed);
        }
        if (one.same_blocks && table.blocks() == store_.trainable()) {
            duplicates_ = std::move(table);
        } else {
            duplicates_.carry(table.books());
        }
    }
    return {};
}

void Shard::record_restored() {
    if (setup_.restored_from.empty()) return;
    record_control(restored_shard({setup_.restored_from, setup_.epoch}, updates_taken_back_).what);
    for (LostRecord& update : taken_back_) effects_->record({now_, std::move(update)});
    for (const Duplicates::ClosedBy& closed : lost_by_restore_) {
        record_closed(closed.worker, closed.incarnation, {closed.step}, true,
                      "in flight when the checkpoint that was restored was made");
    }
    std::vector<LostRecord>().swap(taken_back_);
    std::vector<Duplicates::ClosedBy>().swap(lost_by_restore_);
}

// The books closed the step when the shard was restored; its worker still waits for an answer.
void Shard::answer_lost(const Envelope& from, const Push& body,
                        const std::vector<LiveBlock*>& blocks) {
    ++repeated_;
    std::vector<BlockVerdict> verdicts(body.blocks.size());
    for (std::size_t i = 0; i < verdicts.size(); ++i) {
        verdicts[i].block = body.blocks[i].block;
        verdicts[i].verdict = Verdict::lost;
        verdicts[i].advice = Advice::refresh;
        verdicts[i].reason = ErrorCode::wrong_epoch;
        verdicts[i].epoch = blocks[i]->epoch;
        verdicts[i].version = blocks[i]->version;
    }
    reply_to_push(from, body, verdicts);
}

}  // namespace detente
