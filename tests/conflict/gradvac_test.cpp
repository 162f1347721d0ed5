// GradVac against its paper's algorithm on vectors, over steps: its targets are averages of the
// cosines seen, so that a wrong one shows in later steps only.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "common/random.h"
#include "tests/conflict/method_run.h"
#include "tests/reference/gradvac_reference.h"

namespace detente {
namespace {

using reference::GradVacReference;
using reference::Row;
using reference::Rows;

struct VaccineShape {
    std::size_t tasks;
    std::size_t elements;  // fewer than tasks too
    std::size_t rank;
    double scale;  // 0: rows of very different length
};

std::vector<VaccineShape> vaccine_shapes() {
    std::vector<VaccineShape> all;
    for (const std::size_t tasks : {3, 5}) {
        for (const std::size_t elements : {std::size_t{2}, tasks, tasks + 4, std::size_t{40}}) {
            for (const std::size_t rank : {(tasks + 1) / 2, tasks}) {
                for (const double scale : {1e-12, 1.0, 1e12, 0.0}) {
                    all.push_back({tasks, elements, rank, scale});
                }
            }
        }
    }
    return all;
}

// Every other step has gradients that agree more, so that targets are above the cosines of the
// steps between, and gradients are moved that are not in conflict.
std::vector<Rows> vaccine_steps(const VaccineShape& shape, Random& random) {
    std::vector<double> scales(shape.tasks, shape.scale);
    for (double& s : scales) s = s == 0 ? std::pow(10.0, 6 * random.uniform() - 3) : s;
    std::vector<Rows> steps;
    for (int step = 0; step < 6; ++step) {
        Rows rows = reference::random_rows(random, shape.tasks, shape.elements, shape.rank, scales);
        for (std::size_t k = 0; k < shape.elements; ++k) {
            const double common = random.normal();
            for (std::size_t i = 0; i < shape.tasks && step % 2 == 1; ++i) {
                rows[i][k] += scales[i] * common;
            }
        }
        steps.push_back(std::move(rows));
    }
    return steps;
}

std::string vaccine_order_text(const GradVacReference::Orders& orders) {
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

// The same sums in another order: what is left of a gradient may be a thousandth of it, whose
// cosine then has lost three digits of fifteen, and √(1 − φ²) as many again near φ = ±1.
constexpr double kVaccineMargin = 1e-8;

void require_targets(const DenseAggregation& found, const GradVacReference& expected) {
    test::require_near(found.state().values, expected.targets(), kVaccineMargin);
}

}  // namespace

TEST_CASE("gradvac: follows the paper's algorithm on vectors over steps in a fixed order") {
    Random random(random_key(1, Purpose::test));
    int moves = 0;
    int beyond = 0;
    for (const VaccineShape& shape : vaccine_shapes()) {
        for (const double beta : {0.01, 0.5, 1.0}) {
            CAPTURE(shape.tasks, shape.elements, shape.rank, shape.scale, beta);
            GradVacReference::Orders orders;
            for (std::size_t i = 0; i < shape.tasks; ++i) {
                orders.push_back(
                    permutation(random.bits(), static_cast<std::uint32_t>(shape.tasks)));
            }
            GradVacReference slow(shape.tasks, beta);
            DenseAggregation fast(test::made("gradvac", {{"beta", std::to_string(beta)},
                                                         {"order", vaccine_order_text(orders)}}),
                                  7);
            for (const Rows& rows : vaccine_steps(shape, random)) {
                const Row expected = slow.step(rows, orders);
                const auto found = fast.step({rows, {}, {}});
                REQUIRE(found.has_value());
                REQUIRE(found->output.status == AggregatorStatus::ok);
                const double size = std::max(test::length(expected), test::longest(rows));
                test::require_near(found->result, expected, kVaccineMargin * size);
                require_targets(fast, slow);
            }
            moves += slow.moves();
            beyond += slow.moves_beyond_surgery();
        }
    }
    // Neither the branch of a conflict nor that of a target above 0 was left out.
    REQUIRE(moves > 1000);
    REQUIRE(beyond > 500);
}

TEST_CASE("gradvac: draws its visits anew at every step from the key and keeps its targets") {
    Random random(random_key(2, Purpose::test));
    constexpr std::uint64_t kSeed = 11;
    for (const VaccineShape& shape : vaccine_shapes()) {
        CAPTURE(shape.tasks, shape.elements, shape.rank, shape.scale);
        GradVacReference slow(shape.tasks, 0.3);
        DenseAggregation fast(test::made("gradvac", {{"beta", "0.3"}}), kSeed);
        std::uint64_t step = 0;
        for (const Rows& rows : vaccine_steps(shape, random)) {
            const std::uint64_t key = random_key(kSeed, Purpose::aggregator, {step++});
            const Row expected = slow.step(rows, slow.drawn(key));
            const auto found = fast.step({rows, {}, {}});
            REQUIRE(found.has_value());
            const double size = std::max(test::length(expected), test::longest(rows));
            test::require_near(found->result, expected, kVaccineMargin * size);
            require_targets(fast, slow);
        }
    }
}

TEST_CASE("gradvac: a zero gradient moves nobody and no target of its own") {
    const Rows rows = {{1, 0, 0}, {0, 0, 0}, {-1, 1, 0}};
    DenseAggregation vaccine(test::made("gradvac", {{"beta", "0.5"}}), 1);
    const auto first = vaccine.step({rows, {}, {}});
    // As PCGrad's: 1 + 1 and 1 + 1/2, and the zero gradient's own weight.
    test::require_near(first->output.weights, {2, 1, 1.5}, 1e-12);
    REQUIRE(first->output.status == AggregatorStatus::ok);
    const std::vector<double>& targets = vaccine.state().values;
    const double seen = -0.5 / std::sqrt(2.0);  // half of the pair's cosine
    test::require_near(targets, {0, 0, seen, 0, 0, 0, seen, 0, 0}, 1e-12);
    const auto zeros = vaccine.step({{{0, 0, 0}, {0, 0, 0}, {0, 0, 0}}, {}, {}});
    REQUIRE(zeros->output.status == AggregatorStatus::all_zero);
    REQUIRE(zeros->output.weights == std::vector<double>{1, 1, 1});
    test::require_near(vaccine.state().values, {0, 0, seen, 0, 0, 0, seen, 0, 0}, 1e-12);
}

TEST_CASE("gradvac: a target of one is drawn to as far as the formula goes") {
    DenseAggregation vaccine(test::made("gradvac", {{"beta", "1"}, {"order", "1;0"}}), 1);
    REQUIRE(vaccine.step({{{1, 0}, {2, 0}}, {}, {}}).has_value());
    const auto drawn = vaccine.step({{{1, 0}, {0, 2}}, {}, {}});
    // Cosine 1 − 1e-6 with the other: a share of φ̂/√(1 − φ̂²) of its direction.
    const double wanted = 1 - 1e-6;
    const double share = wanted / std::sqrt(1 - wanted * wanted);
    REQUIRE(drawn->output.weights[0] == Approx(1 + 2 * share).epsilon(1e-9));
    REQUIRE(drawn->output.weights[1] == Approx(1 + share / 2).epsilon(1e-9));
}

}  // namespace detente
