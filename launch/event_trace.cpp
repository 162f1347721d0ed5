#include "launch/event_trace.h"

#include <fmt/core.h>

#include "common/random.h"

namespace detente {
namespace {

template <class Message>
std::uint64_t hash_of_blocks(const Message& message) {
    std::uint64_t hash = 0;
    if constexpr (requires { message.blocks.front().checksum; }) {
        for (const auto& block : message.blocks) {
            hash = scatter(hash ^ block.block.value ^ scatter(block.checksum.value_or(0)));
        }
    }
    return hash;
}

// Where it comes from, what it is, and the bytes of its blocks by their checksums.
std::uint64_t hash_of(const Event& event) {
    const auto* received = std::get_if<Received>(&event);
    if (received == nullptr) return event.index();
    const Message& message = received->message;
    const NodeId from = message.envelope.from;
    const std::uint64_t blocks =
        std::visit([](const auto& body) { return hash_of_blocks(body); }, message.body);
    return scatter(blocks ^ message.body.index()) ^
           scatter((std::uint64_t{from.index} << 8U) | static_cast<std::uint64_t>(from.role));
}

std::string described(const Event& event) {
    static constexpr const char* kKinds[] = {"started",
                                             "a message",
                                             "a timer",
                                             "a part",
                                             "a computed end",
                                             "a stored file",
                                             "a formed group",
                                             "an average",
                                             "a broken group",
                                             "a peer that is up",
                                             "a peer that is down",
                                             "returned buffers"};
    const auto* received = std::get_if<Received>(&event);
    if (received == nullptr) return kKinds[event.index()];
    return fmt::format("{} from {}", kind_of(received->message.body),
                       to_string(received->message.envelope.from));
}

}  // namespace

void EventTrace::note(NodeId to, Time now, const Event& event) {
    const std::uint64_t node =
        (std::uint64_t{to.index} << 8U) | static_cast<std::uint64_t>(to.role);
    const auto when = static_cast<std::uint64_t>(now.time_since_epoch().count());
    const auto hash = static_cast<std::uint32_t>(scatter(hash_of(event) ^ scatter(node) ^ when));
    const std::size_t at = seen_++;
    if (first_ == nullptr) {
        hashes_.push_back(hash);
        return;
    }
    if (difference_ || (at < first_->hashes_.size() && first_->hashes_[at] == hash)) return;
    difference_ = fmt::format(
        "event {}, {:.9f} s: {} was handed {}; the first run had {}", at + 1,
        static_cast<double>(when) / 1e9, to_string(to), described(event),
        at < first_->hashes_.size() ? "another event, or other weights" : "ended before");
}

std::optional<std::string> EventTrace::difference() const {
    if (difference_ || first_ == nullptr || seen_ == first_->hashes_.size()) return difference_;
    return fmt::format("it ended after event {}; the first run had {}", seen_,
                       first_->hashes_.size());
}

}  // namespace detente
