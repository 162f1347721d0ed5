// The worked example and the closed forms that must come out, method by method.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "common/random.h"
#include "tests/conflict/method_run.h"
#include "tests/reference/conflict_reference.h"

namespace detente {
namespace {

using reference::Row;
using reference::Rows;
using test::made;
using test::require_near;
using test::run;

const Rows kExample = {{-4, 1, 1}, {6, 1, 1}};

}  // namespace

TEST_CASE("facts: the worked example") {
    require_near(run("sum", kExample).result, {2, 2, 2}, 1e-14);
    require_near(run("mean", kExample).result, {1, 1, 1}, 1e-14);
    require_near(run("constant", kExample, {{"weights", "1, 0.5"}}).result, {-1, 1.5, 1.5}, 1e-14);
    require_near(run("mgda", kExample).output.weights, {.6, .4}, 1e-12);
    require_near(run("mgda", kExample).result, {0, 1, 1}, 1e-12);
    require_near(run("pcgrad", kExample).output.weights, {2.2222, 1.5789}, 5e-5);
    require_near(run("pcgrad", kExample).result, {.5848, 3.8012, 3.8012}, 5e-5);
    require_near(run("aligned", kExample).output.weights, {.5591, .4083}, 5e-5);
    require_near(run("upgrad", kExample).result, {.2924, 1.9006, 1.9006}, 5e-5);
    require_near(run("cagrad", kExample, {{"c", "0.5"}}).output.weights, {.7041, .5}, 5e-5);
}

TEST_CASE("facts: two tasks: pcgrad is upgrad with unit preferences") {
    Random random(random_key(1, Purpose::test));
    for (int trial = 0; trial < 60; ++trial) {
        const Rows rows = reference::random_rows(random, 2, 5, 2);
        require_near(run("pcgrad", rows).output.weights,
                     run("upgrad", rows, {{"preference", "2,2"}}).output.weights, 1e-9);
    }
}

TEST_CASE("facts: two tasks: nash weighs as 1 / norm and by the half angle") {
    Random random(random_key(2, Purpose::test));
    for (int trial = 0; trial < 60; ++trial) {
        const Rows rows = reference::random_rows(random, 2, 3, 2, {1, 1 + 5 * random.uniform()});
        const double cosine =
            reference::dot(rows[0], rows[1]) / test::length(rows[0]) / test::length(rows[1]);
        const double angle = std::sqrt(1 + cosine);
        require_near(run("nash", rows).output.weights,
                     {1 / test::length(rows[0]) / angle, 1 / test::length(rows[1]) / angle}, 1e-8);
    }
}

TEST_CASE("facts: one task keeps its gradient where the method keeps lengths") {
    const Rows rows = {{3, -4}};
    for (const std::string name :
         {"sum",     "mean",    "constant",   "pcgrad",  "gradvac", "mgda",
          "imtl_g",  "aligned", "dualproj",   "upgrad",  "config",  "gradnorm",
          "sdmgrad", "modo",    "imtl_l",     "dwa",     "rlw",     "gls",
          "famo",    "stch",    "excess_mtl", "graddrop"}) {
        CAPTURE(name);
        require_near(run(name, rows, {}, {1}).result, {3, -4}, 1e-12);
    }
    require_near(run("nash", rows).result, {0.6, -0.8}, 1e-12);
    require_near(run("cagrad", rows).result, {4.5, -6}, 1e-12);
}

TEST_CASE("facts: rows that agree are left alone by surgery and projection") {
    const Rows rows = {{1, 0, 0}, {1, 1, 0}, {0, 0, 2}};
    require_near(run("pcgrad", rows).output.weights, {1, 1, 1}, 1e-14);
    require_near(run("gradvac", rows).output.weights, {1, 1, 1}, 1e-14);
    require_near(run("dualproj", rows).output.weights, {1.0 / 3, 1.0 / 3, 1.0 / 3}, 1e-14);
    require_near(run("upgrad", rows).output.weights, {1.0 / 3, 1.0 / 3, 1.0 / 3}, 1e-14);
}

TEST_CASE("gradvac: the first step is pcgrad, the target then follows the cosines seen") {
    // With a target of 0 the formula takes away the whole conflict, as PCGrad does.
    require_near(run("gradvac", kExample, {{"order", "1;0"}}).output.weights,
                 run("pcgrad", kExample).output.weights, 1e-12);
    // Orthogonal after one step at beta = 1 of cosine .8: targets are .8, so a pair at 0 is drawn
    // to .8 exactly.
    DenseAggregation vaccine(made("gradvac", {{"beta", "1"}, {"order", "1;0"}}), 1);
    REQUIRE(vaccine.step({{{1, 0}, {.8, .6}}}).has_value());
    const auto drawn = vaccine.step({{{1, 0}, {0, 1}}});
    // g₀ + x·g₁ with cosine .8 to g₁: x = .8/.6; the same for g₁.
    require_near(drawn->output.weights, {1 + .8 / .6, 1 + .8 / .6}, 1e-12);
}

TEST_CASE("gradvac: permuting tasks and visits permutes the weights") {
    Random random(random_key(3, Purpose::test));
    const Rows rows = reference::random_rows(random, 3, 4, 3);
    DenseAggregation straight(made("gradvac", {{"order", "1,2;0,2;0,1"}, {"beta", "0.5"}}), 1);
    // New place k holds task {2,0,1}[k].
    DenseAggregation moved(made("gradvac", {{"order", "1,2;2,0;1,0"}, {"beta", "0.5"}}), 1);
    for (int step = 0; step < 3; ++step) {
        const auto expected = straight.step({rows})->output.weights;
        const auto found = moved.step({{rows[2], rows[0], rows[1]}})->output.weights;
        require_near(found, {expected[2], expected[0], expected[1]}, 1e-12);
    }
}

TEST_CASE("krum: picks the gradient nearest to its neighbours and leaves the outlier out") {
    const Rows rows = {{1, 0}, {1.1, 0}, {1.2, 0}, {-50, 3}, {1.15, 0.1}};
    // f = 1: two nearest of each. Scores: .05, .0225, .0225+…: by hand below.
    const auto score = [&](std::size_t i) {
        std::vector<double> distances;
        for (std::size_t j = 0; j < rows.size(); ++j) {
            if (j == i) continue;
            Row apart = rows[i];
            for (std::size_t k = 0; k < 2; ++k) apart[k] -= rows[j][k];
            distances.push_back(reference::dot(apart, apart));
        }
        std::sort(distances.begin(), distances.end());
        return distances[0] + distances[1];
    };
    std::vector<std::size_t> order = {0, 1, 2, 3, 4};
    std::sort(order.begin(), order.end(), [&](auto i, auto j) { return score(i) < score(j); });
    REQUIRE(order.back() == 3);
    std::vector<double> one(5, 0.0);
    one[order[0]] = 1;
    require_near(run("krum", rows, {{"f", "1"}}).output.weights, one, 0);
    std::vector<double> three(5, 0.0);
    for (int k = 0; k < 3; ++k) three[order[k]] = 1.0 / 3;
    require_near(run("krum", rows, {{"f", "1"}, {"m", "3"}}).output.weights, three, 1e-15);
}

TEST_CASE("krum: equal scores go to the lower task and are said to") {
    const auto output = run("krum", {{1, 0}, {1, 0}, {1, 0}}).output;
    require_near(output.weights, {1, 0, 0}, 0);
    REQUIRE(output.status == AggregatorStatus::degenerate);
}

TEST_CASE("trimmed_mean: leaves the largest and smallest values out at each coordinate") {
    const Rows rows = {{1, 9, -3}, {2, -9, 5}, {30, 1, 5}, {4, 2, 5}, {-7, 3, 0}};
    require_near(run("trimmed_mean", rows).result, {7.0 / 3, 2, 10.0 / 3}, 1e-14);
    require_near(run("trimmed_mean", rows, {{"trim", "2"}}).result, {2, 2, 5}, 1e-14);
    require_near(run("trimmed_mean", rows, {{"trim", "0"}}).result, {6, 1.2, 2.4}, 1e-14);
}

TEST_CASE("graddrop: keeps one sign per coordinate, drawn with its share") {
    const Rows rows = {{3}, {-1}};
    int positive = 0;
    constexpr int kDraws = 20000;
    std::vector<double> a(kDraws, 3.0);
    std::vector<double> b(kDraws, -1.0);
    const Row result = run("graddrop", {a, b}).result;
    for (const double x : result) {
        REQUIRE((x == 3 || x == -1));
        positive += x == 3 ? 1 : 0;
    }
    REQUIRE(positive / double(kDraws) == Approx(0.75).margin(0.015));  // (1 + 2/4) / 2
    const Row leaking = run("graddrop", {a, b}, {{"leak", "0.5, 0.25"}}).result;
    for (const double x : leaking) REQUIRE((x == 3 - 0.25 || x == 1.5 - 1));
    const Row sure = run("graddrop", {a, b}, {{"k", "10"}}).result;
    for (const double x : sure) REQUIRE(x == 3);
    require_near(run("graddrop", {a, a}).result, std::vector<double>(kDraws, 6.0), 0);
}

TEST_CASE("coordinates: a block cut anywhere gives the same, in float too") {
    Random random(random_key(4, Purpose::test));
    constexpr std::size_t kElements = 500;
    std::vector<std::vector<float>> rows(4, std::vector<float>(kElements));
    for (auto& row : rows) {
        for (float& x : row) x = static_cast<float>(random.normal());
    }
    for (const std::string name : {"graddrop", "trimmed_mean"}) {
        const auto method = made(name);
        const auto combined = [&](std::size_t from, std::size_t to) {
            std::vector<const float*> starts;
            for (const auto& row : rows) starts.push_back(row.data() + from);
            std::vector<float> out(to - from);
            method->combine(CoordinateRows<float>{starts, 77, from, {}}, out);
            return out;
        };
        std::vector<float> whole = combined(0, kElements);
        for (const std::size_t cut : {1, 17, 256}) {
            std::vector<float> parts = combined(0, cut);
            const std::vector<float> rest = combined(cut, kElements);
            parts.insert(parts.end(), rest.begin(), rest.end());
            REQUIRE(parts == whole);
        }
        // A task that does not own the block does not take part.
        std::vector<const float*> three = {rows[0].data(), nullptr, rows[2].data(), rows[3].data()};
        std::vector<float> out(kElements);
        method->combine(CoordinateRows<float>{three, 77, 0, {}}, out);
        REQUIRE(out != whole);
    }
}

}  // namespace detente
