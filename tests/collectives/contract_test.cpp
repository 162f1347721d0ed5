// The contract of collectives (worker/collectives/collective.h), over every backend.
#include <catch2/catch.hpp>

#include "common/checksum.h"
#include "common/collective/average.h"
#include "tests/collectives/kinds.h"

using namespace detente;
using namespace detente::testing;

namespace {

// All members say the same, and none of it is a complaint.
void check_all_say(const Reports& reports, const Lines& expected) {
    for (std::size_t i = 0; i < reports.size(); ++i) {
        INFO("member " << i);
        CHECK(reports[i] == expected);
    }
}
void check_agreed_and_right(const Reports& reports, std::size_t lines) {
    for (std::size_t i = 0; i < reports.size(); ++i) {
        INFO("member " << i);
        CHECK(reports[i].size() == lines);
        CHECK(reports[i] == reports[0]);
        for (const std::string& line : reports[i]) {
            INFO(line);
            CHECK(line.find("averaged") != std::string::npos);
            CHECK(line.find("wrong") == std::string::npos);
        }
    }
}

}  // namespace

TEST_CASE("collective: every member gets the weighted mean and the same bits of it") {
    for (const Kind& kind : kinds()) {
        for (const std::size_t count : {1U, 2U, 3U, 5U}) {
            DYNAMIC_SECTION(kind.name << " of " << count) {
                check_agreed_and_right(kind.run("mean", count), 6);
            }
        }
    }
}

TEST_CASE("collective: local and shared memory give the bits of one plain sum in member order") {
    const std::size_t count = 3;
    const CollectiveKey key = key_of(1, 5, 0);  // the fifth of the scenario
    const std::size_t elements = 65537;
    std::vector<std::vector<float>> gradients;
    std::vector<const float*> rows;
    for (std::size_t i = 0; i < count; ++i) {
        gradients.push_back(gradient_of(i, key, elements));
        rows.push_back(gradients[i].data());
    }
    // The formula of average.h, in plain words: weights 1, 16, 31.
    std::vector<float> mean(elements);
    for (std::size_t e = 0; e < elements; ++e) {
        float sum = static_cast<float>(1.0 / 48) * rows[0][e];
        sum = std::fma(static_cast<float>(16.0 / 48), rows[1][e], sum);
        mean[e] = std::fma(static_cast<float>(31.0 / 48), rows[2][e], sum);
    }
    char bits[40];
    std::snprintf(bits, sizeof bits, "bits %016llx",
                  static_cast<unsigned long long>(checksum_of(std::as_bytes(std::span(mean)))));
    for (const Kind& kind : kinds()) {
        if (!kind.has_fixed_bits) continue;
        for (int run = 0; run < 3; ++run) {
            DYNAMIC_SECTION(kind.name << ", run " << run) {
                const Reports reports = kind.run("mean", count);
                REQUIRE(reports[1].size() == 6);
                INFO(reports[1][4]);
                CHECK(reports[1][4].find(bits) != std::string::npos);
            }
        }
    }
}

TEST_CASE("collective: a cancelled member counts for nothing and if all are there is no mean") {
    for (const Kind& kind : kinds()) {
        DYNAMIC_SECTION(kind.name) {
            const Reports reports = kind.run("cancelled", 3);
            for (const Lines& lines : reports) {
                CHECK(lines == reports[0]);
                REQUIRE(lines.size() == 3);
                for (const std::size_t i : {0U, 1U}) {
                    INFO(lines[i]);
                    CHECK(lines[i].find("averaged, weight 4") != std::string::npos);
                    CHECK(lines[i].find("wrong") == std::string::npos);
                }
                CHECK(lines[2] == "weightless");
            }
        }
    }
}

TEST_CASE("collective: twelve buckets in flight may be joined in any order by each member") {
    for (const Kind& kind : kinds()) {
        for (const std::size_t count : {2U, 3U}) {
            DYNAMIC_SECTION(kind.name << " of " << count) {
                check_agreed_and_right(kind.run("any_order", count), 36);
            }
        }
    }
}

TEST_CASE("collective: a gradient comes back untouched when its key has ended") {
    for (const Kind& kind : kinds()) {
        DYNAMIC_SECTION(kind.name) {
            check_all_say(kind.run("gradient_returns", 2), {"untouched"});
        }
    }
}

