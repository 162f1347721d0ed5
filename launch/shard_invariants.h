// What must hold of every shard after every event of a simulation.
//
// Thread: the world's.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ps/shard.h"

namespace detente {

class ShardInvariants {
  public:
    // Its books balance, and no block's (epoch, version) has fallen since the last look. What is
    // broken, as a sentence.
    std::optional<std::string> check(NodeId id, Shard& shard);

  private:
    std::map<NodeId, std::vector<std::pair<Epoch, Version>>> last_;  // by block of a shard
};

}  // namespace detente
