#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "common/conflict/aggregator.h"
#include "common/random.h"
#include "tests/reference/conflict_reference.h"
#include "tests/reference/qp_reference.h"

namespace detente {
namespace {

using reference::Row;
using reference::Rows;

AggregatorOutput pcgrad(const Gramian& g, const std::string& order, std::uint64_t key = 1) {
    AggregatorConfig config{"pcgrad", {}};
    if (!order.empty()) config.parameters.emplace_back("order", order);
    const auto method = make_aggregator(config);
    REQUIRE(method.has_value());
    AggregatorState state = method.value()->initial_state(g.tasks());
    const auto output = method.value()->weights({&g, {}, key}, state);
    REQUIRE(output.has_value());
    return *output;
}

using Orders = std::vector<std::vector<std::uint32_t>>;

Orders random_orders(Random& random, std::uint32_t tasks) {
    Orders orders;
    for (std::uint32_t i = 0; i < tasks; ++i) orders.push_back(permutation(random.bits(), tasks));
    return orders;
}

// With each task in its own list too, as `0,1;1,0`.
std::string text_of(const Orders& orders) {
    std::string text;
    for (const auto& list : orders) {
        if (!text.empty()) text += ';';
        for (std::size_t k = 0; k < list.size(); ++k) {
            if (k > 0) text += ',';
            text += std::to_string(list[k]);
        }
    }
    return text;
}

}  // namespace

TEST_CASE("pcgrad: the worked example, under any order") {
    const Rows rows = {{-4, 1, 1}, {6, 1, 1}};
    const Gramian g = reference::gramian_of(rows);
    for (const std::string order : {"", "1;0", "0,1;1,0", " 1 ; 0 "}) {
        const AggregatorOutput output = pcgrad(g, order);
        REQUIRE(output.weights[0] == Approx(1 + 22.0 / 18).epsilon(1e-14));
        REQUIRE(output.weights[1] == Approx(1 + 22.0 / 38).epsilon(1e-14));
        const Row result = reference::combined(output.weights, rows);
        REQUIRE(result[0] == Approx(0.5848).margin(5e-5));
        REQUIRE(result[1] == Approx(3.8012).margin(5e-5));
        REQUIRE(result[2] == Approx(3.8012).margin(5e-5));
        REQUIRE(output.status == AggregatorStatus::ok);
    }
}

TEST_CASE("pcgrad: gives the vectors of the paper's algorithm, for any order, rank and scale") {
    Random random(random_key(1, Purpose::test));
    for (const std::size_t tasks : {1, 2, 3, 5, 8, 16}) {
        for (const std::size_t rank : {std::size_t{1}, (tasks + 1) / 2, tasks}) {
            for (const double scale : {1e-12, 1.0, 1e12}) {
                CAPTURE(tasks, rank, scale);
                const Rows rows = reference::random_rows(random, tasks, 20, rank,
                                                         std::vector<double>(tasks, scale));
                const Orders orders = random_orders(random, static_cast<std::uint32_t>(tasks));
                const Gramian g = reference::gramian_of(rows);
                const Row expected = reference::pcgrad(rows, orders);
                const Row found = reference::combined(pcgrad(g, text_of(orders)).weights, rows);
                for (std::size_t k = 0; k < expected.size(); ++k) {
                    REQUIRE(found[k] == Approx(expected[k]).margin(1e-9 * scale));
                }
            }
        }
    }
}

TEST_CASE("pcgrad: projects against the others as they came, not as they were projected") {
    // Were task 0's gradient replaced by its projection first, task 1 would find no conflict.
    const Rows rows = {{1, 0}, {-1, 1}};
    const Row result =
        reference::combined(pcgrad(reference::gramian_of(rows), "1;0").weights, rows);
    REQUIRE(result[0] == Approx(0.5));
    REQUIRE(result[1] == Approx(1.5));
}

TEST_CASE("pcgrad: leaves gradients alone that do not conflict") {
    const Gramian g = reference::gramian_of({{1, 0, 0}, {1, 1, 0}, {0, 0, 2}});
    REQUIRE(pcgrad(g, "").weights == std::vector<double>{1, 1, 1});
}

TEST_CASE("pcgrad: two tasks equal UPGrad with unit preferences") {
    Random random(random_key(2, Purpose::test));
    for (int trial = 0; trial < 100; ++trial) {
        const Gramian g = reference::gramian_of(reference::random_rows(random, 2, 3, 2));
        const std::vector<double> expected = reference::upgrad_weights(g);
        const std::vector<double> found = pcgrad(g, "", random.bits()).weights;
        REQUIRE(found[0] == Approx(expected[0]).epsilon(1e-10));
        REQUIRE(found[1] == Approx(expected[1]).epsilon(1e-10));
    }
}

TEST_CASE("pcgrad: permuting tasks and visits permutes the weights") {
    Random random(random_key(3, Purpose::test));
    for (const std::uint32_t tasks : {3, 6}) {
        const Rows rows = reference::random_rows(random, tasks, 10, tasks);
        const Orders orders = random_orders(random, tasks);
        const auto moved = permutation(random.bits(), tasks);  // new place k holds task moved[k]
        std::vector<std::uint32_t> place(tasks);
        for (std::uint32_t k = 0; k < tasks; ++k) place[moved[k]] = k;
        Rows shuffled;
        Orders shuffled_orders;
        for (const std::uint32_t task : moved) {
            shuffled.push_back(rows[task]);
            shuffled_orders.emplace_back();
            for (const std::uint32_t j : orders[task]) shuffled_orders.back().push_back(place[j]);
        }
        const auto straight = pcgrad(reference::gramian_of(rows), text_of(orders)).weights;
        const auto found =
            pcgrad(reference::gramian_of(shuffled), text_of(shuffled_orders)).weights;
        for (std::uint32_t k = 0; k < tasks; ++k) {
            REQUIRE(found[k] == Approx(straight[moved[k]]).epsilon(1e-10));
        }
    }
}

TEST_CASE("pcgrad: draws its order from the key alone, and draws different ones") {
    Random random(random_key(4, Purpose::test));
    const Gramian g =
        reference::gramian_of({{1, 0, 0.1}, {-0.6, 0.8, 0}, {-0.5, -0.7, 0.3}, {0.2, -0.5, -0.9}});
    std::vector<std::vector<double>> seen;
    for (std::uint64_t key = 0; key < 20; ++key) {
        const std::vector<double> once = pcgrad(g, "", key).weights;
        REQUIRE(pcgrad(g, "", key).weights == once);
        if (std::find(seen.begin(), seen.end(), once) == seen.end()) seen.push_back(once);
    }
    REQUIRE(seen.size() > 3);
}

TEST_CASE("pcgrad: zero gradients conflict with nobody, all zero is said so") {
    const Gramian g = reference::gramian_of({{-4, 1, 1}, {0, 0, 0}, {6, 1, 1}});
    const std::vector<double> w = pcgrad(g, "").weights;
    REQUIRE(w[0] == Approx(1 + 22.0 / 18));
    REQUIRE(w[1] == 1);
    REQUIRE(w[2] == Approx(1 + 22.0 / 38));
    const AggregatorOutput zero = pcgrad(Gramian(3), "");
    REQUIRE(zero.status == AggregatorStatus::all_zero);
    REQUIRE(zero.weights == std::vector<double>{1, 1, 1});
}

TEST_CASE("pcgrad: opposite gradients leave nothing") {
    const Rows rows = {{1, 2}, {-2, -4}};
    const Row result = reference::combined(pcgrad(reference::gramian_of(rows), "").weights, rows);
    REQUIRE(result[0] == Approx(0).margin(1e-12));
    REQUIRE(result[1] == Approx(0).margin(1e-12));
}

TEST_CASE("pcgrad: an order that is none is refused when the job is read") {
    const auto refused = [](const std::string& order, const std::string& says) {
        const auto method = make_aggregator({"pcgrad", {{"order", order}}});
        REQUIRE(method.has_error());
        REQUIRE(method.error().code == ErrorCode::bad_job);
        CAPTURE(method.error().text);
        REQUIRE(method.error().text.find(says) != std::string::npos);
    };
    refused("1;x", "'x'");
    refused("1;2", "'2'");
    refused("1;-1", "'-1'");
    refused("1,2;;0,1", "''");
    refused("1,2;0,2;0", "visit 1 of 2 others");
    refused("1,2;0,0,2;0,1", "visit 0 twice");
    refused("1,2;0;1", "visit 1 of 2 others");
}

TEST_CASE("pcgrad: an order for another number of tasks is refused") {
    const auto method = make_aggregator({"pcgrad", {{"order", "1;0"}}});
    REQUIRE(method.has_value());
    const Gramian g = reference::gramian_of({{1, 0}, {0, 1}, {1, 1}});
    AggregatorState state;
    const auto output = method.value()->weights({&g, {}, 0}, state);
    REQUIRE(output.has_error());
    REQUIRE(output.error().code == ErrorCode::bad_job);
    REQUIRE(output.error().text.find("2 tasks, but there are 3") != std::string::npos);
}

}  // namespace detente
