#include "ps/duplicates.h"

#include <algorithm>

#include "common/invariant.h"

namespace detente {
namespace {

constexpr Step kLeft{~std::uint64_t{0}};

// Assigning {} keeps the capacity; an idle worker is to cost a small record only.
template <class T>
void give_back(std::vector<T>& values) {
    std::vector<T>().swap(values);
}

}  // namespace

Duplicates::Duplicates(std::uint32_t blocks) : blocks_(blocks) {
    static_assert(sizeof(Client) <= 128,
                  "an idle worker costs at most 256 bytes, its place in the "
                  "table included");
}

Result<void> Duplicates::meet(WorkerId worker, Incarnation incarnation, std::vector<Closed>& lost) {
    Client& client = clients_[worker];
    if (incarnation < client.incarnation || (incarnation == client.incarnation && client.gone)) {
        return fail(ErrorCode::peer_lost,
                    "worker:" + std::to_string(worker.value) + " speaks as incarnation " +
                        std::to_string(incarnation.value) + ", which " +
                        (client.gone ? "was declared lost" : "has been replaced") +
                        "; start it again to get a new incarnation");
    }
    if (incarnation > client.incarnation) {
        lost = close_all(client, books_.lost);
        client = Client{};
        client.incarnation = incarnation;
    }
    return {};
}

void Duplicates::acknowledge(WorkerId worker, Step step) {
    Client& client = clients_[worker];
    if (step <= client.acknowledged) return;
    client.acknowledged = step;
    // A worker acknowledges only what it has settled, so nothing open is forgotten here.
    std::erase_if(client.steps,
                  [&](const OpenStep& open) { return open.step <= step && open.open_blocks == 0; });
    if (client.steps.empty()) give_back(client.steps);
}

const Duplicates::OpenStep* Duplicates::find(WorkerId worker, Step step) const {
    const auto client = clients_.find(worker);
    if (client == clients_.end()) return nullptr;
    for (const OpenStep& open : client->second.steps) {
        if (open.step == step) return &open;
    }
    return nullptr;
}

Duplicates::OpenStep* Duplicates::find(WorkerId worker, Step step) {
    return const_cast<OpenStep*>(std::as_const(*this).find(worker, step));
}

Result<Duplicates::Opening> Duplicates::open(WorkerId worker, Step step) {
    if (find(worker, step) != nullptr) return Opening::known;
    Client& client = clients_[worker];
    if (step <= client.acknowledged) return Opening::settled;
    if (client.steps.size() >= kMostOpenSteps) {
        return fail(ErrorCode::over_limit, "worker:" + std::to_string(worker.value) +
                                               " opens step " + std::to_string(step.value) +
                                               " with " + std::to_string(client.steps.size()) +
                                               " steps unsettled; at most " +
                                               std::to_string(kMostOpenSteps) + " are allowed");
    }
    client.steps.push_back({step, blocks_, {}, false, 0});
    books_.computed += blocks_;
    books_.in_flight += blocks_;
    return Opening::opened;
}

const std::vector<BlockVerdict>* Duplicates::judged(WorkerId worker, Step step, Part part) const {
    const OpenStep* open = find(worker, step);
    if (open == nullptr) return nullptr;
    for (const JudgedPart& judged : open->parts) {
        if (judged.part == part) return &judged.verdicts;
    }
    return nullptr;
}

bool Duplicates::settled(WorkerId worker, Step step) const {
    const OpenStep* open = find(worker, step);
    if (open != nullptr) return open->open_blocks == 0;
    const auto client = clients_.find(worker);
    return client != clients_.end() && step <= client->second.acknowledged;
}

Result<void> Duplicates::fits(WorkerId worker, Step step,
                              const std::vector<GradientBlock>& blocks) const {
    const OpenStep* open = find(worker, step);
    const std::string name =
        "step " + std::to_string(step.value) + " of worker:" + std::to_string(worker.value);
    if (open == nullptr || open->open_blocks < blocks.size()) {
        return fail(ErrorCode::over_limit,
                    name + " pushes " + std::to_string(blocks.size()) + " blocks, " +
                        std::to_string(open == nullptr ? 0 : open->open_blocks) + " are open");
    }
    for (const JudgedPart& part : open->parts) {
        for (const BlockVerdict& verdict : part.verdicts) {
            for (const GradientBlock& block : blocks) {
                if (block.block != verdict.block) continue;
                return fail(
                    ErrorCode::over_limit,
                    name + " pushes block " + std::to_string(block.block.value) + " in two parts");
            }
        }
    }
    return {};
}

bool Duplicates::is_over(const PushId& step) const {
    const auto found = clients_.find(step.worker);
    if (found == clients_.end() || found->second.incarnation < step.incarnation) return false;
    const Client& client = found->second;
    return step.incarnation < client.incarnation || client.gone || settled(step.worker, step.step);
}

bool Duplicates::is_over_up_to(const PushId& last) const {
    return is_over(last) && !open_before({last.worker, last.incarnation, next(last.step)});
}

bool Duplicates::open_before(const PushId& step) const {
    const auto found = clients_.find(step.worker);
    if (found == clients_.end() || found->second.incarnation != step.incarnation) return false;
    const std::vector<OpenStep>& steps = found->second.steps;
    return std::any_of(steps.begin(), steps.end(), [&](const OpenStep& one) {
        return one.step < step.step && one.open_blocks > 0;
    });
}

Step Duplicates::newest_step(WorkerId worker) const {
    const auto found = clients_.find(worker);
    if (found == clients_.end()) return {};
    Step newest = found->second.acknowledged;
    for (const OpenStep& one : found->second.steps) newest = std::max(newest, one.step);
    return newest;
}

bool Duplicates::has_left(WorkerId worker) const {
    const auto client = clients_.find(worker);
    return client != clients_.end() && client->second.acknowledged == kLeft;
}

Result<void> Duplicates::record(WorkerId worker, Step step, Part part,
                                std::vector<BlockVerdict> verdicts) {
    OpenStep* open = find(worker, step);
    if (open == nullptr || open->open_blocks < verdicts.size()) {
        return fail(ErrorCode::over_limit, "step " + std::to_string(step.value) +
                                               " of worker:" + std::to_string(worker.value) +
                                               " settles more blocks than it opened");
    }
    open->open_blocks -= static_cast<std::uint32_t>(verdicts.size());
    count(verdicts);
    open->parts.push_back({part, std::move(verdicts)});
    return {};
}

void Duplicates::count(const std::vector<BlockVerdict>& verdicts) {
    books_.in_flight -= verdicts.size();
    for (const BlockVerdict& verdict : verdicts) {
        switch (verdict.verdict) {
            case Verdict::applied:
                ++books_.applied;
                break;
            case Verdict::rejected:
                ++books_.rejected;
                break;
            case Verdict::lost:
                ++books_.lost;
                break;
            case Verdict::buffered:
                ++books_.in_flight;
                break;
        }
    }
}

Result<void> Duplicates::stage(WorkerId worker, Step step, std::size_t blocks) {
    OpenStep* open = find(worker, step);
    if (open == nullptr || open->open_blocks < blocks) {
        return fail(ErrorCode::over_limit, "step " + std::to_string(step.value) +
                                               " of worker:" + std::to_string(worker.value) +
                                               " stages more blocks than it opened");
    }
    open->open_blocks -= static_cast<std::uint32_t>(blocks);
    return {};
}

void Duplicates::unstage(WorkerId worker, Step step, std::size_t blocks) {
    OpenStep* open = find(worker, step);
    invariant(open != nullptr && open->open_blocks + blocks <= blocks_,
              "what is no longer staged was staged of an open step");
    open->open_blocks += static_cast<std::uint32_t>(blocks);
}

void Duplicates::decide(const PushId& push, Part part, std::vector<BlockVerdict> verdicts) {
    count(verdicts);
    const auto client = clients_.find(push.worker);
    if (client == clients_.end() || client->second.incarnation != push.incarnation) return;
    OpenStep* open = find(push.worker, push.step);
    if (open == nullptr) return;  // it was told "buffered" and has acknowledged that
    for (JudgedPart& known : open->parts) {
        if (known.part != part) continue;
        known.verdicts = std::move(verdicts);
        return;
    }
    open->parts.push_back({part, std::move(verdicts)});
}

std::uint32_t Duplicates::cancel(WorkerId worker, Step step) {
    Client& client = clients_[worker];
    OpenStep* open = find(worker, step);
    if (open == nullptr) {
        // The note overtook the pull that opens the step: remember it as closed.
        if (step > client.acknowledged && client.steps.size() < kMostOpenSteps) {
            client.steps.push_back({step, 0, {}, false, 0});
        }
        return 0;
    }
    const std::uint32_t closed = std::exchange(open->open_blocks, 0U);
    books_.in_flight -= closed;
    books_.cancelled += closed;
    return closed;
}

std::vector<Duplicates::Closed> Duplicates::close_all(Client& client, std::uint64_t& count) {
    std::vector<Closed> closed;
    for (OpenStep& open : client.steps) {
        if (open.open_blocks == 0) continue;
        closed.push_back({open.step, open.open_blocks});
        books_.in_flight -= open.open_blocks;
        count += open.open_blocks;
        open.open_blocks = 0;
    }
    return closed;
}

std::vector<Duplicates::Closed> Duplicates::lose(WorkerId worker, Incarnation incarnation) {
    Client& client = clients_[worker];
    if (incarnation < client.incarnation) return {};
    std::vector<Closed> closed = close_all(client, books_.lost);
    client.incarnation = incarnation;
    client.gone = true;
    give_back(client.steps);
    return closed;
}

std::vector<Duplicates::Closed> Duplicates::farewell(WorkerId worker) {
    Client& client = clients_[worker];
    std::vector<Closed> closed = close_all(client, books_.cancelled);
    give_back(client.steps);
    // Whatever still comes late from this incarnation is settled.
    client.acknowledged = kLeft;
    return closed;
}

std::uint32_t Duplicates::open_steps() const {
    std::uint32_t count = 0;
    for (const auto& [worker, client] : clients_) {
        for (const OpenStep& open : client.steps) count += open.open_blocks > 0 ? 1 : 0;
    }
    return count;
}

}  // namespace detente
