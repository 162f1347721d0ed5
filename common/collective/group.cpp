#include "common/collective/group.h"

#include <algorithm>
#include <cmath>

namespace detente {

std::size_t Group::index_of(WorkerId member) const {
    return static_cast<std::size_t>(std::find(members.begin(), members.end(), member) -
                                    members.begin());
}

std::vector<WorkerId> Group::ids_of(std::uint64_t members_mask) const {
    std::vector<WorkerId> ids;
    for (std::size_t i = 0; i < members.size(); ++i) {
        if ((members_mask >> i & 1U) != 0) ids.push_back(members[i]);
    }
    return ids;
}

std::string Group::names_of(std::uint64_t members_mask) const {
    const std::vector<WorkerId> ids = ids_of(members_mask);
    std::string text;
    for (std::size_t i = 0; i < ids.size(); ++i) {
        if (i > 0) text += i + 1 == ids.size() ? " and " : ", ";
        text += to_string(node_of(ids[i]));
    }
    return text;
}

std::string to_string(const CollectiveKey& key) {
    return "epoch " + std::to_string(key.epoch.value) + ", step " + std::to_string(key.step.value) +
           ", bucket " + std::to_string(key.bucket.value);
}

Result<void> check_group(const Group& group, WorkerId self) {
    const auto count = group.members.size();
    if (count == 0 || count > kMostGroupMembers) {
        return fail(ErrorCode::over_limit, "a group has 1 to " + std::to_string(kMostGroupMembers) +
                                               " members, not " + std::to_string(count) +
                                               "; make more nodes of fewer workers");
    }
    for (std::size_t i = 1; i < count; ++i) {
        if (!(group.members[i - 1] < group.members[i])) {
            return fail(ErrorCode::internal, "a group's members ascend, but " +
                                                 to_string(node_of(group.members[i - 1])) +
                                                 " stands before " +
                                                 to_string(node_of(group.members[i])));
        }
    }
    if (group.index_of(self) == count) {
        return fail(ErrorCode::internal,
                    to_string(node_of(self)) + " is no member of the group it is to form");
    }
    return {};
}

GradientShare cancelled_share(std::uint64_t elements) { return {elements, 0, {}}; }

Result<void> check_share(const GradientShare& share) {
    if (!std::isfinite(share.weight) || share.weight < 0) {
        return fail(ErrorCode::not_finite,
                    "a weight in an average is finite and not negative, not " +
                        std::to_string(share.weight));
    }
    const bool left_out = share.weight == 0 && share.gradient.empty();
    if (!left_out && share.gradient.size() != share.elements * sizeof(float)) {
        return fail(ErrorCode::bad_length,
                    "a gradient of " + std::to_string(share.elements) + " elements has " +
                        std::to_string(share.elements * sizeof(float)) + " bytes, not " +
                        std::to_string(share.gradient.size()));
    }
    return {};
}

}  // namespace detente
