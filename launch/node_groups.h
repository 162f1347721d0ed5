// Which workers are of one node, and who of them averages layers in step now ([sync]): the
// coordinator's, which alone decides epochs.
//
// A node's workers are those of one host, or of one part of it where launch.nodes makes virtual
// ones. One that is lost, leaves, or is missed in an average is left out of the next group; one
// that is missed and lives goes on by itself, and is taken in again after a while; missed soon
// again, after twice as long.
//
// Thread: the coordinator's. Pure: what is returned is to be sent.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/config.h"
#include "common/messages.h"

namespace detente {

class NodeGroups {
  public:
    explicit NodeGroups(const Job& job);

    bool designated() const { return designated_; }
    // Workers that begin together. bad_job: more of them in a node than a group may have.
    Result<std::vector<Group>> begin(const std::vector<Endpoint>& workers);
    // Below: the groups to be formed now, because …
    std::vector<Group> joined(const Endpoint& worker);  // … this one came
    // … it was lost; of one that left in order the others hear at the next tick, when those that
    // end with it have ended, too.
    std::vector<Group> gone(WorkerId worker, bool in_order = false);
    std::vector<Group> lost(WorkerId from, const LostGroup& lost, Time now);
    // … a group could not be formed, and some did not even say so; or one that was missed has been
    // by itself for long enough.
    std::vector<Group> tick(Time now);

    std::vector<Group> groups() const;  // as they are, those of one worker too
    // Whether the workers of some node go on alone because no group of theirs could be formed.
    bool gave_up() const { return gave_up_; }

    // Those who can tell that a group was not formed have this long to say so.
    static constexpr Nanos kReportsWithin = std::chrono::seconds(5);
    // Whoever was missed is by itself for so long at first, and for so long at most.
    static constexpr Nanos kReturnsAfter = std::chrono::seconds(10);
    static constexpr Nanos kReturnsAtMost = std::chrono::minutes(20);
    // So often a group is tried that all say they could not form.
    static constexpr int kMostAttempts = 3;

  private:
    struct Absence {
        Time until{};
        Nanos lasts{};
    };
    struct Node {
        std::string name;
        Group group;
        std::vector<Group> apart;            // of one worker each
        std::map<WorkerId, Absence> missed;  // the latest of each, over or not
        std::set<WorkerId> left;             // in order, since it was formed
        std::set<WorkerId> reported;
        Time first_report{};
        int attempts = 0;
    };
    Node& node_of_worker(const Endpoint& worker);
    Node* find(WorkerId worker);
    Group next_group(std::vector<WorkerId> members);
    std::vector<Group> without(Node& node, const std::set<WorkerId>& left_out, bool alive);
    static void miss(Node& node, const std::set<WorkerId>& workers, Time now);
    std::vector<Group> take_in_again(Node& node, Time now);

    const bool designated_;
    const std::uint32_t virtual_nodes_;
    const std::uint32_t workers_;
    GroupEpoch epoch_{0};
    std::vector<Node> nodes_;
    bool gave_up_ = false;
};

}  // namespace detente