TEST_CASE("collective: gradients are averaged where the backend gave room for them") {
    for (const Kind& kind : kinds()) {
        DYNAMIC_SECTION(kind.name) { check_agreed_and_right(kind.run("own_buffer", 3), 3); }
    }
}

TEST_CASE("collective: a hundred steps with two buckets in flight are all right") {
    for (const Kind& kind : kinds()) {
        DYNAMIC_SECTION(kind.name) { check_all_say(kind.run("steady", 2), {"200 right"}); }
    }
}

TEST_CASE("collective: a member that does not come by the deadline breaks the group by name") {
    for (const Kind& kind : kinds()) {
        DYNAMIC_SECTION(kind.name) {
            const Reports reports = kind.run("late", 3);
            const std::string broken = "broken: timed_out, missing worker:8";
            check_all_say({reports[0], reports[1]}, {broken, broken, broken, "timed_out"});
            CHECK(reports[2] == Lines{"kept waiting", "kept waiting", broken, "timed_out"});
        }
    }
}

TEST_CASE("collective: members that disagree about the elements break the group") {
    for (const Kind& kind : kinds()) {
        DYNAMIC_SECTION(kind.name) {
            check_all_say(kind.run("disagree", 3), {"broken: bad_length, missing worker:8"});
        }
    }
}

TEST_CASE("collective: those that are left form anew and the old epoch is refused") {
    for (const Kind& kind : kinds()) {
        DYNAMIC_SECTION(kind.name) {
            const Reports reports = kind.run("form_again", 3);
            CHECK(reports[2] == Lines{"wrong_epoch"});
            CHECK(reports[0] == reports[1]);
            REQUIRE(reports[0].size() == 3);
            CHECK(reports[0][0] == "broken: timed_out, missing worker:8");
            INFO(reports[0][1]);
            CHECK(reports[0][1].find("averaged, weight 2") != std::string::npos);
            CHECK(reports[0][1].find("wrong") == std::string::npos);
            CHECK(reports[0][2] == "wrong_epoch");
        }
    }
}

TEST_CASE("collective: a member that dies is named and the others go on without it") {
    for (const Kind& kind : kinds()) {
        if (!kind.outlives_death) continue;
        DYNAMIC_SECTION(kind.name) {
            const Reports reports = kind.run("death", 3);
            REQUIRE(!reports[1].empty());
            CHECK(reports[1].back() == "died");
            CHECK(reports[0] == reports[2]);
            REQUIRE(reports[0].size() == 3);
            CHECK(reports[0][1] == "broken: peer_lost, missing worker:5");
            INFO(reports[0][2]);
            CHECK(reports[0][2].find("averaged, weight 2") != std::string::npos);
            CHECK(reports[0][2].find("wrong") == std::string::npos);
        }
    }
}

TEST_CASE("collective: what cannot be averaged is refused at once") {
    for (const Kind& kind : kinds()) {
        DYNAMIC_SECTION(kind.name) {
            check_all_say(kind.run("refusals", 2),
                          {"wrong_epoch", "bad_length", "not_finite", "not_finite", "over_limit"});
        }
    }
}

TEST_CASE("collective: a member that cannot bring its share breaks the group at once by name") {
    for (const Kind& kind : kinds()) {
        DYNAMIC_SECTION(kind.name) {
            Reports reports = kind.run("gives_up", 3);
            // Over MPI it may have left before the others read its word: gone, by the same name.
            const Lines gone{"broken: peer_lost, missing worker:5", "told"};
            const Lines failed{"broken: io, missing worker:5", "told"};
            const bool mpi = std::string(kind.name).find("MPI") != std::string::npos;
            for (const std::size_t other : {0U, 2U}) {
                if (mpi && reports[other] == gone) reports[other] = failed;
            }
            check_all_say(reports, failed);
        }
    }
}

TEST_CASE("collective: a member that is at the next group already is met there") {
    for (const Kind& kind : kinds()) {
        DYNAMIC_SECTION(kind.name) { check_agreed_and_right(kind.run("comes_early", 3), 2); }
    }
}
