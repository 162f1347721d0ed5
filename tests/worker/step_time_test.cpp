// Where a step's time goes: made of times a test chose.
#include "worker/step_time.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>

namespace detente {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr ShardId kFirst{0};
constexpr ShardId kSecond{1};

Time at(int ms) { return Time(milliseconds(ms)); }
Answered pulled(int sent_ms, bool straight = true) {
    return {Asked::pull, 4096, at(sent_ms), straight};
}
Answered pushed(int sent_ms, bool straight = true) {
    return {Asked::push, 4096, at(sent_ms), straight};
}

void check(const StepTime::Parts& parts, int compute, int wait, int wire, int queue, int apply) {
    CHECK(parts.compute == milliseconds(compute));
    CHECK(parts.wait == milliseconds(wait));
    CHECK(parts.wire == milliseconds(wire));
    CHECK(parts.queue == milliseconds(queue));
    CHECK(parts.apply == milliseconds(apply));
}

// A pull of 2 ms on the wire and 1 ms at the shard was seen before any step.
StepTime with_known_way() {
    StepTime steps;
    steps.answered(kFirst, pulled(0), milliseconds(1), at(3));
    return steps;
}

}  // namespace

TEST_CASE("step time: a round trip is the shard's own work then the shortest way then its queue") {
    StepTime steps = with_known_way();
    steps.gradient_begins(at(100));
    steps.computation_ends(at(110));
    steps.answered(kFirst, pulled(110), milliseconds(4), at(121));
    steps.gradient_begins(at(121));
    CHECK(steps.steps() == 1);
    check(steps.total(), 10, 0, 2, 5, 4);
}

TEST_CASE("step time: nothing is told of a step before it has ended") {
    StepTime steps = with_known_way();
    CHECK(steps.steps() == 0);
    steps.gradient_begins(at(10));
    steps.computation_ends(at(20));
    check(steps.total(), 0, 0, 0, 0, 0);
    steps.ends(at(25));
    CHECK(steps.steps() == 1);
    check(steps.total(), 10, 5, 0, 0, 0);
    steps.ends(at(99));
    CHECK(steps.total().sum() == milliseconds(15));
}

TEST_CASE("step time: of a round trip begun while computing only the part after it counts") {
    StepTime steps = with_known_way();
    steps.gradient_begins(at(0));
    steps.computation_ends(at(10));
    steps.answered(kFirst, pulled(4), milliseconds(4), at(12));  // 2 wire, 2 queue, 4 apply
    steps.gradient_begins(at(12));
    const StepTime::Parts& parts = steps.total();
    CHECK(parts.apply == milliseconds(1));
    CHECK(parts.queue == microseconds(500));
    CHECK(parts.wire == microseconds(500));
    CHECK(parts.wait == Nanos{0});
    CHECK(parts.compute == milliseconds(10));
}

TEST_CASE("step time: what was answered while computing blocks nobody") {
    StepTime steps = with_known_way();
    steps.gradient_begins(at(0));
    steps.answered(kFirst, pulled(1), milliseconds(1), at(4));
    steps.computation_ends(at(10));
    steps.gradient_begins(at(10));
    check(steps.total(), 10, 0, 0, 0, 0);
}

TEST_CASE("step time: of two shards the one that answered last is the one that was waited for") {
    StepTime steps = with_known_way();
    steps.answered(kSecond, pulled(0), milliseconds(0), at(7));  // its way takes 7 ms
    steps.gradient_begins(at(100));
    steps.computation_ends(at(110));
    steps.answered(kFirst, pulled(110), milliseconds(3), at(115));
    steps.answered(kSecond, pulled(110), milliseconds(1), at(118));
    steps.gradient_begins(at(118));
    check(steps.total(), 10, 0, 7, 0, 1);
}

TEST_CASE("step time: a chain of requests is followed back to where the worker was blocked") {
    StepTime steps = with_known_way();
    steps.answered(kFirst, pushed(0), milliseconds(2), at(3));  // 1 ms on the wire
    steps.gradient_begins(at(100));
    steps.computation_ends(at(110));
    steps.answered(kFirst, pushed(110), milliseconds(3), at(116));  // 1 wire, 2 queue
    steps.answered(kFirst, pulled(116), milliseconds(1), at(120));  // 2 wire, 1 queue
    steps.gradient_begins(at(120));
    check(steps.total(), 10, 0, 3, 3, 4);
}

TEST_CASE("step time: what no answer covers is waiting") {
    StepTime steps = with_known_way();
    steps.gradient_begins(at(100));
    steps.computation_ends(at(110));
    steps.answered(kFirst, pulled(112), milliseconds(1), at(115));
    steps.gradient_begins(at(140));  // a lease came
    check(steps.total(), 10, 27, 2, 0, 1);
}

TEST_CASE("step time: a request that was sent again or told to wait is waiting") {
    StepTime steps = with_known_way();
    steps.gradient_begins(at(100));
    steps.computation_ends(at(110));
    steps.answered(kFirst, pulled(110, false), milliseconds(1), at(130));
    steps.gradient_begins(at(130));
    check(steps.total(), 10, 20, 0, 0, 0);
    // And it says nothing of the way: the next is measured against the one before.
    steps.computation_ends(at(140));
    steps.answered(kFirst, pulled(140), milliseconds(0), at(150));
    steps.gradient_begins(at(150));
    check(steps.total(), 20, 20, 2, 8, 0);
}

