// Which samples a batch is made of: the order of a data epoch, a permutation drawn from (seed, data
// epoch). One object serves all computers of a process, so that ten thousand simulated workers do
// not each keep an order.
//
// Kept are the orders that are in use: each task of a split job has an epoch of its own, and slow
// workers straddle boundaries. An order that kInUse other requests have passed over is let go;
// there are never more than kMostKept.
//
// Thread: any; a mutex is held for a look-up, or while an order is made, once per data epoch.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace detente {

class SampleOrders {
  public:
    using Order = std::shared_ptr<const std::vector<std::uint32_t>>;
    static constexpr std::uint64_t kInUse = 1024;
    static constexpr std::size_t kMostKept = 64;  // tasks

    SampleOrders(std::uint64_t seed, std::uint64_t samples) : seed_(seed), samples_(samples) {}
    Order order_of(std::uint32_t data_epoch);

    std::uint64_t made() const;  // orders drawn so far
    std::size_t kept() const;

  private:
    struct Kept {
        std::uint32_t data_epoch = 0;
        std::uint64_t asked = 0;  // by which request last
        Order order;
    };

    std::uint64_t seed_;
    std::uint64_t samples_;
    mutable std::mutex mutex_;
    std::vector<Kept> orders_;
    std::uint64_t requests_ = 0;
    std::uint64_t made_ = 0;
};

}  // namespace detente
