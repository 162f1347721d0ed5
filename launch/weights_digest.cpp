#include "launch/weights_digest.h"

#include "common/checksum.h"
#include "common/random.h"

namespace detente {

void WeightsDigest::take(const LiveBlock& block) {
    const BlockId id = block.plan->id;
    of_block_[id] = random_key(checksum_of(block.weight_payload().bytes), Purpose::test,
                               {id.value, block.epoch.value, block.version.value});
}

std::uint64_t WeightsDigest::value() const {
    std::uint64_t digest = 0;
    for (const auto& [block, hash] : of_block_) digest = scatter(digest ^ hash);
    return digest;
}

}  // namespace detente
