#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "common/conflict/gramian.h"
#include "common/random.h"
#include "tests/conflict/every_target.h"
#include "tests/reference/conflict_reference.h"

namespace detente {
namespace {

struct Case {
    Case(std::uint64_t seed, std::size_t tasks, std::size_t elements)
        : rows(tasks, std::vector<float>(elements)) {
        Random random(random_key(seed, Purpose::test, {tasks, elements}));
        for (std::vector<float>& row : rows) {
            for (float& x : row) x = static_cast<float>(random.normal());
            pointers.push_back(row.data());
            weights.push_back(random.normal());
        }
    }
    std::vector<float> combined() const {
        std::vector<float> out(rows[0].size(), 7.0F);
        combine(weights, pointers, out);
        return out;
    }
    std::vector<std::vector<float>> rows;
    std::vector<const float*> pointers;
    std::vector<double> weights;
};

bool same_float_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() &&
           (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// What the contract says, element by element.
float expected_at(const Case& c, std::size_t k) {
    float sum = static_cast<float>(c.weights[0]) * c.rows[0][k];
    for (std::size_t i = 1; i < c.rows.size(); ++i) {
        sum = std::fma(static_cast<float>(c.weights[i]), c.rows[i][k], sum);
    }
    return sum;
}

}  // namespace

TEST_CASE("combine: is the fused sum in task order, bit for bit, under every instruction set") {
    for (const std::int64_t target : test::targets()) {
        const test::UseTarget use(target);
        for (const std::size_t tasks : {1, 2, 3, 4, 5, 8, 9, 32}) {
            for (const std::size_t elements : {0, 1, 15, 16, 17, 1023, 1024, 1025, 2600}) {
                CAPTURE(target, tasks, elements);
                const Case c(1, tasks, elements);
                const std::vector<float> found = c.combined();
                std::vector<float> expected(elements);
                for (std::size_t k = 0; k < elements; ++k) expected[k] = expected_at(c, k);
                REQUIRE(same_float_bits(found, expected));
            }
        }
    }
}

TEST_CASE("combine: is close to the same sum in double") {
    const Case c(2, 8, 5000);
    const std::vector<float> found = c.combined();
    for (std::size_t k = 0; k < found.size(); ++k) {
        double sum = 0;
        double size = 0;
        for (std::size_t i = 0; i < 8; ++i) {
            sum += c.weights[i] * c.rows[i][k];
            size += std::abs(c.weights[i] * c.rows[i][k]);
        }
        REQUIRE(std::abs(found[k] - sum) <= 1e-6 * size);
    }
}

TEST_CASE("combine: reads and writes any address with the same bits") {
    const Case c(3, 5, 1111);
    const std::vector<float> expected = c.combined();
    const std::size_t bytes = 1111 * sizeof(float);
    for (std::size_t offset = 0; offset < 64; ++offset) {
        std::vector<std::vector<std::byte>> buffers(6, std::vector<std::byte>(bytes + 64));
        std::vector<const float*> pointers;
        for (std::size_t i = 0; i < 5; ++i) {
            std::memcpy(buffers[i].data() + offset, c.rows[i].data(), bytes);
            pointers.push_back(reinterpret_cast<const float*>(buffers[i].data() + offset));
        }
        auto* out = reinterpret_cast<float*>(buffers[5].data() + offset);
        combine(c.weights, pointers, {out, 1111});
        REQUIRE(std::memcmp(out, expected.data(), bytes) == 0);
    }
}

TEST_CASE("combine: may write over one of its rows") {
    for (const std::size_t tasks : {1, 2, 4, 5, 9}) {
        for (std::size_t over = 0; over < tasks; ++over) {
            Case c(4, tasks, 2050);
            const std::vector<float> expected = c.combined();
            combine(c.weights, c.pointers, c.rows[over]);
            REQUIRE(same_float_bits(c.rows[over], expected));
        }
    }
}

TEST_CASE("combine: a cut into blocks moves no bits") {
    const Case c(5, 6, 3000);
    const std::vector<float> whole = c.combined();
    for (const std::size_t cut : {1, 16, 700, 1024, 2999}) {
        std::vector<float> out(3000);
        std::vector<const float*> rest;
        for (const float* row : c.pointers) rest.push_back(row + cut);
        combine(c.weights, c.pointers, std::span(out).first(cut));
        combine(c.weights, rest, std::span(out).subspan(cut));
        REQUIRE(same_float_bits(out, whole));
    }
}

TEST_CASE("combine: leaves out rows that are absent or weigh nothing, NaN and all") {
    Case c(6, 4, 1500);
    Case without = c;
    without.rows.erase(without.rows.begin() + 1, without.rows.begin() + 3);
    without.weights.erase(without.weights.begin() + 1, without.weights.begin() + 3);
    without.pointers = {without.rows[0].data(), without.rows[1].data()};
    c.rows[1].assign(1500, std::numeric_limits<float>::quiet_NaN());
    c.weights[1] = 0;
    c.pointers = {c.rows[0].data(), c.rows[1].data(), nullptr, c.rows[3].data()};
    REQUIRE(same_float_bits(c.combined(), without.combined()));
}

TEST_CASE("combine: a lone row of weight one passes through unaltered, negative zeros too") {
    Case c(7, 3, 1030);
    c.rows[1][5] = -0.0F;
    c.weights = {0, 1, 5};
    c.pointers[2] = nullptr;
    REQUIRE(same_float_bits(c.combined(), c.rows[1]));
}

TEST_CASE("combine: with no row left writes zeros") {
    Case c(8, 2, 100);
    c.weights = {0, 0};
    REQUIRE(same_float_bits(c.combined(), std::vector<float>(100, 0.0F)));
    c.weights = {1, 1};
    c.pointers = {nullptr, nullptr};
    REQUIRE(same_float_bits(c.combined(), std::vector<float>(100, 0.0F)));
}

}  // namespace detente
