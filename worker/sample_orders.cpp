#include "worker/sample_orders.h"

#include <algorithm>

#include "common/random.h"

namespace detente {

SampleOrders::Order SampleOrders::order_of(std::uint32_t data_epoch) {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++requests_;
    const auto known = std::find_if(orders_.begin(), orders_.end(),
                                    [&](const Kept& one) { return one.data_epoch == data_epoch; });
    if (known != orders_.end()) {
        known->asked = requests_;
        return known->order;
    }
    std::erase_if(orders_, [this](const Kept& one) { return requests_ - one.asked > kInUse; });
    if (orders_.size() == kMostKept) {
        orders_.erase(std::min_element(
            orders_.begin(), orders_.end(),
            [](const Kept& one, const Kept& other) { return one.asked < other.asked; }));
    }
    ++made_;
    auto order = std::make_shared<const std::vector<std::uint32_t>>(
        permutation(random_key(seed_, Purpose::batch_order, {data_epoch}),
                    static_cast<std::uint32_t>(samples_)));
    orders_.push_back({data_epoch, requests_, order});
    return order;
}

std::uint64_t SampleOrders::made() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return made_;
}

std::size_t SampleOrders::kept() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return orders_.size();
}

}  // namespace detente
