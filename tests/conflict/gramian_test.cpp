#include "common/conflict/gramian.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "common/conflict/gramian_kernels.h"
#include "common/random.h"
#include "tests/conflict/every_target.h"
#include "tests/reference/conflict_reference.h"

namespace detente {
namespace {

// Rows of floats at any byte offset from a 64-byte boundary.
class PlacedRows {
  public:
    PlacedRows(const std::vector<std::vector<float>>& rows, std::size_t offset_bytes) {
        for (const std::vector<float>& row : rows) {
            const std::size_t bytes = row.size() * sizeof(float);
            buffers_.emplace_back(bytes + 128);
            void* start = buffers_.back().data();
            std::size_t room = bytes + 128;
            std::align(64, bytes + 64, start, room);
            auto* at = static_cast<std::byte*>(start) + offset_bytes;
            if (bytes > 0) std::memcpy(at, row.data(), bytes);
            pointers.push_back(reinterpret_cast<const float*>(at));
        }
    }
    std::vector<const float*> pointers;

  private:
    std::vector<std::vector<std::byte>> buffers_;
};

std::vector<std::vector<float>> random_floats(std::uint64_t seed, std::size_t tasks,
                                              std::size_t elements) {
    std::vector<std::vector<float>> rows(tasks, std::vector<float>(elements));
    for (std::size_t i = 0; i < tasks; ++i) {
        Random random(random_key(seed, Purpose::test, {i}));
        for (float& x : rows[i]) x = static_cast<float>(random.normal());
    }
    return rows;
}

reference::Rows in_double(const std::vector<std::vector<float>>& rows) {
    reference::Rows wide;
    for (const auto& row : rows) wide.emplace_back(row.begin(), row.end());
    return wide;
}

std::vector<double> entries_of(const std::vector<std::vector<float>>& rows,
                               std::size_t offset_bytes = 0) {
    const PlacedRows placed(rows, offset_bytes);
    Gramian g(rows.size());
    g.add_block(placed.pointers, rows[0].size());
    return {g.entries().begin(), g.entries().end()};
}

bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
    return a.size() == b.size() &&
           (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
}

const std::vector<std::size_t> kTaskCounts = {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 32};
const std::vector<std::size_t> kLengths = {0, 1, 15, 16, 17, 1023, 1024, 1025, 3000};

}  // namespace

TEST_CASE("gramian: is close to inner products in double, for every shape") {
    for (const std::size_t tasks : kTaskCounts) {
        for (const std::size_t elements : kLengths) {
            CAPTURE(tasks, elements);
            const auto rows = random_floats(1, tasks, elements);
            const Gramian expected = reference::gramian_of(in_double(rows));
            const std::vector<double> found = entries_of(rows);
            for (std::size_t i = 0; i < tasks; ++i) {
                for (std::size_t j = 0; j < tasks; ++j) {
                    const double norms = std::sqrt(expected.at(i, i) * expected.at(j, j));
                    REQUIRE(std::abs(found[i * tasks + j] - expected.at(i, j)) <= 3e-7 * norms);
                }
            }
        }
    }
}

TEST_CASE("gramian: errs by less than 1e-8 of the norms over a million elements") {
    const auto rows = random_floats(2, 2, 1'000'000);
    const Gramian expected = reference::gramian_of(in_double(rows));
    const std::vector<double> found = entries_of(rows);
    for (std::size_t k = 0; k < 4; ++k) {
        REQUIRE(std::abs(found[k] - expected.entries()[k]) <= 1e-8 * expected.at(0, 0));
    }
}

TEST_CASE("gramian: has the same bits for every instruction set") {
    const std::vector<std::int64_t> all = test::targets();
#if HWY_ARCH_X86
    REQUIRE(all.size() >= 2);
#endif
    for (const std::size_t tasks : kTaskCounts) {
        for (const std::size_t elements : kLengths) {
            CAPTURE(tasks, elements);
            const auto rows = random_floats(3, tasks, elements);
            std::vector<double> first;
            for (const std::int64_t target : all) {
                const test::UseTarget use(target);
                REQUIRE(kernels::instruction_set() == std::string(hwy::TargetName(target)));
                const std::vector<double> found = entries_of(rows);
                if (first.empty()) first = found;
                REQUIRE(same_bits(found, first));
            }
        }
    }
}

TEST_CASE("gramian: has the same bits at every address, odd ones too") {
    const auto rows = random_floats(4, 6, 2500);
    const std::vector<double> aligned = entries_of(rows);
    for (std::size_t offset = 1; offset < 64; ++offset) {
        CAPTURE(offset);
        REQUIRE(same_bits(entries_of(rows, offset), aligned));
    }
}

TEST_CASE("gramian: has the same bits when the vector comes in blocks cut at tiles") {
    for (const std::size_t tasks : {2, 5, 8, 20}) {
        const std::size_t elements = 7 * kTileElements + 123;
        const auto rows = random_floats(5, tasks, elements);
        const std::vector<double> whole = entries_of(rows);
        const std::vector<std::vector<std::size_t>> cuts = {
            {0, 1, 2, 3, 4, 5, 6, 7}, {0, 3}, {0, 6, 7}, {0, 1, 5}};
        for (const std::vector<std::size_t>& cut : cuts) {
            Gramian g(tasks);
            for (std::size_t c = 0; c < cut.size(); ++c) {
                const std::size_t begin = cut[c] * kTileElements;
                const std::size_t end = c + 1 < cut.size() ? cut[c + 1] * kTileElements : elements;
                std::vector<const float*> parts;
                for (const auto& row : rows) parts.push_back(row.data() + begin);
                g.add_block(parts, end - begin);
            }
            REQUIRE(same_bits({g.entries().begin(), g.entries().end()}, whole));
        }
    }
}

TEST_CASE("gramian: an absent row contributes what a row of zeros does, bit for bit") {
    auto rows = random_floats(6, 7, 2100);
    for (const std::size_t absent : {0, 3, 6}) {
        auto with_zeros = rows;
        with_zeros[absent].assign(with_zeros[absent].size(), 0.0F);
        PlacedRows placed(rows, 0);
        placed.pointers[absent] = nullptr;
        Gramian g(rows.size());
        g.add_block(placed.pointers, rows[0].size());
        REQUIRE(same_bits({g.entries().begin(), g.entries().end()}, entries_of(with_zeros)));
    }
    Gramian none(2);
    const std::vector<const float*> nobody = {nullptr, nullptr};
    none.add_block(nobody, 100);
    REQUIRE(same_bits({none.entries().begin(), none.entries().end()}, {0, 0, 0, 0}));
}

TEST_CASE("gramian: permuting tasks permutes rows and columns, bit for bit") {
    for (const std::uint32_t tasks : {2, 3, 5, 8, 11, 32}) {
        const auto rows = random_floats(7, tasks, 1500);
        const std::vector<double> straight = entries_of(rows);
        const auto order = permutation(random_key(8, Purpose::test, {tasks}), tasks);
        std::vector<std::vector<float>> shuffled;
        for (const std::uint32_t i : order) shuffled.push_back(rows[i]);
        const std::vector<double> found = entries_of(shuffled);
        for (std::size_t i = 0; i < tasks; ++i) {
            for (std::size_t j = 0; j < tasks; ++j) {
                REQUIRE(found[i * tasks + j] == straight[order[i] * tasks + order[j]]);
                REQUIRE(found[i * tasks + j] == found[j * tasks + i]);
            }
        }
    }
}

TEST_CASE("gramian: adding Gramians adds entries") {
    const auto rows = random_floats(9, 3, 2 * kTileElements);
    Gramian total(3);
    Gramian second(3);
    std::vector<const float*> head;
    std::vector<const float*> tail;
    for (const auto& row : rows) {
        head.push_back(row.data());
        tail.push_back(row.data() + kTileElements);
    }
    total.add_block(head, kTileElements);
    second.add_block(tail, kTileElements);
    total.add(second);
    REQUIRE(same_bits({total.entries().begin(), total.entries().end()}, entries_of(rows)));
}

TEST_CASE("gramian: NaN and Inf show on the diagonal of the task that has them, and only there") {
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 3e38F}) {
        auto rows = random_floats(10, 5, 1100);
        rows[3][1050] = bad;
        const std::vector<double> found = entries_of(rows);
        for (std::size_t i = 0; i < 5; ++i) REQUIRE(std::isfinite(found[i * 5 + i]) == (i != 3));
    }
}

