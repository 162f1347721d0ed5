#include "common/runtime/sim/groups.h"

#include <cmath>

#include "common/collective/average.h"
#include "common/invariant.h"

namespace detente::sim {
namespace {

// Positions without an entry.
template <class Map>
std::vector<std::size_t> absent(const Map& present, std::size_t members) {
    std::vector<std::size_t> missing;
    for (std::size_t i = 0; i < members; ++i) {
        if (!present.contains(i)) missing.push_back(i);
    }
    return missing;
}

std::uint64_t as_bits(const std::vector<std::size_t>& positions) {
    std::uint64_t bits = 0;
    for (const std::size_t position : positions) bits |= std::uint64_t{1} << position;
    return bits;
}

std::variant<Averaged, Weightless, Broken> mean_of(
    const std::map<std::size_t, GradientShare>& shares) {
    std::vector<double> weights;
    std::vector<AlignedBuffer> copies(shares.size());  // payloads lie at any address
    std::vector<const float*> rows;
    for (const auto& [position, share] : shares) {
        weights.push_back(share.weight);
        AlignedBuffer& copy = copies[rows.size()];
        if (share.weight > 0) {
            copy = AlignedBuffer(share.gradient.size());
            std::copy(share.gradient.bytes.begin(), share.gradient.bytes.end(), copy.data());
        }
        rows.push_back(share.weight > 0 ? copy.floats().data() : nullptr);
    }
    const MeanShares mean_weights = mean_shares(weights);
    if (!(mean_weights.weight_sum > 0)) return Weightless{};
    auto mean = std::make_shared<AlignedBuffer>(shares.begin()->second.elements * sizeof(float));
    write_mean(mean_weights.of, rows, 0, mean->floats());
    return Averaged{payload_of(std::move(mean)), mean_weights.weight_sum};
}

}  // namespace

Nanos Groups::duration(std::size_t members, std::uint64_t bytes) const {
    const auto n = static_cast<double>(members);
    Nanos time{options_.latency * static_cast<std::int64_t>(members - 1)};
    if (options_.bandwidth_bytes_per_s > 0) {
        const double seconds =
            2 * (n - 1) / n * static_cast<double>(bytes) / options_.bandwidth_bytes_per_s;
        time += Nanos{static_cast<std::int64_t>(std::llround(seconds * 1e9))};
    }
    return time;
}

void Groups::form(const Member& self, Group group, Nanos deadline) {
    leave(self);
    const GroupEpoch epoch = group.epoch;
    std::shared_ptr<Live>& live = groups_[epoch];
    if (live == nullptr) {
        live = std::make_shared<Live>();
        live->group = std::move(group);
        later_(deadline, [this, live] { form_late(live); });
    } else if (live->group != group) {
        return post_(self, Nanos{0},
                     GroupFormed{epoch, fail(ErrorCode::wrong_epoch,
                                             "another group has this epoch already")});
    }
    of_[self.id] = live;
    live->attached[live->group.index_of(self.id)] = self;
    if (live->broken) {
        return post_(self, Nanos{0}, GroupFormed{epoch, live->broken->error});
    }
    if (!live->complete()) return;
    live->formed = true;
    for (const auto& [position, member] : live->attached) {
        post_(member, options_.latency, GroupFormed{epoch, {}});
    }
}

void Groups::form_late(const std::shared_ptr<Live>& live) {
    if (live->formed || live->broken) return;
    break_up(*live, ErrorCode::timed_out, "did not come to form the group within the deadline",
             absent(live->attached, live->group.members.size()));
}

void Groups::reduce(const Member& self, const CollectiveKey& key, GradientShare share,
                    Nanos deadline) {
    const auto found = of_.find(self.id);
    std::optional<Broken> refused;
    if (found == of_.end()) {
        refused = Broken{fail(ErrorCode::peer_lost, "no group is formed to average in"), {}};
    } else if (found->second->group.epoch != key.epoch) {
        refused = Broken{fail(ErrorCode::wrong_epoch,
                              to_string(key) + " is of no group of " + to_string(node_of(self.id))),
                         {}};
    } else if (found->second->broken) {
        refused = found->second->broken;
    } else if (auto checked = check_share(share); !checked) {
        refused = Broken{checked.error(), {}};
    }
    if (refused) {
        return post_(self, Nanos{0},
                     Reduced{{key, std::move(*refused), std::move(share.gradient)}});
    }
    std::shared_ptr<Live> live = found->second;
    const Place place{key.step, key.bucket};
    Entry& entry = live->entries[place];
    invariant(entry.shares.empty() || entry.shares.begin()->second.elements == share.elements,
              "members of a simulated group agree about the elements of a key");
    entry.shares[live->group.index_of(self.id)] = std::move(share);
    if (entry.shares.size() == live->group.members.size()) return end(*live, place);
    later_(deadline, [this, live, place] {
        const auto late = live->entries.find(place);
        if (live->broken || late == live->entries.end()) return;
        break_up(*live, ErrorCode::timed_out,
                 "did not join " + to_string({live->group.epoch, place.first, place.second}) +
                     " within the deadline",
                 absent(late->second.shares, live->group.members.size()));
    });
}

void Groups::end(Live& live, const Place& place) {
    const auto found = live.entries.find(place);
    Entry entry = std::move(found->second);
    live.entries.erase(found);
    const auto result = mean_of(entry.shares);
    const Nanos takes =
        duration(entry.shares.size(), entry.shares.begin()->second.elements * sizeof(float));
    const CollectiveKey key{live.group.epoch, place.first, place.second};
    for (auto& [position, share] : entry.shares) {
        post_(live.attached.at(position), takes, Reduced{{key, result, std::move(share.gradient)}});
    }
}

void Groups::break_up(Live& live, ErrorCode code, const std::string& why,
                      const std::vector<std::size_t>& missing) {
    const std::uint64_t bits = as_bits(missing);
    const Broken broken{fail(code, live.group.names_of(bits) + " " + why), live.group.ids_of(bits)};
    live.broken = broken;
    for (auto& [place, entry] : live.entries) {
        const CollectiveKey key{live.group.epoch, place.first, place.second};
        for (auto& [position, share] : entry.shares) {
            const auto member = live.attached.find(position);
            if (member == live.attached.end()) continue;
            post_(member->second, options_.latency,
                  Reduced{{key, broken, std::move(share.gradient)}});
        }
    }
    live.entries.clear();
    for (const auto& [position, member] : live.attached) {
        if (live.formed) {
            post_(member, options_.latency, GroupBroken{live.group.epoch, broken});
        } else {
            post_(member, options_.latency, GroupFormed{live.group.epoch, broken.error});
        }
    }
}

void Groups::leave(const Member& self) {
    const auto found = of_.find(self.id);
    if (found == of_.end()) return;
    const std::shared_ptr<Live> live = found->second;
    const std::size_t position = live->group.index_of(self.id);
    of_.erase(found);
    live->attached.erase(position);
    if (!live->broken && live->group.members.size() > 1) {
        break_up(*live, ErrorCode::peer_lost, "left", {position});
    }
    if (live->attached.empty()) groups_.erase(live->group.epoch);
}

}  // namespace detente::sim
