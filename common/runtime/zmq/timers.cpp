#include "common/runtime/zmq/timers.h"

#include <algorithm>
#include <functional>

namespace detente {

void TimerHeap::start(TimerId id, Time at, Tag tag) {
    tags_.emplace(id.value, tag);
    heap_.push_back({at, id.value});
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
}

void TimerHeap::cancel(TimerId id) {
    constexpr std::size_t kTolerated = 64;
    tags_.erase(id.value);
    if (heap_.size() <= 2 * tags_.size() + kTolerated) return;
    std::erase_if(heap_, [this](const Entry& entry) { return !tags_.contains(entry.id); });
    std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
}

void TimerHeap::drop_cancelled() {
    while (!heap_.empty() && !tags_.contains(heap_.front().id)) {
        std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
        heap_.pop_back();
    }
}

std::optional<TimerFired> TimerHeap::take_due(Time now) {
    drop_cancelled();
    if (heap_.empty() || heap_.front().at > now) return std::nullopt;
    const auto found = tags_.find(heap_.front().id);
    const TimerFired fired{TimerId{found->first}, found->second};
    tags_.erase(found);
    drop_cancelled();
    return fired;
}

std::optional<Time> TimerHeap::earliest() {
    drop_cancelled();
    if (heap_.empty()) return std::nullopt;
    return heap_.front().at;
}

}  // namespace detente
