#include "common/nearest_name.h"

#include <catch2/catch.hpp>

namespace detente {
namespace {

TEST_CASE("nearest name: finds typing mistakes") {
    const std::vector<std::string> valid = {"sgd", "adagrad", "rmsprop", "adam", "adamw"};
    CHECK(nearest_name("adm", valid) == "adam");
    CHECK(nearest_name("rmsprpo", valid) == "rmsprop");
    CHECK(nearest_name("SGD", valid) == "sgd");
    CHECK(nearest_name("Adam-W", {"adam", "adam_w"}) == "adam_w");
    CHECK(nearest_name("adagard", valid) == "adagrad");
}

TEST_CASE("nearest name: a swap of neighbours is one edit, not two") {
    CHECK(nearest_name("abdc", {"abxx1", "xbdc1", "abcd"}) == "abcd");
    CHECK(nearest_name("ba", {"bcd", "ab"}) == "ab");
}

TEST_CASE("nearest name: something for everything, nothing only for no choice") {
    CHECK(nearest_name("", {"server", "ps"}) == "ps");
    CHECK(nearest_name("zzzzzz", {"one"}) == "one");
    CHECK(nearest_name("anything", {}).empty());
    CHECK(nearest_name("tie", {"tia", "tib"}) == "tia");
}

}  // namespace
}  // namespace detente
