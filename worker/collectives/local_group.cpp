#include "worker/collectives/local_group.h"

#include <utility>

#include "common/collective/average.h"
#include "common/invariant.h"

namespace detente {

namespace {

std::uint64_t bit(std::size_t member) { return std::uint64_t{1} << member; }

std::variant<Averaged, Weightless> mean_of(const std::vector<GradientShare>& shares) {
    std::vector<double> weights;
    std::vector<const float*> gradients;
    for (const GradientShare& share : shares) {
        weights.push_back(share.weight);
        gradients.push_back(reinterpret_cast<const float*>(share.gradient.bytes.data()));
    }
    const MeanShares mean_weights = mean_shares(weights);
    if (mean_weights.weight_sum == 0) return Weightless{};
    auto mean = std::make_shared<AlignedBuffer>(shares[0].elements * sizeof(float));
    write_mean(mean_weights.of, gradients, 0, mean->floats());
    return Averaged{payload_of(std::move(mean)), mean_weights.weight_sum};
}

}  // namespace

LocalGroup::LocalGroup(Group group) : group_(std::move(group)) {}

bool LocalGroup::attach(std::size_t member) {
    const std::lock_guard lock(mutex_);
    if ((attached_ & bit(member)) != 0) return false;
    attached_ |= bit(member);
    return true;
}

void LocalGroup::leave(std::size_t member) {
    const std::lock_guard lock(mutex_);
    break_locked(bit(member), ErrorCode::peer_lost,
                 to_string(node_of(group_.members[member])) + " has left the group of epoch " +
                     std::to_string(group_.epoch.value));
}

void LocalGroup::join(std::size_t member, const Place& place, GradientShare share) {
    const std::lock_guard lock(mutex_);
    Entry& entry = entries_[place];
    entry.shares.resize(group_.members.size());
    invariant((entry.joined & bit(member)) == 0, "a member joins a key once");
    entry.shares[member] = std::move(share);
    entry.joined |= bit(member);
    ++notices_;
    changed_.notify_all();
}

void LocalGroup::give_up(std::size_t member, const CollectiveKey& key, const Error& why) {
    const std::lock_guard lock(mutex_);
    break_locked(bit(member), ErrorCode::io,
                 to_string(node_of(group_.members[member])) + " could not bring its share of " +
                     to_string(key) + ": " + why.text);
}

void LocalGroup::miss(const Place& place) {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(place);
    // Whoever sums needs no other member for it.
    if (found == entries_.end() || found->second.state != State::collecting) return;
    const std::uint64_t missing = all() & ~found->second.joined;
    if (missing == 0) return;
    const CollectiveKey key{group_.epoch, place.first, place.second};
    break_locked(missing, ErrorCode::timed_out,
                 group_.names_of(missing) + " had not joined " + to_string(key) +
                     " when its deadline passed");
}

void LocalGroup::break_locked(std::uint64_t missing, ErrorCode code, const std::string& text) {
    if (broken_) return;
    broken_ = Broken{fail(code, text), group_.ids_of(missing)};
    ++notices_;
    changed_.notify_all();
}

void LocalGroup::settle(Entry& entry, std::unique_lock<std::mutex>& lock) {
    std::vector<std::uint64_t> elements;
    for (const GradientShare& share : entry.shares) elements.push_back(share.elements);
    if (const std::uint64_t others = disagreeing(elements); others != 0) {
        break_locked(others, ErrorCode::bad_length, disagreement_text(group_, elements));
        return;
    }
    entry.state = State::summing;
    // Nobody touches a complete entry's shares but who sums, and the map keeps it where it is.
    lock.unlock();
    auto mean = mean_of(entry.shares);
    lock.lock();
    entry.state = State::settled;
    std::visit([&entry](auto& result) { entry.result = std::move(result); }, mean);
    ++notices_;
    changed_.notify_all();
}

std::optional<CollectiveEnd> LocalGroup::take(std::size_t member, const Place& place) {
    std::unique_lock lock(mutex_);
    Entry& entry = entries_.at(place);
    if (entry.state == State::collecting && !broken_ && entry.joined == all()) settle(entry, lock);
    if (entry.state == State::collecting && broken_) {
        entry.state = State::settled;
        entry.result = *broken_;
    }
    if (entry.state != State::settled) return std::nullopt;
    CollectiveEnd end{{group_.epoch, place.first, place.second},
                      entry.result,
                      std::move(entry.shares[member].gradient)};
    entry.taken |= bit(member);
    if (entry.taken == all()) entries_.erase(place);
    return end;
}

std::optional<Broken> LocalGroup::broken() const {
    const std::lock_guard lock(mutex_);
    return broken_;
}

std::uint64_t LocalGroup::notices() const {
    const std::lock_guard lock(mutex_);
    return notices_;
}

void LocalGroup::wait(std::uint64_t seen, Nanos at_most) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, at_most, [&] { return notices_ != seen; });
}

void LocalGroup::notice() {
    const std::lock_guard lock(mutex_);
    ++notices_;
    changed_.notify_all();
}

}  // namespace detente
