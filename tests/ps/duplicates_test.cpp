#include "ps/duplicates.h"

#include <catch2/catch.hpp>

namespace detente {
namespace {

constexpr WorkerId kWorker{4};

std::vector<BlockVerdict> verdicts_of(std::vector<Verdict> verdicts) {
    std::vector<BlockVerdict> all;
    for (const Verdict verdict : verdicts) {
        BlockVerdict one;
        one.block = BlockId{all.size()};
        one.verdict = verdict;
        all.push_back(one);
    }
    return all;
}

}  // namespace

TEST_CASE("each verdict is counted once and the books balance after every change") {
    Duplicates duplicates(3);
    const auto check_books = [&](std::uint64_t open) {
        CHECK(duplicates.books().balance("test").has_value());
        CHECK(duplicates.books().in_flight == open);
    };
    REQUIRE(*duplicates.open(kWorker, Step{1}) == Duplicates::Opening::opened);
    REQUIRE(*duplicates.open(kWorker, Step{1}) == Duplicates::Opening::known);
    check_books(3);
    const auto first = verdicts_of({Verdict::applied, Verdict::rejected});
    REQUIRE(duplicates.record(kWorker, Step{1}, Part{0}, first).has_value());
    check_books(1);
    CHECK_FALSE(duplicates.settled(kWorker, Step{1}));
    REQUIRE(duplicates.judged(kWorker, Step{1}, Part{0}) != nullptr);
    CHECK(duplicates.judged(kWorker, Step{1}, Part{0})->size() == 2);
    CHECK(duplicates.judged(kWorker, Step{1}, Part{1}) == nullptr);
    const auto more = duplicates.record(kWorker, Step{1}, Part{1}, first);
    REQUIRE_FALSE(more.has_value());
    CHECK(more.error().code == ErrorCode::over_limit);
    check_books(1);
    CHECK(duplicates.cancel(kWorker, Step{1}) == 1);
    CHECK(duplicates.cancel(kWorker, Step{1}) == 0);
    check_books(0);
    CHECK(duplicates.settled(kWorker, Step{1}));
    CHECK(duplicates.books().applied == 1);
    CHECK(duplicates.books().rejected == 1);
    CHECK(duplicates.books().cancelled == 1);
}

TEST_CASE("what is acknowledged is forgotten, except where blocks are still open") {
    Duplicates duplicates(1);
    for (std::uint64_t step = 1; step <= 3; ++step) {
        REQUIRE(duplicates.open(kWorker, {step}).has_value());
        if (step == 2) continue;
        const auto verdicts = verdicts_of({Verdict::applied});
        REQUIRE(duplicates.record(kWorker, {step}, Part{0}, verdicts).has_value());
    }
    duplicates.acknowledge(kWorker, Step{2});
    CHECK(duplicates.judged(kWorker, Step{1}, Part{0}) == nullptr);
    CHECK(duplicates.settled(kWorker, Step{1}));
    CHECK(*duplicates.open(kWorker, Step{1}) == Duplicates::Opening::settled);
    CHECK_FALSE(duplicates.settled(kWorker, Step{2}));
    CHECK(duplicates.judged(kWorker, Step{3}, Part{0}) != nullptr);
    CHECK(duplicates.open_steps() == 1);
    duplicates.acknowledge(kWorker, Step{1});  // overtaken
    CHECK(duplicates.settled(kWorker, Step{1}));
}

TEST_CASE("acknowledging makes room for further steps") {
    Duplicates duplicates(1);
    for (std::uint64_t step = 1; step <= Duplicates::kMostOpenSteps; ++step) {
        REQUIRE(duplicates.open(kWorker, {step}).has_value());
        REQUIRE(duplicates.cancel(kWorker, {step}) == 1);
    }
    const Step beyond{Duplicates::kMostOpenSteps + 1};
    const auto refused = duplicates.open(kWorker, beyond);
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().code == ErrorCode::over_limit);
    duplicates.acknowledge(kWorker, Step{1});
    CHECK(duplicates.open(kWorker, beyond).has_value());
}

TEST_CASE("a worker declared lost is not met again, its successor is, and nothing is lost twice") {
    Duplicates duplicates(2);
    std::vector<Duplicates::Closed> lost;
    REQUIRE(duplicates.meet(kWorker, {1}, lost).has_value());
    REQUIRE(duplicates.open(kWorker, Step{1}).has_value());
    REQUIRE(duplicates.lose(kWorker, {1}).size() == 1);
    CHECK(duplicates.lose(kWorker, {1}).empty());
    const auto zombie = duplicates.meet(kWorker, {1}, lost);
    REQUIRE_FALSE(zombie.has_value());
    CHECK(zombie.error().code == ErrorCode::peer_lost);
    CHECK(zombie.error().text.find("declared lost") != std::string::npos);
    REQUIRE(duplicates.meet(kWorker, {2}, lost).has_value());
    CHECK(lost.empty());
    CHECK(duplicates.lose(kWorker, {1}).empty());  // late news
    CHECK(duplicates.meet(kWorker, {2}, lost).has_value());
    CHECK(duplicates.books().lost == 2);
    CHECK(duplicates.books().balance("test").has_value());
}

TEST_CASE("after a farewell every step is settled, until a new incarnation speaks") {
    Duplicates duplicates(2);
    std::vector<Duplicates::Closed> lost;
    REQUIRE(duplicates.meet(kWorker, {1}, lost).has_value());
    REQUIRE(duplicates.open(kWorker, Step{5}).has_value());
    CHECK_FALSE(duplicates.has_left(kWorker));
    const auto closed = duplicates.farewell(kWorker);
    REQUIRE(closed.size() == 1);
    CHECK(closed[0].step == Step{5});
    CHECK(closed[0].blocks == 2);
    CHECK(duplicates.has_left(kWorker));
    CHECK(*duplicates.open(kWorker, Step{1000}) == Duplicates::Opening::settled);
    REQUIRE(duplicates.meet(kWorker, {2}, lost).has_value());
    CHECK_FALSE(duplicates.has_left(kWorker));
    CHECK(*duplicates.open(kWorker, Step{1}) == Duplicates::Opening::opened);
}

}  // namespace detente
