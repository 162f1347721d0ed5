// Averages among the members of simulated groups, on virtual time: what worker/collectives
// promises, with losses seen at once and durations of a ring's kind. In place of a backend there:
// a backend has threads and waits, a simulation has one thread and never does.
//
// A key of n members and B bytes ends at all of them `latency` · (n − 1) + 2 · (n − 1)/n · B /
// bandwidth after its last member has joined (Thakur, Rabenseifner and Gropp 2005, section 4: a
// ring of reduce-scatter and allgather moves that much per member).
//
// A computation's parts come at its virtual end (world_compute.cpp), all at once. So nothing here
// overlaps: a task's average is never underway while the next task's backward computes, as it is in
// a real worker, and a simulated node waits for all its averages after its gradients.
//
// Thread: the world's.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "common/runtime/contracts.h"

namespace detente::sim {

struct GroupOptions {
    Nanos latency{0};
    double bandwidth_bytes_per_s = 0;  // 0 = without limit
};

class Groups {
  public:
    // One life of a worker.
    struct Member {
        WorkerId id;
        std::uint64_t life = 0;
    };
    // Hands an event to a member so much later; another life of it does not get it.
    using Post = std::function<void(const Member& to, Nanos delay, Event event)>;
    using Later = std::function<void(Nanos delay, std::function<void()> action)>;

    Groups(GroupOptions options, Post post, Later later)
        : options_(options), post_(std::move(post)), later_(std::move(later)) {}

    void form(const Member& self, Group group, Nanos deadline);
    void reduce(const Member& self, const CollectiveKey& key, GradientShare share, Nanos deadline);
    // It has ended, however: its group breaks.
    void leave(const Member& self);

  private:
    using Place = std::pair<Step, Bucket>;
    struct Entry {
        std::map<std::size_t, GradientShare> shares;  // by position in the group
    };
    struct Live {
        Group group;
        std::map<std::size_t, Member> attached;  // by position
        bool formed = false;
        std::optional<Broken> broken;
        std::map<Place, Entry> entries;
        bool complete() const { return attached.size() == group.members.size(); }
    };

    void form_late(const std::shared_ptr<Live>& live);
    void end(Live& live, const Place& place);
    void break_up(Live& live, ErrorCode code, const std::string& why,
                  const std::vector<std::size_t>& missing);
    Nanos duration(std::size_t members, std::uint64_t bytes) const;

    GroupOptions options_;
    Post post_;
    Later later_;
    std::map<GroupEpoch, std::shared_ptr<Live>> groups_;
    std::map<WorkerId, std::shared_ptr<Live>> of_;
};

}  // namespace detente::sim
