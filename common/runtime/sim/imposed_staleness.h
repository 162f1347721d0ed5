// Imposed staleness: replies that bring weights bring older ones, with their older versions, as if
// the pull had come that much earlier. Neither shard nor worker knows. Older versions are those
// that went over the wire before, so every version must have: one block per reply of a push, as
// `worker.push_pull` has it.
//
// Thread: the world's. How old is drawn from (seed, worker, number of its reply).
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/messages.h"
#include "common/simulation_config.h"

namespace detente::sim {

// What simulate.staleness.distribution may be.
std::vector<std::string> imposed_staleness_names();

class ImposedStaleness {
  public:
    ImposedStaleness(const ImposedStalenessConfig& config, std::uint64_t seed)
        : config_(config), seed_(seed) {}

    // Exchanges the weights of a reply on its way from a shard to a worker.
    void alter(NodeId to, Message& message);

  private:
    struct Old {
        Epoch epoch;
        Version version;
        std::vector<std::byte> weights;
    };
    std::uint64_t draw(NodeId worker);
    void alter(std::vector<WeightBlock>& blocks, std::uint64_t staleness);

    ImposedStalenessConfig config_;
    std::uint64_t seed_;
    std::map<NodeId, std::uint64_t> replies_;
    std::map<BlockId, std::deque<Old>> history_;  // oldest first
};

}  // namespace detente::sim
