// Imposed staleness: a gradient is computed at weights of so many versions ago, for any number of
// workers. When a computation comes to its virtual finish, and not before, the version is chosen
// that will be `staleness` old at the verdict, and the gradient is computed there and then: what
// other workers had applied meanwhile does not come on top. The push then says the version it was
// computed at. Neither shard nor worker knows.
//
// Where every arrival makes a version (block scope), gradients that were pushed before and not
// judged yet count as versions to come. The staleness at the verdict is then exact, as long as
// messages arrive in the order they were sent and none of those is rejected; it is less while the
// block is younger than that, or while more of them than `staleness` are on their way. In step
// scope it is exact when the gradient is done; what is decided between then and its own verdict
// comes on top. Policies judge it like any other: one that rejects above a lower bound rejects it.
//
// Thread: the world's. How old is drawn from (seed, worker, number of its gradient).
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/messages.h"
#include "common/partition/plan.h"
#include "common/simulation_config.h"
#include "common/work.h"

namespace detente::sim {

// What simulate.staleness.distribution may be.
std::vector<std::string> imposed_staleness_names();

class ImposedStaleness {
  public:
    // `one_by_one`: every arrival makes a version.
    ImposedStaleness(const ImposedStalenessConfig& config, std::uint64_t seed,
                     std::shared_ptr<const Plan> plan, bool one_by_one)
        : config_(config), seed_(seed), plan_(std::move(plan)), one_by_one_(one_by_one) {}

    // What a block is now. Requires: called after each event of its shard, before what the shard
    // sends leaves.
    void is_now(BlockId block, Epoch epoch, Version version, std::span<const std::byte> weights);
    // A gradient is about to be computed, at its virtual finish: exchanges its weights.
    void choose(NodeId worker, GradientWork& work);
    // A message leaves: what a push says of its gradients' versions is put right.
    void sent(NodeId to, Message& message);
    // A node is gone.
    void gone(NodeId id);

  private:
    struct Old {
        Epoch epoch;
        Version version;
        Payload weights;
    };
    std::uint64_t draw(NodeId worker);
    // Of this block, for a gradient that is pushed now; nullptr: nothing older is known.
    const Old* wanted(BlockId block, std::uint64_t staleness) const;

    ImposedStalenessConfig config_;
    std::uint64_t seed_;
    std::shared_ptr<const Plan> plan_;
    bool one_by_one_;
    std::map<NodeId, std::uint64_t> drawn_;
    std::map<BlockId, std::deque<Old>> history_;        // oldest first
    std::map<BlockId, std::set<NodeId>> on_their_way_;  // computed, and not judged yet
    std::map<NodeId, std::map<Step, std::map<BlockId, Version>>> computed_at_;  // the latest steps
};

}  // namespace detente::sim
