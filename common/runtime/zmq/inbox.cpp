#include "common/runtime/zmq/inbox.h"

#include <utility>

namespace detente {

Inbox::~Inbox() {
    for (Posted* posted = stack_.take_all(); posted != nullptr;) {
        delete std::exchange(posted, posted->next);
    }
}

bool Inbox::post(Event event) {
    if (foreign_.fetch_add(1) >= kMostForeign) {
        foreign_.fetch_sub(1);
        return false;
    }
    stack_.push(new Posted{nullptr, std::move(event), nullptr, true});
    wakeup_.notify();
    return true;
}

void Inbox::deliver(Event event, std::shared_ptr<void> kept) {
    stack_.push(new Posted{nullptr, std::move(event), std::move(kept), false});
    wakeup_.notify();
}

Posted* Inbox::take() {
    Posted* oldest = stack_.take_all_in_order();
    std::size_t foreign = 0;
    for (const Posted* posted = oldest; posted != nullptr; posted = posted->next) {
        if (posted->counted) ++foreign;
    }
    if (foreign > 0) foreign_.fetch_sub(foreign);
    return oldest;
}

}  // namespace detente
