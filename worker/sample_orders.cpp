#include "worker/sample_orders.h"

#include <algorithm>

#include "common/random.h"

namespace detente {

SampleOrders::Order SampleOrders::order_of(std::uint32_t data_epoch) {
    constexpr std::size_t kMostKept = 2;  // workers straddle the boundary between two
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto known = std::find_if(orders_.begin(), orders_.end(),
                                    [&](const auto& one) { return one.first == data_epoch; });
    if (known != orders_.end()) {
        std::rotate(known, known + 1, orders_.end());
        return orders_.back().second;
    }
    if (orders_.size() == kMostKept) orders_.erase(orders_.begin());
    auto order = std::make_shared<const std::vector<std::uint32_t>>(
        permutation(random_key(seed_, Purpose::batch_order, {data_epoch}),
                    static_cast<std::uint32_t>(samples_)));
    orders_.emplace_back(data_epoch, order);
    return order;
}

}  // namespace detente
