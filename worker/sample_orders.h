// Which samples a batch is made of: the order of a data epoch, a permutation drawn from (seed, data
// epoch). One object serves all computers of a process, so that ten thousand simulated workers do
// not each keep an order.
//
// Thread: any; the newest few orders are kept under a mutex that is held for a look-up, or while an
// order is made, once per data epoch.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace detente {

class SampleOrders {
  public:
    using Order = std::shared_ptr<const std::vector<std::uint32_t>>;

    SampleOrders(std::uint64_t seed, std::uint64_t samples) : seed_(seed), samples_(samples) {}
    Order order_of(std::uint32_t data_epoch);

  private:
    std::uint64_t seed_;
    std::uint64_t samples_;
    std::mutex mutex_;
    std::vector<std::pair<std::uint32_t, Order>> orders_;  // the last asked for is last
};

}  // namespace detente