TEST_CASE("step time: what lies between two halves of a step is waiting for its node") {
    StepTime steps = with_known_way();
    steps.gradient_begins(at(100));
    steps.computation_ends(at(110));
    steps.answered(kFirst, pulled(109), milliseconds(1), at(113));
    steps.next_half_begins(at(120));
    steps.computation_ends(at(125));
    steps.gradient_begins(at(125));
    check(steps.total(), 15, 10, 0, 0, 0);
}

TEST_CASE("step time: pulls and pushes and sizes and shards have ways of their own") {
    StepTime steps;
    steps.answered(kFirst, {Asked::pull, 4096, at(0), true}, Nanos{0}, at(2));
    steps.answered(kFirst, {Asked::push, 4096, at(0), true}, Nanos{0}, at(3));
    steps.answered(kFirst, {Asked::pull, 1U << 20U, at(0), true}, Nanos{0}, at(9));
    steps.answered(kSecond, {Asked::pull, 4096, at(0), true}, Nanos{0}, at(5));
    int begin = 100;
    const auto wire_of = [&](ShardId shard, Asked asked, std::uint64_t bytes) {
        const Nanos before = steps.total().wire;
        steps.gradient_begins(at(begin));
        steps.computation_ends(at(begin));
        steps.answered(shard, {asked, bytes, at(begin), true}, Nanos{0}, at(begin + 20));
        steps.gradient_begins(at(begin + 20));
        steps.computation_ends(at(begin + 20));
        begin += 100;
        return steps.total().wire - before;
    };
    CHECK(wire_of(kFirst, Asked::pull, 5000) == milliseconds(2));  // about the same size
    CHECK(wire_of(kFirst, Asked::push, 4096) == milliseconds(3));
    CHECK(wire_of(kFirst, Asked::pull, 1U << 20U) == milliseconds(9));
    CHECK(wire_of(kSecond, Asked::pull, 4096) == milliseconds(5));
}

TEST_CASE("step time: a shard that says it took longer than the round trip is not believed") {
    StepTime steps;
    steps.gradient_begins(at(0));
    steps.computation_ends(at(1));
    steps.answered(kFirst, pulled(1), std::chrono::hours(1), at(5));
    steps.gradient_begins(at(5));
    check(steps.total(), 1, 0, 0, 0, 4);
}

TEST_CASE("step time: the least of the last ones is of at least 32 and at most 64 values") {
    LeastOfLast least;
    CHECK(least.with(Nanos{5}) == Nanos{5});
    std::uint32_t kept = 0;
    for (; least.with(Nanos{100}) == Nanos{5}; ++kept) REQUIRE(kept < 1000);
    CHECK(kept == 63);  // the first of its block
    LeastOfLast late;
    for (std::uint32_t i = 0; i + 1 < LeastOfLast::kBlock; ++i)
        CHECK(late.with(Nanos{9}) == Nanos{9});
    CHECK(late.with(Nanos{5}) == Nanos{5});
    for (kept = 0; late.with(Nanos{100}) == Nanos{5}; ++kept) REQUIRE(kept < 1000);
    CHECK(kept == 32);  // the last of its block
    std::mt19937 random(7);
    std::vector<Nanos> all;
    LeastOfLast any;
    for (int i = 0; i < 2000; ++i) {
        all.emplace_back(random() % 1000);
        const Nanos found = any.with(all.back());
        const auto of_last = [&](std::ptrdiff_t count) {
            return *std::min_element(all.end() - std::min<std::ptrdiff_t>(count, std::ssize(all)),
                                     all.end());
        };
        REQUIRE(found >= of_last(64));
        REQUIRE(found <= of_last(32));
    }
}

TEST_CASE("step time: the five add up to the step to the nanosecond whatever happens") {
    std::mt19937_64 random(1991);
    const auto below = [&](std::uint64_t most) { return random() % most; };
    StepTime steps;
    std::uint64_t now = 1'000;
    std::uint64_t first = 0;
    for (std::uint64_t step = 0; step < 5'000; ++step) {
        steps.gradient_begins(Time(Nanos(now)));
        if (step == 0) first = now;
        REQUIRE(steps.steps() == step);
        REQUIRE(steps.total().sum() == Nanos(now - first));
        for (std::uint64_t halves = below(3);; --halves) {
            now += below(1'000'000'007);
            steps.computation_ends(Time(Nanos(now)));
            for (std::uint64_t answers = below(5); answers > 0; --answers) {
                now += below(3) == 0 ? 0 : below(100'000'003);
                const std::uint64_t sent = now - std::min(now, below(400'000'009));
                const Answered answer{below(2) == 0 ? Asked::pull : Asked::push, below(1U << 22U),
                                      Time(Nanos(sent)), below(4) != 0};
                const auto shard = static_cast<std::uint32_t>(below(3));
                steps.answered(ShardId{shard}, answer, Nanos(below(50'000'000)), Time(Nanos(now)));
            }
            now += below(4) == 0 ? below(100'000'007) : 0;
            if (halves == 0) break;
            steps.next_half_begins(Time(Nanos(now)));
        }
    }
    steps.ends(Time(Nanos(now)));
    CHECK(steps.total().sum() == Nanos(now - first));
    for (const Nanos part : {steps.total().compute, steps.total().wait, steps.total().wire,
                             steps.total().queue, steps.total().apply}) {
        CHECK(part > Nanos{0});
    }
}

}  // namespace detente
