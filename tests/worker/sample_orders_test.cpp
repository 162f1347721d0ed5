#include "worker/sample_orders.h"

#include <algorithm>
#include <catch2/catch.hpp>

namespace detente {
namespace {

TEST_CASE("sample orders: as many are kept as there are data epochs in use") {
    for (const std::uint32_t in_use : {1U, 2U, 3U, 8U, 64U}) {
        INFO(in_use);
        SampleOrders orders(7, 100);
        for (int round = 0; round < 50; ++round) {
            for (std::uint32_t epoch = 0; epoch < in_use; ++epoch) orders.order_of(epoch);
        }
        CHECK(orders.made() == in_use);
        CHECK(orders.kept() == in_use);
    }
}

TEST_CASE("sample orders: one that nobody asks for any more is let go when the next is made") {
    SampleOrders orders(7, 100);
    const SampleOrders::Order first = orders.order_of(0);
    for (std::uint64_t i = 0; i < SampleOrders::kInUse; ++i) orders.order_of(1);
    orders.order_of(2);
    CHECK(orders.kept() == 2);
    CHECK(first->size() == 100);  // whoever holds it goes on
    CHECK(*orders.order_of(0) == *first);
    CHECK(orders.made() == 4);
}

TEST_CASE("sample orders: there are never more than the bound and the oldest goes first") {
    SampleOrders orders(7, 10);
    for (std::uint32_t epoch = 0; epoch < 200; ++epoch) {
        orders.order_of(epoch);
        CHECK(orders.kept() <= SampleOrders::kMostKept);
    }
    const std::uint64_t made = orders.made();
    orders.order_of(199);
    orders.order_of(200 - static_cast<std::uint32_t>(SampleOrders::kMostKept));
    CHECK(orders.made() == made);
    orders.order_of(0);
    CHECK(orders.made() == made + 1);
}

TEST_CASE("sample orders: each data epoch has every sample once and an order of its own") {
    SampleOrders orders(7, 100);
    std::vector<std::uint32_t> first = *orders.order_of(0);
    std::vector<std::uint32_t> second = *orders.order_of(1);
    CHECK(first != second);
    std::sort(first.begin(), first.end());
    std::sort(second.begin(), second.end());
    CHECK(first == second);
    for (std::uint32_t i = 0; i < 100; ++i) CHECK(first[i] == i);
}

}  // namespace
}  // namespace detente
