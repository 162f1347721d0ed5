#include "common/runtime/sim/groups.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <queue>

namespace detente::sim {
namespace {

// Members' events in the order of their times.
struct GroupBench {
    struct Posted {
        WorkerId to;
        Nanos at;
        Event event;
    };
    std::vector<Posted> posted;
    std::vector<std::pair<Nanos, std::function<void()>>> later;
    Nanos now{0};
    Groups groups{{std::chrono::microseconds(10), 1e6},
                  [this](const Groups::Member& to, Nanos delay, Event event) {
                      posted.push_back({to.id, now + delay, std::move(event)});
                  },
                  [this](Nanos delay, std::function<void()> action) {
                      later.emplace_back(now + delay, std::move(action));
                  }};
    // Moves time on to `until`; what was to be done then is done.
    void advance(Nanos until) {
        now = until;
        auto due = std::exchange(later, {});
        for (auto& [when, action] : due) {
            if (when <= until) {
                action();
            } else {
                later.emplace_back(when, std::move(action));
            }
        }
    }
    template <class T>
    std::vector<std::pair<WorkerId, T>> of() const {
        std::vector<std::pair<WorkerId, T>> found;
        for (const Posted& one : posted) {
            if (const T* event = std::get_if<T>(&one.event)) found.emplace_back(one.to, *event);
        }
        return found;
    }
};

constexpr Nanos kDeadline = std::chrono::seconds(1);
const Group kThree{GroupEpoch{1}, {WorkerId{0}, WorkerId{1}, WorkerId{2}}};
Groups::Member member(std::uint32_t index) { return {WorkerId{index}, index + 10}; }
CollectiveKey key(std::uint64_t step, std::uint32_t bucket = 0, std::uint64_t epoch = 1) {
    return {GroupEpoch{epoch}, Step{step}, Bucket{bucket}};
}
GradientShare share(std::vector<float> values, double weight) {
    return {values.size(), weight, copy_of(std::as_bytes(std::span(values)))};
}
std::vector<float> floats_of(const Payload& payload) {
    std::vector<float> values(payload.size() / sizeof(float));
    std::memcpy(values.data(), payload.bytes.data(), payload.size());
    return values;
}
void form_all(GroupBench& bench) {
    for (std::uint32_t i = 0; i < 3; ++i) bench.groups.form(member(i), kThree, kDeadline);
}

}  // namespace

TEST_CASE(
    "simulated groups: every member gets the weighted mean a ring's time after the last came") {
    GroupBench bench;
    form_all(bench);
    REQUIRE(bench.of<GroupFormed>().size() == 3);
    bench.groups.reduce(member(2), key(1), share({3, 30}, 2), kDeadline);
    bench.groups.reduce(member(0), key(1), share({0, 3}, 1), kDeadline);
    CHECK(bench.of<Reduced>().empty());
    bench.now = std::chrono::milliseconds(5);
    bench.groups.reduce(member(1), key(1), share({9, 9}, 0), kDeadline);
    const auto ended = bench.of<Reduced>();
    REQUIRE(ended.size() == 3);
    for (const auto& [to, reduced] : ended) {
        const auto& averaged = std::get<Averaged>(reduced.end.result);
        CHECK(floats_of(averaged.mean) == std::vector<float>{2, 21});
        CHECK(averaged.weight_sum == 3);
    }
    // 2 hops of 10 us, and 2 · 2/3 · 8 bytes at 1 MB/s.
    CHECK((bench.posted.back().at - bench.now).count() == Approx(20'000 + 10'667).margin(1));
    CHECK(floats_of(ended[1].second.end.gradient).size() == 2);
}

TEST_CASE("simulated groups: without a weight there is no mean") {
    GroupBench bench;
    form_all(bench);
    for (std::uint32_t i = 0; i < 3; ++i) {
        bench.groups.reduce(member(i), key(4), cancelled_share(7), kDeadline);
    }
    REQUIRE(bench.of<Reduced>().size() == 3);
    CHECK(std::holds_alternative<Weightless>(bench.of<Reduced>()[0].second.end.result));
}

TEST_CASE(
    "simulated groups: who does not come by the deadline is named to all and breaks the group") {
    GroupBench bench;
    form_all(bench);
    bench.groups.reduce(member(0), key(1), share({1}, 1), kDeadline);
    bench.groups.reduce(member(1), key(1), share({1}, 1), kDeadline);
    bench.advance(kDeadline);
    REQUIRE(bench.of<Reduced>().size() == 2);
    const Broken broken = std::get<Broken>(bench.of<Reduced>()[0].second.end.result);
    CHECK(broken.error.code == ErrorCode::timed_out);
    CHECK(broken.missing == std::vector<WorkerId>{WorkerId{2}});
    CHECK(bench.of<GroupBroken>().size() == 3);
    // It stays broken.
    bench.groups.reduce(member(2), key(1), share({1}, 1), kDeadline);
    CHECK(std::holds_alternative<Broken>(bench.of<Reduced>().back().second.end.result));
}

TEST_CASE("simulated groups: who leaves breaks the group and who forms anew has left") {
    GroupBench bench;
    form_all(bench);
    bench.groups.reduce(member(1), key(1), share({1}, 1), kDeadline);
    const Group two{GroupEpoch{2}, {WorkerId{0}, WorkerId{1}}};
    bench.groups.form(member(0), two, kDeadline);
    REQUIRE(bench.of<GroupBroken>().size() == 2);  // members 1 and 2
    CHECK(bench.of<GroupBroken>()[0].second.broken.missing == std::vector<WorkerId>{WorkerId{0}});
    bench.groups.form(member(1), two, kDeadline);
    CHECK(bench.of<GroupFormed>().size() == 3 + 2);
    bench.groups.reduce(member(1), key(1), share({1}, 1), kDeadline);  // of the old one
    CHECK(std::get<Broken>(bench.of<Reduced>().back().second.end.result).error.code ==
          ErrorCode::wrong_epoch);
    bench.groups.leave(member(0));
    CHECK(bench.of<GroupBroken>().back().second.epoch == GroupEpoch{2});
}

TEST_CASE("simulated groups: a group that is not complete by the deadline is not formed") {
    GroupBench bench;
    bench.groups.form(member(0), kThree, kDeadline);
    bench.groups.form(member(2), kThree, kDeadline);
    CHECK(bench.posted.empty());
    bench.advance(kDeadline);
    REQUIRE(bench.of<GroupFormed>().size() == 2);
    const Result<void> result = bench.of<GroupFormed>()[0].second.result;
    REQUIRE(result.has_error());
    CHECK(result.error().code == ErrorCode::timed_out);
    CHECK_THAT(result.error().text, Catch::Contains("worker:1"));
    bench.groups.form(member(1), kThree, kDeadline);  // too late
    CHECK(bench.of<GroupFormed>().back().second.result.has_error());
}

}  // namespace detente::sim