TEST_CASE("gramian: keeps its precision for gradients from 1e-12 to 1e12") {
    const auto rows = random_floats(11, 2, 5000);
    for (const double scale : {1e-12, 1e-6, 1e6, 1e12}) {
        auto scaled = rows;
        for (float& x : scaled[1]) x *= static_cast<float>(scale);
        const Gramian expected = reference::gramian_of(in_double(scaled));
        const std::vector<double> found = entries_of(scaled);
        REQUIRE(found[3] == Approx(expected.at(1, 1)).epsilon(1e-6));
        REQUIRE(std::abs(found[1] - expected.at(0, 1)) <=
                1e-7 * std::sqrt(expected.at(0, 0) * expected.at(1, 1)));
    }
}

TEST_CASE("squared norm: has the bits of the Gramian's diagonal") {
    const auto rows = random_floats(12, 4, 3333);
    const std::vector<double> g = entries_of(rows);
    for (std::size_t i = 0; i < 4; ++i) {
        REQUIRE(squared_norm(rows[i].data(), rows[i].size()) == g[i * 4 + i]);
    }
    REQUIRE(squared_norm(nullptr, 0) == 0);
}

TEST_CASE("cosines: are those of the angles, zero for a zero row") {
    const Gramian g = reference::gramian_of({{-4, 1, 1}, {6, 1, 1}, {0, 0, 0}});
    const std::vector<double> cosines = cosines_of(g);
    const double expected = -22 / std::sqrt(18.0 * 38.0);
    REQUIRE(cosines[0] == 1);
    REQUIRE(cosines[1] == Approx(expected));
    REQUIRE(cosines[3] == cosines[1]);
    REQUIRE(cosines[2] == 0);
    REQUIRE(cosines[8] == 0);
}

TEST_CASE("cosines: stay in range where rounding or scale would push them out") {
    Gramian g(2);
    g.at(0, 0) = 1e-300;
    g.at(1, 1) = 1e300;
    g.at(0, 1) = g.at(1, 0) = 1 + 1e-9;
    REQUIRE(cosines_of(g)[1] == 1);
    g.at(0, 1) = g.at(1, 0) = -1 - 1e-9;
    REQUIRE(cosines_of(g)[1] == -1);
}

}  // namespace detente
