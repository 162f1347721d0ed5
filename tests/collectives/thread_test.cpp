// The thread beside a loop that runs a node's collectives.
#include <algorithm>
#include <catch2/catch.hpp>
#include <condition_variable>
#include <mutex>

#include "tests/collectives/scenarios.h"
#include "worker/collectives/collective_thread.h"
#include "worker/collectives/local.h"

using namespace detente;
using namespace detente::testing;

namespace {

// A node's loop, as far as it is told things.
class Told {
  public:
    CollectiveSink sink() {
        return {
            [this](GroupEpoch epoch, Result<void> result) {
                add("formed " + std::to_string(epoch.value) +
                    (result.has_value() ? "" : std::string(": ") + name_of(result.error().code)));
            },
            [this](CollectiveEnd end) { add(to_string(end.key) + ": " + text_of(end)); },
            [this](GroupEpoch epoch, Broken broken) {
                add("group " + std::to_string(epoch.value) + " " + text_of(broken));
            }};
    }
    // All lines, once there are so many, or after ten seconds.
    Lines lines(std::size_t count) {
        std::unique_lock lock(mutex_);
        changed_.wait_for(lock, std::chrono::seconds(10), [&] { return lines_.size() >= count; });
        return lines_;
    }

  private:
    void add(std::string line) {
        const std::lock_guard lock(mutex_);
        lines_.push_back(std::move(line));
        changed_.notify_all();
    }
    std::mutex mutex_;
    std::condition_variable changed_;
    Lines lines_;
};

constexpr Nanos kPlenty = std::chrono::seconds(20);

}  // namespace

TEST_CASE("collective thread: forms and averages and breaks and forms again beside a loop") {
    const auto hub = std::make_shared<LocalHub>();
    LocalBackend one(hub);
    LocalBackend two(hub);
    Told told_one;
    Told told_two;
    CollectiveThread first(one, worker(0), told_one.sink());
    CollectiveThread second(two, worker(1), told_two.sink());
    first.form(whole_group(1, 2), kPlenty);
    second.form(whole_group(1, 2), kPlenty);
    const CollectiveKey key = key_of(1, 1, 0);
    first.begin(key, share_of(0, key, 100, 1), kPlenty);
    second.begin(key, share_of(1, key, 100, 1), kPlenty);
    CHECK(told_one.lines(2) == told_two.lines(2));
    CHECK(told_one.lines(2)[1].find("averaged, weight 2") != std::string::npos);

    first.begin(key_of(1, 2, 0), cancelled_share(10), kPlenty);
    second.stop();
    Lines after = told_one.lines(4);
    REQUIRE(after.size() == 4);
    // It may see that the other one has left before it begins, or after.
    std::sort(after.begin() + 2, after.end());
    CHECK(after[2] == "epoch 1, step 2, bucket 0: broken: peer_lost, missing worker:5");
    CHECK(after[3] == "group 1 broken: peer_lost, missing worker:5");

    first.form(group_of(2, {0}), kPlenty);
    const CollectiveKey alone = key_of(2, 2, 0);
    first.begin(alone, share_of(0, alone, 100, 1), kPlenty);
    CHECK(told_one.lines(6)[4] == "formed 2");
    CHECK(told_one.lines(6)[5].find("averaged, weight 1") != std::string::npos);
}

TEST_CASE("collective thread: what cannot begin and what is given up ends too") {
    const auto hub = std::make_shared<LocalHub>();
    LocalBackend backend(hub);
    Told told;
    CollectiveThread thread(backend, worker(0), told.sink());
    thread.begin(key_of(1, 1, 0), cancelled_share(1), kPlenty);
    CHECK(told.lines(1)[0] == "epoch 1, step 1, bucket 0: broken: peer_lost, missing");
    CHECK(thread.buffer(64).has_error());
    thread.form(whole_group(1, 2), kPlenty);
    CHECK(told.lines(2)[1] == "formed 1");
    CHECK(thread.buffer(64).has_value());
    thread.begin(key_of(1, 1, 0), cancelled_share(1), kPlenty);
    thread.form(whole_group(1, 2), kPlenty);
    const Lines lines = told.lines(4);
    REQUIRE(lines.size() == 4);
    CHECK(lines[2] == "epoch 1, step 1, bucket 0: broken: cancelled, missing worker:2");
    CHECK(lines[3] == "formed 1: wrong_epoch");
}

TEST_CASE("collective thread: a share that is refused breaks the group for all at once") {
    const auto hub = std::make_shared<LocalHub>();
    LocalBackend one(hub);
    LocalBackend two(hub);
    Told told_one;
    Told told_two;
    CollectiveThread first(one, worker(0), told_one.sink());
    CollectiveThread second(two, worker(1), told_two.sink());
    first.form(whole_group(1, 2), kPlenty);
    second.form(whole_group(1, 2), kPlenty);
    REQUIRE(told_one.lines(1).size() == 1);
    REQUIRE(told_two.lines(1).size() == 1);
    const CollectiveKey key = key_of(1, 1, 0);
    GradientShare wrong = share_of(0, key, 100, 1);
    wrong.elements = 101;
    first.begin(key, std::move(wrong), kPlenty);
    second.begin(key, share_of(1, key, 100, 1), kPlenty);
    CHECK(told_one.lines(3) == Lines{"formed 1",
                                     "epoch 1, step 1, bucket 0: broken: bad_length, missing",
                                     "group 1 broken: io, missing worker:2"});
    Lines others = told_two.lines(3);
    // It may be told of the group before it begins, or after.
    std::sort(others.begin(), others.end());
    CHECK(others == Lines{"epoch 1, step 1, bucket 0: broken: io, missing worker:2", "formed 1",
                          "group 1 broken: io, missing worker:2"});
    // A key of another group is refused, and breaks nothing.
    first.form(group_of(2, {0}), kPlenty);
    first.begin(key, cancelled_share(10), kPlenty);
    const CollectiveKey alone = key_of(2, 1, 0);
    first.begin(alone, share_of(0, alone, 100, 1), kPlenty);
    const Lines after = told_one.lines(6);
    REQUIRE(after.size() == 6);
    CHECK(after[3] == "formed 2");
    CHECK(after[4] == "epoch 1, step 1, bucket 0: broken: wrong_epoch, missing");
    CHECK(after[5].find("averaged, weight 1") != std::string::npos);
}
