// Pulls at a consistent cut: a worker that asks for it (worker.consistent_pulls) is given the
// weights of one place in the order of the lead's decisions, the same on every shard, whatever is
// committed while its requests travel. The request to the lead shard makes the lead number a cut;
// each shard keeps the weights of that place, and what was asked for before waits for it.
//
// A shard that trains nothing keeps no cuts: what it hands out is the same at every place, no step
// is ever open there, and no worker waits for it after its first pull. Cuts there went two ways
// wrong. A decision that came late made one of a step long over, and the ledger told of weights
// handed out to a worker that ssp held (detente fuzz, seed 2180); and a pull of frozen blocks, its
// step over as soon as it was opened, was never answered.
//
// What is kept shares the blocks' bytes until an update finds no spare for them: then it is copied,
// or shards could wait for one another. Per worker at most one cut, gone with its next message.
#include <cstring>

#include "ps/shard.h"

namespace detente {

bool Shard::keeps_cuts() const { return decides_steps() && store_.trainable() > 0; }

bool Shard::awaits_cut(const Envelope& from, const PullRequest& body) {
    const WorkerId worker{from.from.index};
    const PushId step{worker, from.incarnation, body.step};
    if (duplicates_.is_over(step)) return true;  // a late double
    Cut& cut = cuts_[worker];
    if (step < cut.step) return true;  // overtaken: nobody waits for it
    if (cut.step != step) cut = Cut{step, false, false, {}, {}};
    if (lead_ != nullptr) lead_->cut(step);
    if (cut.made) return false;
    constexpr std::size_t kMostAsked = 4;  // at most two pieces of one pull are outstanding
    if (cut.asked.size() < kMostAsked || cut.asked.contains(body.request)) {
        cut.asked[body.request] = {from, body};
    }
    wait(from, body.step, Part{}, body.request, WaitFor::release);
    return true;
}

void Shard::make_cut(const PushId& step) {
    if (!keeps_cuts()) return;
    // Its worker is gone, or has got over this step in another way.
    if (duplicates_.is_over(step) || !store_.initialised()) return;
    Cut& cut = cuts_[step.worker];
    if (step < cut.step || (cut.step == step && cut.made)) return;
    if (cut.step != step) cut = Cut{step, false, false, {}, {}};
    cut.made = true;
    std::vector<LiveBlock*> blocks;
    for (LiveBlock& block : store_.blocks()) blocks.push_back(&block);
    Envelope from;
    from.from = node_of(step.worker);
    from.incarnation = step.incarnation;
    record_pull(from, step.step, blocks);
    for (WeightBlock& one : weights_of(blocks, step.worker)) {
        const BlockId id = one.block;
        cut.weights.emplace(id, std::move(one));
    }
    for (const auto& [number, asked] : std::exchange(cut.asked, {})) {
        pull(asked.first, asked.second);
    }
}

bool Shard::copy_cuts() {
    bool any = false;
    for (auto& [worker, cut] : cuts_) {
        if (!cut.made || std::exchange(cut.copied, true)) continue;
        for (auto& [id, one] : cut.weights) one.weights = copy_of(one.weights.bytes);
        any = any || !cut.weights.empty();
    }
    if (any) store_.reclaim();
    return any;
}

void Shard::drop_cut(WorkerId worker, Step up_to) {
    const auto found = cuts_.find(worker);
    if (found != cuts_.end() && found->second.step.step <= up_to) cuts_.erase(found);
}

}  // namespace detente
