#include "worker/collectives/local.h"

#include <algorithm>
#include <utility>

#include "common/invariant.h"
#include "worker/collectives/keys_in_flight.h"
#include "worker/collectives/local_group.h"

namespace detente {

namespace {

class LocalCollective final : public Collective {
  public:
    LocalCollective(std::shared_ptr<LocalGroup> shared, WorkerId self)
        : shared_(std::move(shared)), self_(self), index_(shared_->group().index_of(self)) {}
    ~LocalCollective() override { shared_->leave(index_); }

    const Group& group() const override { return shared_->group(); }
    WorkerId self() const override { return self_; }

    Result<GradientBuffer> buffer(std::size_t bytes) override {
        auto memory = std::make_shared<AlignedBuffer>(bytes);
        const std::span<std::byte> all{memory->data(), bytes};
        return GradientBuffer{std::move(memory), all};
    }

    Result<void> begin(const CollectiveKey& key, GradientShare share, Time deadline) override {
        if (auto refused = keys_.check(group(), broken(), key, share); refused.has_error()) {
            return refused;
        }
        keys_.add(key, deadline);
        shared_->join(index_, {key.step, key.bucket}, std::move(share));
        return {};
    }

    void give_up(const CollectiveKey& key, const Error& why) override {
        shared_->give_up(index_, key, why);
    }

    std::vector<CollectiveEnd> poll(Time now) override {
        seen_ = shared_->notices();
        std::vector<CollectiveEnd> ends;
        for (const CollectiveKey& key : keys_.all()) take(key, ends);
        for (const CollectiveKey& key : keys_.overdue(now)) {
            shared_->miss({key.step, key.bucket});
            // The whole group is broken then, so every key in flight has ended.
            for (const CollectiveKey& other : keys_.all()) take(other, ends);
        }
        broken_ = shared_->broken();
        return ends;
    }

    const std::optional<Broken>& broken() const override { return broken_; }
    std::optional<Time> next_deadline() const override { return keys_.next_deadline(); }
    void wait(Nanos at_most) override { shared_->wait(seen_, at_most); }
    void wake() override { shared_->notice(); }

  private:
    void take(const CollectiveKey& key, std::vector<CollectiveEnd>& ends) {
        if (auto end = shared_->take(index_, {key.step, key.bucket})) {
            ends.push_back(std::move(*end));
            keys_.remove(key);
        }
    }

    std::shared_ptr<LocalGroup> shared_;
    WorkerId self_;
    std::size_t index_;
    KeysInFlight keys_;
    std::uint64_t seen_ = 0;
    std::optional<Broken> broken_;
};

}  // namespace

Result<std::shared_ptr<LocalGroup>> LocalHub::attach(const Group& group, WorkerId self) {
    if (auto checked = check_group(group, self); checked.has_error()) return checked.error();
    const std::lock_guard lock(mutex_);
    if (auto refused = check_epoch(group, self, last_[self]); refused.has_error()) {
        return refused.error();
    }
    auto& known = groups_[{group.epoch, group.members.front()}];
    auto shared = known.group.lock();
    if (!shared) {
        shared = std::make_shared<LocalGroup>(group);
        known = {shared, shared};
    }
    if (!(shared->group() == group) || !shared->attach(group.index_of(self))) {
        return fail(ErrorCode::wrong_epoch,
                    to_string(node_of(self)) + " asks for a group of epoch " +
                        std::to_string(group.epoch.value) +
                        " that was formed with other members; all must be given the same members");
    }
    last_[self] = group.epoch;
    for (auto& [place, one] : groups_) {
        const auto formed = one.group.lock();
        if (formed && all_came(formed->group())) one.until_all_came.reset();
    }
    std::erase_if(groups_, [](const auto& one) { return one.second.group.expired(); });
    return shared;
}

bool LocalHub::all_came(const Group& group) const {
    return std::all_of(group.members.begin(), group.members.end(), [&](WorkerId member) {
        const auto last = last_.find(member);
        return last != last_.end() && !(last->second < group.epoch);
    });
}

Result<std::unique_ptr<Collective>> LocalBackend::form(const Group& group, WorkerId self,
                                                       Nanos /*deadline*/) {
    auto shared = hub_->attach(group, self);
    if (shared.has_error()) return shared.error();
    return std::unique_ptr<Collective>(std::make_unique<LocalCollective>(*shared, self));
}

}  // namespace detente
