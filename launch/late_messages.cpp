#include "launch/late_messages.h"

#include <utility>
#include <variant>

namespace detente {
namespace {

void own(Payload& payload) { payload = copy_of(payload.bytes); }

void own_all(std::vector<WeightBlock>& blocks) {
    for (WeightBlock& block : blocks) own(block.weights);
}

void own_blocks(Body& body) {
    if (auto* pulled = std::get_if<PullReply>(&body)) own_all(pulled->blocks);
    if (auto* pushed = std::get_if<PushReply>(&body)) own_all(pushed->blocks);
    if (auto* first = std::get_if<Initialise>(&body)) own_all(first->blocks);
    if (auto* push = std::get_if<Push>(&body)) {
        for (GradientBlock& block : push->blocks) own(block.gradient);
    }
}

bool of_data(NodeId node) { return node.role == Role::shard || node.role == Role::worker; }

}  // namespace

void LateMessages::note(const Message& message) {
    if (!of_data(message.envelope.from) || !of_data(message.envelope.to)) return;
    kept_.push_back(message);
    own_blocks(kept_.back().body);
    if (kept_.size() > kMost) kept_.pop_front();
}

std::vector<Message> LateMessages::take() {
    std::vector<Message> messages(std::make_move_iterator(kept_.begin()),
                                  std::make_move_iterator(kept_.end()));
    kept_.clear();
    return messages;
}

}  // namespace detente
