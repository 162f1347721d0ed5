#include "common/partition/task_placement.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <set>

#include "common/random.h"

namespace detente {
namespace {

std::vector<std::string> names_of(std::size_t tasks, const std::string& first = "task") {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < tasks; ++i) names.push_back(first + std::to_string(i));
    return names;
}

TaskSet all_of(std::size_t tasks) { return tasks_of(BatchRange{}, tasks); }

std::vector<std::size_t> workers_by_task(const std::map<WorkerId, TaskSet>& placed,
                                         std::size_t tasks) {
    std::vector<std::size_t> workers(tasks, 0);
    for (const auto& [worker, own] : placed) {
        for (std::uint32_t t = 0; t < tasks; ++t) workers[t] += own.contains(TaskId{t}) ? 1 : 0;
    }
    return workers;
}

}  // namespace

TEST_CASE("placement: loads are even and no task and no worker goes without") {
    Random random(random_key(7, Purpose::test));
    for (int round = 0; round < 400; ++round) {
        const std::size_t tasks = 1 + random.below(kMaxTasks);
        const auto workers = static_cast<std::uint32_t>(1 + random.below(80));
        INFO(tasks << " tasks on " << workers << " workers");
        const auto names = names_of(tasks, "t" + std::to_string(round) + ".");
        const auto placed = place_tasks(names, all_of(tasks), all_workers(workers));
        REQUIRE(placed.size() == workers);
        const std::vector<std::size_t> behind = workers_by_task(placed, tasks);
        const auto [fewest, most] = std::minmax_element(behind.begin(), behind.end());
        int least = kMaxTasks;
        int largest = 0;
        for (const auto& [worker, own] : placed) {
            least = std::min(least, own.count());
            largest = std::max(largest, own.count());
        }
        if (tasks >= workers) {
            CHECK(*fewest == 1);
            CHECK(*most == 1);
            CHECK(least == static_cast<int>(tasks / workers));
            CHECK(largest <= least + 1);
        } else {
            CHECK(least == 1);
            CHECK(largest == 1);
            CHECK(*fewest == workers / tasks);
            CHECK(*most <= *fewest + 1);
        }
    }
}

TEST_CASE("placement: it is the same whatever the order of the members and of other tasks") {
    const auto names = names_of(9);
    std::vector<WorkerId> members{{4}, {0}, {11}, {2}};
    const auto placed = place_tasks(names, all_of(9), members);
    std::sort(members.begin(), members.end());
    do {
        REQUIRE(place_tasks(names, all_of(9), members) == placed);
    } while (std::next_permutation(members.begin(), members.end()));
    members.push_back(members.front());
    CHECK(place_tasks(names, all_of(9), members) == placed);
    // A task is known by its name: with other numbers it is where it was.
    std::vector<std::string> reversed(names.rbegin(), names.rend());
    for (const auto& [worker, own] : place_tasks(reversed, all_of(9), members)) {
        for (std::uint32_t t = 0; t < 9; ++t) {
            CHECK(own.contains(TaskId{t}) == placed.at(worker).contains(TaskId{8 - t}));
        }
    }
}

TEST_CASE("placement: only tasks that are asked for are placed") {
    TaskSet some;
    some.insert(TaskId{1});
    some.insert(TaskId{3});
    const auto placed = place_tasks(names_of(4), some, all_workers(2));
    CHECK((placed.at(WorkerId{0}).bits | placed.at(WorkerId{1}).bits) == some.bits);
    CHECK(placed.at(WorkerId{0}).count() == 1);
    CHECK(place_tasks(names_of(4), {}, all_workers(2)).at(WorkerId{0}).empty());
    CHECK(place_tasks(names_of(4), some, {}).empty());
}

TEST_CASE("placement: who leaves moves its own tasks and few others") {
    // Not moved at all would contradict even loads; without them rendezvous hashing moves none.
    std::size_t moved = 0;
    std::size_t had_to = 0;
    std::size_t stayed = 0;
    for (std::uint32_t round = 0; round < 50; ++round) {
        const auto names = names_of(48, "n" + std::to_string(round) + ".");
        std::vector<WorkerId> members = all_workers(8);
        const auto before = place_tasks(names, all_of(48), members);
        const WorkerId leaver{round % 8};
        std::erase(members, leaver);
        const auto after = place_tasks(names, all_of(48), members);
        for (const auto& [worker, own] : before) {
            if (worker == leaver) {
                had_to += static_cast<std::size_t>(own.count());
                continue;
            }
            const TaskSet kept{own.bits & after.at(worker).bits};
            stayed += static_cast<std::size_t>(kept.count());
            moved += static_cast<std::size_t>(own.count() - kept.count());
        }
    }
    INFO(moved << " others moved, " << stayed << " stayed, " << had_to << " had to move");
    CHECK(had_to == 50 * 6);
    CHECK(moved * 8 < stayed);
}

TEST_CASE("placement: it is computed once for ten thousand workers while members stay the same") {
    const auto names = names_of(3);
    TaskPlacement placement(names, all_of(3));
    std::vector<WorkerId> members = all_workers(10'000);
    const auto placed = place_tasks(names, all_of(3), members);
    for (const WorkerId worker : members) {
        REQUIRE(placement.of(worker, members) == placed.at(worker));
    }
    CHECK(placement.computed() == 1);
    members.pop_back();
    CHECK_FALSE(placement.of(WorkerId{9'999}, members).has_value());
    const auto moved = place_tasks(names, all_of(3), members);
    CHECK(placement.of(WorkerId{17}, members) == moved.at(WorkerId{17}));
    CHECK(placement.computed() == 2);
    CHECK_FALSE(placement.of(WorkerId{17}, {}).has_value());
}

TEST_CASE("placement: with more workers than tasks a leaver moves at most one other") {
    for (std::uint32_t round = 0; round < 100; ++round) {
        const auto names = names_of(3, "m" + std::to_string(round) + ".");
        std::vector<WorkerId> members = all_workers(7);
        const auto before = place_tasks(names, all_of(3), members);
        std::erase(members, WorkerId{round % 7});
        const auto after = place_tasks(names, all_of(3), members);
        std::size_t moved = 0;
        for (const auto& [worker, own] : after) moved += own != before.at(worker) ? 1 : 0;
        INFO("round " << round << ": " << moved << " moved");
        CHECK(moved <= 2);
    }
}

TEST_CASE("placement: its print names every worker and its tasks") {
    const std::vector<std::string> names{"left", "right"};
    const std::string text = describe(place_tasks(names, all_of(2), all_workers(2)), names);
    CHECK(text.find("worker:0  ") != std::string::npos);
    CHECK(text.find("worker:1  ") != std::string::npos);
    CHECK(text.find("left") != std::string::npos);
    CHECK(text.find("right") != std::string::npos);
    CHECK(text.find("none") == std::string::npos);
}

}  // namespace detente
