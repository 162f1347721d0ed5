// Gradients of exactly opposite directions, which many papers leave open: what comes out of each
// method by its own formula, or by the choice its file documents.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "common/random.h"
#include "tests/conflict/method_run.h"

namespace detente {
namespace {

using reference::Row;
using reference::Rows;
using test::made;
using test::require_near;
using test::run;

constexpr AggregatorStatus kSolvable = AggregatorStatus::ok;
constexpr AggregatorStatus kLeftOpen = AggregatorStatus::degenerate;

// Lengths of the second gradient in the first's.
const std::vector<double> kRatios = {1e-6, 1e-3, 0.3, 1, 2.5, 1e3, 1e6};

Row times_row(double by, const Row& row) {
    Row out = row;
    for (double& x : out) x *= by;
    return out;
}

// a, −c·a and, where `third` is there, that.
struct Opposed {
    Opposed(Random& random, double ratio, std::size_t elements) : c(ratio), a(elements) {
        for (double& x : a) x = random.normal();
        rows = {a, times_row(-c, a)};
    }
    void add(const Row& third) { rows.push_back(third); }
    double of_a() const { return test::length(a); }
    double c;
    Row a;
    Rows rows;
};

// What is left of b beside the direction a.
Row beside(const Row& b, const Row& a) {
    Row out = b;
    for (int again = 0; again < 2; ++again) {  // the second takes the first's rounding away
        const double along = reference::dot(out, a) / reference::dot(a, a);
        for (std::size_t k = 0; k < out.size(); ++k) out[k] -= along * a[k];
    }
    return out;
}

Row normal_row(Random& random, std::size_t elements) {
    Row row(elements);
    for (double& x : row) x = random.normal();
    return row;
}

// To rounding, of the longest row or what is expected.
void require_result(const std::string& name, const Rows& rows, const Row& expected,
                    AggregatorStatus status, std::vector<double> losses = {}) {
    CAPTURE(name, rows);
    const DenseResult found = run(name, rows, {}, std::move(losses));
    const double size = std::max(test::longest(rows), test::length(expected));
    require_near(found.result, expected, 1e-12 * size);
    REQUIRE(found.output.status == status);
    for (const double w : found.output.weights) REQUIRE(std::isfinite(w));
}

}  // namespace

TEST_CASE("opposite: of two opposed gradients nothing is left that a method could descend") {
    Random random(random_key(1, Purpose::test));
    for (const double c : kRatios) {
        for (int trial = 0; trial < 10; ++trial) {
            const Opposed pair(random, c, 1 + random.below(8));
            const Row nothing(pair.a.size(), 0.0);
            // The hull holds zero; the dual cone is what is at right angles; surgery takes all.
            for (const std::string name : {"mgda", "dualproj", "upgrad", "pcgrad", "gradvac"}) {
                require_result(name, pair.rows, nothing, kSolvable);
            }
            // No bargain, and no direction with the same positive product with both.
            for (const std::string name : {"nash", "fairgrad", "config"}) {
                require_result(name, pair.rows, nothing, kLeftOpen);
            }
            // Both averages have one length, whatever the losses.
            require_result("db_mtl", pair.rows, nothing, kSolvable, {0.25, 3});
            const std::vector<double> least = {c / (1 + c), 1 / (1 + c)};
            require_near(run("mgda", pair.rows).output.weights, least, 1e-12);
            for (const std::string alpha : {"0.05", "0.5", "1", "3", "100"}) {
                const DenseResult fair = run("fairgrad", pair.rows, {{"alpha", alpha}});
                require_near(fair.output.weights, least, 1e-12);
                REQUIRE(fair.output.status == kLeftOpen);
            }
            REQUIRE(run("config", pair.rows).output.weights == std::vector<double>{0, 0});
        }
    }
}

TEST_CASE("opposite: of two opposed gradients aligned keeps the mean under every scale") {
    Random random(random_key(2, Purpose::test));
    for (const double c : kRatios) {
        const Opposed pair(random, c, 5);
        for (const std::string scale : {"min", "median", "rmse"}) {
            // The one component that is there has its own length.
            CAPTURE(c, scale);
            const DenseResult found = run("aligned", pair.rows, {{"scale", scale}});
            REQUIRE(found.output.status == kSolvable);
            const double share = (1 - c) / 2 / (1 + c * c);
            require_near(found.output.weights, {share, -c * share}, 1e-12);
            require_near(found.result, times_row((1 - c) / 2, pair.a),
                         1e-12 * test::longest(pair.rows));
        }
    }
}

TEST_CASE("opposite: of two opposed gradients cagrad goes back on the mean as far as its ball") {
    Random random(random_key(3, Purpose::test));
    for (const double c : kRatios) {
        const Opposed pair(random, c, 5);
        for (const double radius : {0.1, 0.5, 0.9}) {
            CAPTURE(c, radius);
            // The worst task is the one that opposes the mean; it loses least at (1 − radius)·g₀.
            const DenseResult found = run("cagrad", pair.rows, {{"c", std::to_string(radius)}});
            require_near(found.result, times_row((1 - radius) * (1 - c) / 2, pair.a),
                         1e-12 * test::longest(pair.rows));
            REQUIRE(found.output.status == (c == 1 ? kLeftOpen : kSolvable));
        }
    }
}

TEST_CASE("opposite: of two opposed gradients imtl_g has the least-squares solution") {
    Random random(random_key(4, Purpose::test));
    for (const double c : kRatios) {
        const Opposed pair(random, c, 5);
        CAPTURE(c);
        const DenseResult found = run("imtl_g", pair.rows);
        REQUIRE(found.output.status == kLeftOpen);
        // v ∝ (1, −c), whose sum is zero at c = 1.
        const std::vector<double> expected =
            c == 1 ? std::vector<double>{0.5, 0.5} : std::vector<double>{1 / (1 - c), -c / (1 - c)};
        require_near(found.output.weights, expected, 1e-11);
    }
}

TEST_CASE("opposite: a method that does not look at gradients weighs opposed ones like any") {
    Random random(random_key(5, Purpose::test));
    int methods = 0;
    for (const std::string& name : aggregator_names()) {
        const AggregatorNeeds needs = made(name)->needs();
        if (needs.gramian || needs.coordinates || needs.excess) continue;
        ++methods;
        for (const double c : kRatios) {
            CAPTURE(name, c);
            const Opposed pair(random, c, 4);
            const Rows others = reference::random_rows(random, 2, 4, 2);
            const DenseResult found = run(name, pair.rows);
            const std::vector<double>& w = found.output.weights;
            REQUIRE(w == run(name, others).output.weights);
            REQUIRE(found.output.status == kSolvable);
            require_near(found.result, times_row(w[0] - c * w[1], pair.a),
                         1e-12 * test::longest(pair.rows));
        }
    }
    REQUIRE(methods == 10);  // sum mean constant uw imtl_l dwa rlw gls famo stch
}

TEST_CASE("opposite: methods that step towards the shortest combination come to nothing") {
    for (const std::string name : {"modo", "moco", "sdmgrad"}) {
        for (const double c : {0.3, 1.0, 2.5}) {
            CAPTURE(name, c);
            DenseAggregation aggregation(made(name), 1);
            const Rows rows = {{0.6, 0.8}, {-0.6 * c, -0.8 * c}};
            DenseResult last;
            for (int step = 0; step < 400; ++step) {
                auto result = aggregation.step(test::step_of(rows));
                REQUIRE(result.has_value());
                REQUIRE(result->output.status == kSolvable);
                last = std::move(*result);
            }
            require_near(last.result, {0, 0}, 1e-10);
            double sum = 0;
            for (const double w : last.output.weights) sum += w;
            REQUIRE(sum == Approx(1).epsilon(1e-12));
            require_near(last.output.weights, {c / (1 + c), 1 / (1 + c)}, 1e-10);
        }
    }
}

TEST_CASE("opposite: gradients that stay opposed have the same excess and weights of one") {
    Random random(random_key(6, Purpose::test));
    DenseAggregation excess(made("excess_mtl", {{"eta", "0.5"}}), 1);
    for (int step = 0; step < 5; ++step) {
        const Opposed pair(random, 0.3, 6);
        const auto found = excess.step({pair.rows, {}, {}});
        REQUIRE(found->output.status == kSolvable);
        require_near(found->output.weights, {1, 1}, 1e-12);
        require_near(found->result, times_row(0.7, pair.a), 1e-12);
    }
    DenseAggregation norms(made("gradnorm"), 1);
    const Opposed pair(random, 2.5, 6);
    const auto found = norms.step(test::step_of(pair.rows, {1, 1}));
    require_near(found->result, times_row(-1.5, pair.a), 1e-12);
    // The longer one had too much by .75‖a‖, the shorter too little by that.
    const double first = 1 + 0.025 * pair.of_a();
    const double second = 1 - 0.025 * 2.5 * pair.of_a();
    const auto next = norms.step(test::step_of(pair.rows, {1, 1}));
    require_near(next->output.weights,
                 {2 * first / (first + second), 2 * second / (first + second)}, 1e-12);
}

TEST_CASE("opposite: at each coordinate one of two opposed gradients is kept by its share") {
    constexpr std::size_t kElements = 20000;
    for (const double c : {0.25, 1.0, 3.0}) {
        CAPTURE(c);
        const Row result = run("graddrop", {Row(kElements, 2.0), Row(kElements, -2 * c)}).result;
        double kept = 0;
        for (const double x : result) {
            REQUIRE((x == 2 || x == -2 * c));
            kept += x == 2 ? 1 : 0;
        }
        // Five deviations of the draw.
        REQUIRE(kept / kElements == Approx(1 / (1 + c)).margin(5 * 0.5 / std::sqrt(kElements)));
    }
    const Row none = run("trimmed_mean", {{1, -2}, {-3, 6}, {0, 0}}).result;
    require_near(none, {0, 0}, 0);
    require_near(run("trimmed_mean", {{1, -2}, {-3, 6}, {0.5, 9}}).result, {0.5, 6}, 0);
}

TEST_CASE("opposite: krum leaves the opposed out where others are nearer to each other") {
    // Squared distances 4, 2, 5, 2, 5, 1: of two nearest each, 6, 6, 3 and 6.
    const DenseResult four = run("krum", {{1, 0}, {-1, 0}, {0, 1}, {0, 2}});
    REQUIRE(four.output.weights == std::vector<double>{0, 0, 1, 0});
    REQUIRE(four.output.status == kSolvable);
    // Of three each has one nearest, and the two that are nearest have the same score.
    const DenseResult three = run("krum", {{-2, 0}, {1, 0}, {0, 0.5}});
    REQUIRE(three.output.weights == std::vector<double>{0, 1, 0});
    REQUIRE(three.output.status == kLeftOpen);
}

TEST_CASE("opposite: beside an opposed pair a third gradient keeps what is at right angles") {
    Random random(random_key(7, Purpose::test));
    for (const double c : {1e-3, 0.3, 1.0, 2.5, 1e3}) {
        for (int trial = 0; trial < 10; ++trial) {
            Opposed three(random, c, 6);
            const Row third = normal_row(random, 6);
            three.add(third);
            const Row left = beside(third, three.a);
            // The dual cone is at right angles to the pair.
            require_result("dualproj", three.rows, times_row(1.0 / 3, left), kSolvable);
            require_result("upgrad", three.rows, times_row(1.0 / 3, left), kSolvable);
            require_result("config", three.rows, left, kSolvable);
            // The hull holds zero still.
            const Row nothing(6, 0.0);
            require_result("mgda", three.rows, nothing, kSolvable);
            require_result("nash", three.rows, nothing, kLeftOpen);
            require_result("fairgrad", three.rows, nothing, kLeftOpen);
            for (const std::string name : {"mgda", "nash", "fairgrad"}) {
                CAPTURE(name, c);
                require_near(run(name, three.rows).output.weights, {c / (1 + c), 1 / (1 + c), 0},
                             1e-9);
            }
        }
    }
}

TEST_CASE("opposite: beside an opposed pair a third at right angles has the closed forms") {
    Random random(random_key(8, Purpose::test));
    for (const double c : {1e-3, 0.3, 1.0, 2.5, 1e3}) {
        for (int trial = 0; trial < 10; ++trial) {
            Opposed three(random, c, 6);
            const double a = three.of_a();
            // So long that no combination of the three gains on the mean within cagrad's ball: it
            // is more than 60 degrees away from the pair.
            const double b = 2 * std::abs(1 - c) * a + 1;
            const Row right = beside(normal_row(random, 6), three.a);
            const Row third = times_row(b / test::length(right), right);
            three.add(third);
            for (const std::string name : {"pcgrad", "gradvac", "config"}) {
                require_result(name, three.rows, third, kSolvable);
            }
            const double longest = std::max(test::longest(three.rows), b);
            require_result("db_mtl", three.rows, times_row(0.1 / (1 + 1e-8) * longest / b, third),
                           kSolvable, {1, 1, 1});
            const auto mixed = [&](double of_a, double of_third) {
                Row out = times_row(of_a, three.a);
                for (std::size_t k = 0; k < out.size(); ++k) out[k] += of_third * third[k];
                return out;
            };
            require_result("cagrad", three.rows, mixed((1 - c) / 3, 1.0 / 3), kLeftOpen);
            // Two components, of lengths ‖a‖√(1 + c²) and b; the mean's part along each is kept, at
            // the shorter one's length.
            const double pair = a * std::sqrt(1 + c * c);
            const double shorter = std::min(pair, b);
            require_result("aligned", three.rows,
                           mixed(shorter * (1 - c) / 3 / pair, shorter / 3 / b), kSolvable);
            // v of the pair as without a third, and 1/b.
            const double v = (1 - c * c) / (1 + c * c) / (1 + c * c) / a;
            const double sum = v * (1 - c) + 1 / b;
            require_result("imtl_g", three.rows, mixed(v * (1 + c * c) / sum, 1 / b / sum),
                           kLeftOpen);
        }
    }
}

TEST_CASE("opposite: of two opposed pairs nothing is left") {
    Random random(random_key(9, Purpose::test));
    for (const double c : kRatios) {
        Opposed pairs(random, c, 6);
        const Row other = normal_row(random, 6);
        pairs.add(other);
        pairs.add(times_row(-0.7, other));
        const Row nothing(6, 0.0);
        require_result("dualproj", pairs.rows, nothing, kSolvable);
        require_result("upgrad", pairs.rows, nothing, kSolvable);
        require_result("nash", pairs.rows, nothing, kLeftOpen);
        require_result("fairgrad", pairs.rows, nothing, kLeftOpen);
        require_result("config", pairs.rows, nothing, kLeftOpen);
        // Either pair alone is zero: the weights are open.
        require_result("mgda", pairs.rows, nothing, kLeftOpen);
    }
}

}  // namespace detente
