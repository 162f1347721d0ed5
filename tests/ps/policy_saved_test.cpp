#include "ps/policy_saved.h"

#include <catch2/catch.hpp>
#include <limits>

namespace detente {
namespace {

TEST_CASE("saved policy: comes back to the bit without what was buffered") {
    PolicyState state;
    state.values = {0.1, -0.0, std::numeric_limits<double>::infinity()};
    state.workers[WorkerId{3}] = {1, 0.3};
    state.workers[WorkerId{9}] = {};
    const std::string saved = saved_policy("kardam", state);
    const auto again = restored_policy("kardam", saved);
    REQUIRE(again.has_value());
    REQUIRE(again->has_value());
    CHECK(**again == state);
    state.kept = {{1, WorkerId{3}, 1}};
    CHECK(saved_policy("kardam", state) == saved);
}

TEST_CASE("saved policy: another policy begins anew and what is no state is refused") {
    const std::string saved = saved_policy("ssp", {});
    const auto other = restored_policy("dssp", saved);
    REQUIRE(other.has_value());
    CHECK_FALSE(other->has_value());
    for (const std::string& wrong :
         {std::string("policy 2 ssp 0 0"), std::string("policy 1 ssp"),
          std::string("policy 1 ssp 99999999 0"), saved.substr(0, saved.size() - 1)}) {
        INFO(wrong);
        const auto read = restored_policy("ssp", wrong);
        REQUIRE(read.has_error());
        CHECK(read.error().code == ErrorCode::bad_checkpoint);
    }
}

}  // namespace
}  // namespace detente
