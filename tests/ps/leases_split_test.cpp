// Leases of tasks that are split over workers.
#include <catch2/catch.hpp>
#include <map>
#include <set>

#include "ps/leases.h"

namespace detente {
namespace {

constexpr WorkerId kWorkerZero{0};
constexpr WorkerId kWorkerOne{1};
constexpr TaskSet kOfFirst{1};
constexpr TaskSet kOfSecond{2};
constexpr TaskSet kOfBoth{3};

LeaseReply asked_for(Leases& leases, WorkerId worker, const LeaseRequest& request, TaskSet wanted) {
    leases.request(worker, request, wanted);
    const auto answers = leases.answers();
    REQUIRE(answers.size() == 1);
    CHECK(answers[0].worker == worker);
    return answers[0].reply;
}

using Times = std::map<BatchRange, int>;  // of one batch each
void count_split_grants(Leases& leases, Times& times) {
    for (const Leases::Change& change : leases.changes()) {
        const BatchRange& range = change.range;
        for (std::uint32_t i = 0; change.granted && i < range.count; ++i) {
            ++times[{range.data_epoch, range.first + i, 1, range.tasks}];
        }
    }
}

}  // namespace

TEST_CASE("split leases: every batch of every data epoch is leased exactly once per task") {
    const TaskSet tasks{0b1011};
    Leases leases(10, 3, 4, 2, tasks);
    CHECK(leases.total() == 90);
    Times times;
    std::map<WorkerId, LeaseRequest> requests{{kWorkerZero, {1, {}, true}},
                                              {kWorkerOne, {1, {}, true}}};
    const std::map<WorkerId, TaskSet> wanted{{kWorkerZero, {0b0011}}, {kWorkerOne, {0b1000}}};
    for (const auto& [worker, request] : requests) {
        leases.request(worker, request, wanted.at(worker));
    }
    std::size_t done = 0;
    for (int round = 0; done < 2 && round < 1000; ++round) {
        for (const Leases::Answer& answer : leases.answers()) {
            done += answer.reply.no_more ? 1 : 0;
            if (answer.reply.no_more) continue;
            LeaseRequest& request = requests[answer.worker];
            request = {request.request + 1, answer.reply.granted, true};
            leases.request(answer.worker, request, wanted.at(answer.worker));
        }
        count_split_grants(leases, times);
    }
    CHECK(done == 2);
    CHECK(times.size() == 90);
    for (const auto& [batch, count] : times) {
        CHECK(count == 1);
        CHECK(batch.tasks.count() == 1);
        CHECK(tasks.contains_all(batch.tasks));
    }
    CHECK(leases.finished() == 90);
}

TEST_CASE("split leases: a worker is given its own tasks side by side while they have batches") {
    Leases leases(100, 1, 8, 2, kOfBoth);
    const LeaseReply own = asked_for(leases, kWorkerZero, {1, {}, true}, kOfSecond);
    CHECK(own.granted == std::vector<BatchRange>{{0, 0, 8, kOfSecond}});
    const LeaseReply both = asked_for(leases, kWorkerOne, {1, {}, true}, kOfBoth);
    CHECK(both.granted == std::vector<BatchRange>{{0, 0, 4, kOfFirst}, {0, 8, 4, kOfSecond}});
}

TEST_CASE("split leases: whose own tasks are all leased is given others, the furthest behind") {
    Leases leases(4, 1, 8, 1, {0b111});
    asked_for(leases, kWorkerZero, {1, {}, true}, {0b100});
    LeaseReply reply = asked_for(leases, kWorkerZero, {2, {}, true}, {0b100});
    asked_for(leases, kWorkerOne, {1, {}, true}, kOfFirst);  // two of the first's four
    for (std::uint32_t n = 3; reply.granted.back().tasks == TaskSet{0b100}; ++n) {
        REQUIRE(n < 10);
        reply = asked_for(leases, kWorkerZero, {n, {}, true}, {0b100});
    }
    CHECK(reply.granted.back().tasks == kOfSecond);
}

TEST_CASE("split leases: a lost worker's tasks go on with whoever is left") {
    Leases leases(4, 1, 4, 2, kOfBoth);
    Times times;
    asked_for(leases, kWorkerZero, {1, {}, true}, kOfFirst);
    LeaseReply reply = asked_for(leases, kWorkerOne, {1, {}, true}, kOfSecond);
    count_split_grants(leases, times);
    leases.release(kWorkerZero);
    std::set<BatchRange> done;
    for (std::uint32_t n = 2; !reply.no_more; ++n) {
        REQUIRE(n < 40);
        for (const BatchRange& range : reply.granted) {
            for (std::uint32_t i = 0; i < range.count; ++i) {
                CHECK(done.insert({range.data_epoch, range.first + i, 1, range.tasks}).second);
            }
        }
        reply = asked_for(leases, kWorkerOne, {n, reply.granted, true}, kOfSecond);
    }
    CHECK(done.size() == 8);
    CHECK(leases.finished() == leases.total());
}

TEST_CASE("split leases: finishing a batch of one task leaves the other task's where it is") {
    Leases leases(100, 1, 8, 1, kOfBoth);
    asked_for(leases, kWorkerZero, {1, {}, true}, kOfBoth);
    const LeaseReply left =
        asked_for(leases, kWorkerZero, {2, {{0, 1, 1, kOfFirst}}, false}, kOfBoth);
    CHECK(leases.finished() == 1);
    CHECK(left.granted ==
          std::vector<BatchRange>{{0, 0, 1, kOfFirst}, {0, 2, 2, kOfFirst}, {0, 0, 4, kOfSecond}});
    asked_for(leases, kWorkerZero, {3, {{0, 1, 1, {}}, {0, 1, 1, {4}}}, false},
              kOfBoth);  // of no such task
    CHECK(leases.finished() == 1);
}

TEST_CASE("split leases: a restored cursor leases what was not finished, task by task") {
    Leases leases(6, 2, 2, 2, kOfBoth);
    asked_for(leases, kWorkerZero, {1, {}, true}, kOfFirst);
    asked_for(leases, kWorkerOne, {1, {}, true}, kOfSecond);
    asked_for(leases, kWorkerZero, {2, {{0, 0, 1, kOfFirst}}, false}, kOfFirst);
    REQUIRE(leases.save() == "leases 2 6 2 2 1 0 2 2 0 2 1 2 0 1 1 1 0 0 2 2");
    Leases restored(6, 2, 2, 2, kOfBoth);
    REQUIRE(restored.restore(leases.save()).has_value());
    CHECK(restored.finished() == 1);
    Times times;
    LeaseRequest request{1, {}, true};
    for (; restored.finished() < restored.total(); ++request.request) {
        request.finished = asked_for(restored, kWorkerOne, request, kOfSecond).granted;
        count_split_grants(restored, times);
        REQUIRE(request.request < 100);
    }
    CHECK(times.size() == 23);
    CHECK(times.count({0, 0, 1, kOfFirst}) == 0);
    for (const auto& [batch, count] : times) CHECK(count == 1);
}

TEST_CASE("split leases: a cursor of unsplit tasks or of other ones is refused by name") {
    Leases split(6, 2, 2, 2, kOfBoth);
    Leases whole(6, 2, 2, 2);
    const auto without = split.restore(whole.save());
    REQUIRE_FALSE(without.has_value());
    CHECK(without.error().code == ErrorCode::bad_checkpoint);
    CHECK(without.error().text.find("made without worker.split_tasks") != std::string::npos);
    const auto with = whole.restore(split.save());
    REQUIRE_FALSE(with.has_value());
    CHECK(with.error().text.find("made with worker.split_tasks") != std::string::npos);
    Leases others(6, 2, 2, 2, {0b101});
    const auto other = others.restore(split.save());
    REQUIRE_FALSE(other.has_value());
    CHECK(other.error().text.find("of other tasks") != std::string::npos);
    const std::string before = split.save();
    const std::string text = GENERATE("leases 2 6 2 2 1 0 2 2 0", "leases 2 6 2 2 1 0 6 2 0 0 0 0",
                                      "leases 2 6 2 1 1 0 0 0 0", "leases 2 6 2 2 1 0 1 2 0 0 0 0",
                                      "leases 2 6 2 2 1 0 1 2 0 0 0 1 0 0 1 4");
    CHECK_FALSE(split.restore(text).has_value());
    CHECK(split.save() == before);
}

}  // namespace detente
