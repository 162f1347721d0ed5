#include "common/messages.h"

namespace detente {

const char* name_of(Verdict verdict) {
    switch (verdict) {
        case Verdict::applied:
            return "applied";
        case Verdict::buffered:
            return "buffered";
        case Verdict::rejected:
            return "rejected";
        case Verdict::lost:
            return "lost";
    }
    return "unknown verdict";
}

const char* name_of(Advice advice) {
    switch (advice) {
        case Advice::none:
            return "none";
        case Advice::drop:
            return "drop";
        case Advice::refresh:
            return "refresh";
        case Advice::recompute:
            return "recompute";
        case Advice::compensate:
            return "compensate";
    }
    return "unknown advice";
}

namespace {

// One overload per kind: a kind added to Body without a name does not compile.
struct Kind {
    const char* operator()(const PullRequest&) const { return "pull_request"; }
    const char* operator()(const PullReply&) const { return "pull_reply"; }
    const char* operator()(const Push&) const { return "push"; }
    const char* operator()(const PushReply&) const { return "push_reply"; }
    const char* operator()(const CancelNote&) const { return "cancel_note"; }
    const char* operator()(const CancelReply&) const { return "cancel_reply"; }
    const char* operator()(const Initialise&) const { return "initialise"; }
    const char* operator()(const InitialiseReply&) const { return "initialise_reply"; }
    const char* operator()(const LeaseRequest&) const { return "lease_request"; }
    const char* operator()(const LeaseReply&) const { return "lease_reply"; }
    const char* operator()(const Farewell&) const { return "farewell"; }
    const char* operator()(const FarewellReply&) const { return "farewell_reply"; }
    const char* operator()(const Refusal&) const { return "refusal"; }
    const char* operator()(const StageNotice&) const { return "stage_notice"; }
    const char* operator()(const StageDecision&) const { return "stage_decision"; }
    const char* operator()(const StageReply&) const { return "stage_reply"; }
    const char* operator()(const Wait&) const { return "wait"; }
    const char* operator()(const Restart&) const { return "restart"; }
    const char* operator()(const Hello&) const { return "hello"; }
    const char* operator()(const Welcome&) const { return "welcome"; }
    const char* operator()(const Ready&) const { return "ready"; }
    const char* operator()(const Go&) const { return "go"; }
    const char* operator()(const Status&) const { return "status"; }
    const char* operator()(const PeerChange&) const { return "peer_change"; }
    const char* operator()(const CheckpointRequest&) const { return "checkpoint_request"; }
    const char* operator()(const CheckpointReply&) const { return "checkpoint_reply"; }
    const char* operator()(const Stop&) const { return "stop"; }
    const char* operator()(const Stopped&) const { return "stopped"; }
    const char* operator()(const PolicyChange&) const { return "policy_change"; }
    const char* operator()(const PolicyChanged&) const { return "policy_changed"; }
    const char* operator()(const FormGroup&) const { return "form_group"; }
    const char* operator()(const LostGroup&) const { return "lost_group"; }
};

std::uint64_t bytes_of(const std::vector<WeightBlock>& blocks) {
    std::uint64_t bytes = 0;
    for (const WeightBlock& block : blocks) bytes += block.weights.size();
    return bytes;
}
std::uint64_t bytes_of(const std::vector<GradientBlock>& blocks) {
    std::uint64_t bytes = 0;
    for (const GradientBlock& block : blocks) bytes += block.gradient.size();
    return bytes;
}

}  // namespace

const char* kind_of(const Body& body) { return std::visit(Kind{}, body); }

std::uint64_t payload_bytes(const Body& body) {
    return std::visit(
        [](const auto& message) -> std::uint64_t {
            if constexpr (requires { bytes_of(message.blocks); }) {
                return bytes_of(message.blocks);
            } else {
                return 0;
            }
        },
        body);
}

}  // namespace detente
