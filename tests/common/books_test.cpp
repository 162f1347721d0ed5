#include "common/books.h"

#include <catch2/catch.hpp>

namespace detente {
namespace {

TEST_CASE("books: balance when every computed block of a step is somewhere") {
    CHECK(Books{}.balance("empty").has_value());
    CHECK(Books{21, 6, 5, 4, 3, 3}.balance("shard:0").has_value());
}

TEST_CASE(
    "books: a difference either way is an internal error that names whose, all and how much") {
    for (const std::uint64_t computed : {20U, 22U}) {
        const auto balanced = Books{computed, 6, 5, 4, 3, 3}.balance("shard:0");
        REQUIRE(balanced.has_error());
        CHECK(balanced.error().code == ErrorCode::internal);
        CHECK_THAT(balanced.error().text, Catch::Contains("shard:0"));
        CHECK_THAT(balanced.error().text, Catch::Contains(std::to_string(computed)));
        CHECK_THAT(balanced.error().text, Catch::Contains("21"));
    }
}

TEST_CASE("books: each count enters the balance once") {
    const Books even{21, 6, 5, 4, 3, 3};
    for (std::uint64_t Books::*count :
         {&Books::applied, &Books::rejected, &Books::cancelled, &Books::lost, &Books::in_flight}) {
        Books odd = even;
        odd.*count += 1;
        CHECK(odd.balance("run").has_error());
        odd.computed += 1;
        CHECK(odd.balance("run").has_value());
    }
}

TEST_CASE("books: the sum of balanced books balances, count by count") {
    Books sum;
    sum.add({21, 6, 5, 4, 3, 3});
    sum.add({5, 1, 1, 1, 1, 1});
    CHECK(sum.computed == 26);
    CHECK(sum.applied == 7);
    CHECK(sum.rejected == 6);
    CHECK(sum.cancelled == 5);
    CHECK(sum.lost == 4);
    CHECK(sum.in_flight == 4);
    CHECK(sum.balance("run").has_value());
}

}  // namespace
}  // namespace detente
