// A method for some of a job's tasks: its parameters, and where its state is kept among all tasks'.
#include "common/conflict/members.h"

#include <catch2/catch.hpp>
#include <numeric>
#include <set>

namespace detente {
namespace {

constexpr TaskSet kFirstAndLast{0b101};  // of three

std::string member_text(const std::string& method, const std::string& name,
                        const std::string& text) {
    const AggregatorConfig own = for_members({method, {{name, text}}}, kFirstAndLast, 3);
    REQUIRE(own.parameters.size() == 1);
    REQUIRE(make_aggregator(own).has_value());
    return own.parameters.front().second;
}

TEST_CASE("members: of what a parameter lists per task they have their own part") {
    CHECK(member_text("constant", "weights", "1,2,3") == "1,3");
    CHECK(member_text("constant", "weights", "[1, 2, 3]") == "1,3");
    CHECK(member_text("stch", "z", "0.5,0,-1") == "0.5,-1");
    CHECK(member_text("graddrop", "leak", "0,0.5,1") == "0,1");
    CHECK(member_text("mgda", "preference", "2,1,4") == "2,4");
    CHECK(member_text("pcgrad", "order", "1,2;2,0;0,1") == "1;0");
    CHECK(member_text("gradvac", "order", "0,1,2;0,1,2;0,1,2") == "0,1;0,1");
}

TEST_CASE("members: a parameter that lists nothing per task is theirs as it is") {
    CHECK(member_text("constant", "weights", "2") == "2");
    CHECK(member_text("constant", "weights", "[2]") == "[2]");
    CHECK(member_text("mgda", "preference", "none") == "none");
    CHECK(member_text("pcgrad", "order", "drawn") == "drawn");
    CHECK(member_text("cagrad", "c", "0.25") == "0.25");
}

TEST_CASE("members: their Gramian and values are what all have without the others") {
    Gramian whole(3);
    for (std::size_t i = 0; i < 3; ++i) {
        for (std::size_t j = 0; j < 3; ++j) whole.at(i, j) = 10 * double(i) + double(j);
    }
    const Gramian own = for_members(whole, kFirstAndLast);
    REQUIRE(own.tasks() == 2);
    CHECK(own.at(0, 0) == 0);
    CHECK(own.at(0, 1) == 2);
    CHECK(own.at(1, 0) == 20);
    CHECK(own.at(1, 1) == 22);
    const std::vector<double> values = {5, 6, 7};
    CHECK(for_members(values, kFirstAndLast) == std::vector<double>{5, 7});
    CHECK(for_members(std::vector<double>{}, kFirstAndLast).empty());
    const std::vector<double> back = {8, 9};
    CHECK(for_all(back, kFirstAndLast, 3, 1) == std::vector<double>{8, 1, 9});
}

TEST_CASE("members: a state of all tasks has a place for every value of a state of theirs") {
    for (const std::string& name : aggregator_names()) {
        for (const char* cr_mogm : {"0", "0.5"}) {
            CAPTURE(name, cr_mogm);
            const auto method = make_aggregator({name, {{"cr_mogm", cr_mogm}}});
            if (!method) continue;  // it works by coordinates and has no weights to average
            const std::vector<std::size_t> places = (*method)->state_places(kFirstAndLast, 3);
            CHECK(places.size() == (*method)->initial_state(2).values.size());
            const std::set<std::size_t> distinct(places.begin(), places.end());
            CHECK(distinct.size() == places.size());
            const std::size_t all = (*method)->initial_state(3).values.size();
            for (const std::size_t place : places) CHECK(place < all);
            std::vector<std::size_t> every(all);
            std::iota(every.begin(), every.end(), std::size_t{0});
            CHECK((*method)->state_places(TaskSet{0b111}, 3) == every);
        }
    }
}

TEST_CASE("members: lists and matrices of a state are told apart") {
    using Places = std::vector<std::size_t>;
    const auto of = [](const char* name, const char* cr_mogm) {
        const auto method = make_aggregator({name, {{"cr_mogm", cr_mogm}}});
        REQUIRE(method.has_value());
        return (*method)->state_places(kFirstAndLast, 3);
    };
    CHECK(of("mgda", "0").empty());
    CHECK(of("moco", "0") == Places{0, 2});
    CHECK(of("famo", "0") == Places{0, 1, 3, 4, 6});
    CHECK(of("gradvac", "0") == Places{0, 2, 6, 8});
    CHECK(of("mgda", "0.5") == Places{0, 1, 3});
    CHECK(of("moco", "0.5") == Places{0, 2, 3, 4, 6});
}

}  // namespace
}  // namespace detente
