#include "ps/leases.h"

#include <catch2/catch.hpp>
#include <map>
#include <tuple>

namespace detente {
namespace {

constexpr WorkerId kZero{0};
constexpr WorkerId kOne{1};

// The one answer there is to a request; fails if there is none.
LeaseReply asked(Leases& leases, WorkerId worker, const LeaseRequest& request) {
    leases.request(worker, request);
    const auto answers = leases.answers();
    REQUIRE(answers.size() == 1);
    CHECK(answers[0].worker == worker);
    return answers[0].reply;
}

// Every batch granted, with how often.
void count_grants(Leases& leases, std::map<std::pair<std::uint32_t, std::uint32_t>, int>& times) {
    for (const Leases::Change& change : leases.changes()) {
        for (std::uint32_t i = 0; change.granted && i < change.range.count; ++i) {
            ++times[{change.range.data_epoch, change.range.first + i}];
        }
    }
}

}  // namespace

TEST_CASE("without faults every batch of every data epoch is leased exactly once") {
    const auto [batches, epochs, workers] =
        GENERATE(std::make_tuple(1U, 1U, 1U), std::make_tuple(7U, 3U, 2U),
                 std::make_tuple(100U, 2U, 5U), std::make_tuple(64U, 1U, 3U));
    Leases leases(batches, epochs, 8, workers);
    std::map<std::pair<std::uint32_t, std::uint32_t>, int> times;
    std::vector<LeaseReply> held(workers);
    std::vector<LeaseRequest> requests(workers);
    std::size_t done = 0;
    for (std::uint32_t w = 0; w < workers; ++w) leases.request({w}, requests[w] = {1, {}, true});
    for (int round = 0; done < workers && round < 10000; ++round) {
        const auto answers = leases.answers();
        count_grants(leases, times);
        REQUIRE_FALSE(answers.empty());
        for (const Leases::Answer& answer : answers) {
            const std::uint32_t w = answer.worker.value;
            if (answer.reply.no_more) {
                ++done;
                continue;
            }
            requests[w] = {requests[w].request + 1, answer.reply.granted, true};
            leases.request(answer.worker, requests[w]);
        }
    }
    CHECK(done == workers);
    CHECK(times.size() == std::size_t{batches} * epochs);
    for (const auto& [batch, count] : times) CHECK(count == 1);
    CHECK(leases.finished() == leases.total());
    CHECK(leases.leased() == leases.total());
    CHECK(leases.returned() == 0);
}

TEST_CASE("leases shrink towards the end and never cross a data epoch") {
    Leases leases(40, 1, 8, 2);
    std::uint32_t last = 8;
    std::uint64_t left = 40;
    std::vector<BatchRange> finished;
    for (std::uint32_t n = 1; left > 0; ++n) {
        const LeaseReply reply = asked(leases, kZero, {n, finished, true});
        REQUIRE(reply.granted.size() == 1);
        const BatchRange range = reply.granted[0];
        CHECK(range.count <= last);
        CHECK(range.count <= std::max<std::uint64_t>(1, left / 4));
        CHECK(range.first + range.count <= 40);
        last = range.count;
        left -= range.count;
        finished = {range};
    }
    CHECK(last == 1);
}

TEST_CASE("a repeated request repeats its answer, with all that is held, and grants nothing") {
    Leases leases(100, 1, 4, 2);
    const LeaseReply first = asked(leases, kZero, {1, {}, true});
    const LeaseReply second = asked(leases, kZero, {2, {}, true});  // the first answer was lost
    REQUIRE(second.granted.size() == 2);
    CHECK(second.granted[0] == first.granted[0]);
    const LeaseReply again = asked(leases, kZero, {2, {}, true});
    CHECK(again.request == 2);
    CHECK(again.granted == second.granted);
    CHECK(leases.leased() == 8);
    leases.request(kZero, {1, {}, true});  // overtaken
    CHECK(leases.answers().empty());
}

TEST_CASE("finished batches are taken out of what is held, also from the middle, once") {
    Leases leases(100, 1, 8, 1);
    const BatchRange held = asked(leases, kZero, {1, {}, true}).granted.at(0);
    REQUIRE(held == BatchRange{0, 0, 8});
    const LeaseReply split = asked(leases, kZero, {2, {{0, 3, 2}, {0, 50, 1}, {1, 0, 1}}, false});
    CHECK(split.granted == std::vector<BatchRange>{{0, 0, 3}, {0, 5, 3}});
    CHECK(leases.finished() == 2);  // what it never held does not count
    CHECK(asked(leases, kZero, {3, {{0, 3, 2}}, false}).granted.size() == 2);
    CHECK(leases.finished() == 2);
}

TEST_CASE("what a worker held is given back and leased to the next who asks") {
    Leases leases(100, 1, 8, 1);
    asked(leases, kZero, {1, {}, true});
    asked(leases, kZero, {2, {{0, 0, 5}}, false});
    leases.changes();
    leases.release(kZero);
    const auto changes = leases.changes();
    REQUIRE(changes.size() == 1);
    CHECK_FALSE(changes[0].granted);
    CHECK(changes[0].range == BatchRange{0, 5, 3});
    CHECK(leases.returned() == 3);
    CHECK(asked(leases, kOne, {1, {}, true}).granted == std::vector<BatchRange>{{0, 5, 3}});
    leases.release(kZero);  // again: nothing more
    CHECK(leases.returned() == 3);
}

TEST_CASE("a request waits while others hold the last batches, and is answered when they finish") {
    Leases leases(1, 1, 8, 2);
    const LeaseReply only = asked(leases, kZero, {1, {}, true});
    leases.request(kOne, {1, {}, true});
    CHECK(leases.answers().empty());
    leases.request(kOne, {1, {}, true});  // sent again while it waits
    CHECK(leases.answers().empty());
    SECTION("finished: there is no more for anybody") {
        leases.request(kZero, {2, only.granted, true});
        const auto answers = leases.answers();
        REQUIRE(answers.size() == 2);
        for (const auto& answer : answers) {
            CHECK(answer.reply.no_more);
            CHECK(answer.reply.granted.empty());
        }
    }
    SECTION("given back: who waits gets it") {
        leases.release(kZero);
        const auto answers = leases.answers();
        REQUIRE(answers.size() == 1);
        CHECK(answers[0].worker == kOne);
        CHECK(answers[0].reply.granted == only.granted);
        CHECK_FALSE(answers[0].reply.no_more);
    }
    CHECK(leases.answers().empty());
}

TEST_CASE("after a restore what was finished is not leased again and everything else is") {
    Leases leases(20, 2, 4, 2);
    std::map<std::pair<std::uint32_t, std::uint32_t>, int> times;
    asked(leases, kZero, {1, {}, true});
    asked(leases, kOne, {1, {}, true});
    leases.request(kZero, {2, {{0, 0, 3}}, true});
    leases.answers();
    REQUIRE(leases.finished() == 3);

    Leases restored(20, 2, 4, 2);
    REQUIRE(restored.restore(leases.save()).has_value());
    CHECK(restored.finished() == 3);
    LeaseRequest request{1, {}, true};
    for (; restored.finished() < restored.total(); ++request.request) {
        request.finished = asked(restored, kOne, request).granted;
        count_grants(restored, times);
        REQUIRE(request.request < 100);
    }
    CHECK(times.size() == 37);
    for (std::uint32_t batch = 0; batch < 3; ++batch) CHECK(times.count({0, batch}) == 0);
    for (const auto& [batch, count] : times) CHECK(count == 1);
}

TEST_CASE("text that is no data cursor of this job is refused and changes nothing") {
    Leases leases(20, 2, 4, 2);
    asked(leases, kZero, {1, {}, true});
    const std::string before = leases.save();
    REQUIRE(before == "leases 1 20 2 0 4 0 1 0 0 4");
    const std::string text =
        GENERATE("", "leases", "leases 2 20 2 0 4 0 1 0 0 4", "cursor 1 20 2 0 4 0 1 0 0 4",
                 "leases 1 21 2 0 4 0 1 0 0 4", "leases 1 20 2 0 4 0 1 0 0",
                 "leases 1 20 2 0 20 0 1 0 0 4", "leases 1 20 2 0 4 0 99999999999 0 0 4",
                 "leases 1 20 2 0 4 0 1 0 18 4", "leases 1 20 2 0 4 0 1 0 0 0",
                 "leases 1 20 2 x 4 0 1 0 0 4", "leases 1 20 2 0 4 3 1 0 0 4");
    INFO(text);
    const auto restored = leases.restore(text);
    REQUIRE_FALSE(restored.has_value());
    CHECK(restored.error().code == ErrorCode::bad_checkpoint);
    CHECK(leases.save() == before);
}

}  // namespace detente
