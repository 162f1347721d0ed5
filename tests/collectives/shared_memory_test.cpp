// Shared memory between real processes: what the contract's suite cannot ask of every backend.
#include "worker/collectives/shared_memory.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <set>

#include "tests/collectives/kinds.h"
#include "worker/collectives/arena.h"

using namespace detente;
using namespace detente::testing;

namespace {

// Of this process's runs (unique_run()); other programs come and go there meanwhile.
std::set<std::string> own_shared_files() {
    std::set<std::string> names;
    DIR* opened = ::opendir("/dev/shm");
    if (opened == nullptr) return names;
    const std::string own = "test-" + std::to_string(::getpid()) + "-";
    while (const dirent* entry = ::readdir(opened)) {
        const std::string name = entry->d_name;
        if (name.find(own) != std::string::npos) names.insert(name);
    }
    ::closedir(opened);
    return names;
}

MakeBackend shared(const std::string& run, std::size_t arena_bytes) {
    const SharedMemoryOptions options{run, arena_bytes};
    return [options] { return std::make_unique<SharedMemoryBackend>(options); };
}

double cpu_ms() {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    const auto ms = [](const timeval& time) {
        return 1e3 * static_cast<double>(time.tv_sec) + 1e-3 * static_cast<double>(time.tv_usec);
    };
    return ms(usage.ru_utime) + ms(usage.ru_stime);
}

}  // namespace

TEST_CASE("shared memory: whoever is killed at any moment is named and nothing is left behind") {
    for (int trial = 0; trial < 12; ++trial) {
        DYNAMIC_SECTION("trial " << trial) {
            bool killed = false;
            // The others' progress decides when: each trial at another place of a step.
            const Reports reports = run_in_processes(
                shared(unique_run(), 8U << 20U), "until_killed", 3, [&](ProcessView& view) {
                    const bool all_run =
                        !view.said[0].empty() && !view.said[1].empty() && !view.said[2].empty();
                    if (killed || !all_run) return;
                    // Some microseconds that differ from trial to trial.
                    const Time until = clock_now() + std::chrono::microseconds(37 * trial);
                    while (clock_now() < until) {
                    }
                    ::kill(view.pids[1], SIGKILL);
                    killed = true;
                });
            CHECK(reports[1].back() == "died");
            CHECK(reports[0] == reports[2]);
            REQUIRE(reports[0].size() == 3);
            CHECK(reports[0][1] == "broken: peer_lost, missing worker:5");
            INFO(reports[0][2]);
            CHECK(reports[0][2].find("averaged, weight 2") != std::string::npos);
            CHECK(reports[0][2].find("wrong") == std::string::npos);
        }
    }
    CHECK(own_shared_files().empty());
}

TEST_CASE("shared memory: a member that is stopped is missed at the deadline") {
    bool stopped = false;
    const Reports reports = run_in_processes(
        shared(unique_run(), 8U << 20U), "until_killed", 3, [&](ProcessView& view) {
            const auto running = [&](std::size_t i) { return !view.said[i].empty(); };
            if (!stopped && running(0) && running(1) && running(2)) {
                ::kill(view.pids[1], SIGSTOP);
                stopped = true;
            }
            // The others have ended: it need not wait for its own end.
            if (view.said[0].size() == 3 && view.said[2].size() == 3) {
                ::kill(view.pids[1], SIGKILL);
            }
        });
    CHECK(reports[0] == reports[2]);
    REQUIRE(reports[0].size() == 3);
    CHECK(reports[0][1] == "broken: timed_out, missing worker:5");
    CHECK(reports[0][2].find("averaged, weight 2") != std::string::npos);
}

TEST_CASE("shared memory: who does not come to form the group is named by all who wait") {
    const std::string run = unique_run();
    const Reports reports = fork_members(
        [&](std::size_t i, const auto&) -> Lines {
            if (i == 2) return {"elsewhere"};
            const auto backend = shared(run, 1U << 20U)();
            const auto formed =
                backend->form(whole_group(1, 3), worker(i), std::chrono::seconds(3));
            if (formed.has_value()) return {"formed"};
            const std::string& text = formed.error().text;
            return {name_of(formed.error().code), text.substr(0, text.find(" before"))};
        },
        3);
    const Lines expected{"timed_out", "worker:8 did not come to form the group of epoch 1"};
    CHECK(reports[0] == expected);
    CHECK(reports[1] == expected);
}

TEST_CASE("shared memory: members that are given different groups of one epoch are told") {
    const std::string run = unique_run();
    const Reports reports = fork_members(
        [&](std::size_t i, const auto&) -> Lines {
            const auto backend = shared(run, 1U << 20U)();
            const auto formed = backend->form(i == 0 ? whole_group(1, 2) : whole_group(1, 3),
                                              worker(i), std::chrono::seconds(10));
            return {formed.has_value() ? "formed" : name_of(formed.error().code)};
        },
        2);
    CHECK(reports == Reports{{"wrong_epoch"}, {"wrong_epoch"}});
}

TEST_CASE("shared memory: a mean that is held keeps its bytes and its room") {
    const std::string run = unique_run();
    const Reports reports = fork_members(
        [&](std::size_t i, const auto&) -> Lines {
            // Room for two gradients and two means of 256 KiB, and not for a third mean.
            const auto backend = shared(run, 1U << 20U)();
            auto formed = backend->form(whole_group(1, 2), worker(i), std::chrono::seconds(10));
            if (formed.has_error()) return {formed.error().text};
            Collective& collective = **formed;
            constexpr std::size_t kElements = 65536;
            Lines lines;
            std::vector<CollectiveEnd> held;
            for (std::uint64_t step = 1; step <= 3; ++step) {
                const CollectiveKey key = key_of(1, step, 0);
                const auto begun = collective.begin(key, share_of(i, key, kElements, 1),
                                                    clock_now() + std::chrono::seconds(10));
                if (begun.has_error()) return {begun.error().text};
                for (auto& end : ends_of(collective, 1)) held.push_back(std::move(end));
            }
            for (const auto& end : held) {
                const auto& averaged = std::get<Averaged>(end.result);
                lines.push_back(error_of(averaged, end.key, {1, 1}) < 1e-6 ? "right" : "wrong");
            }
            // Three means are held; the fourth finds no room until they are dropped.
            const CollectiveKey key = key_of(1, 4, 0);
            const auto begun = collective.begin(key, share_of(i, key, kElements, 1),
                                                clock_now() + std::chrono::seconds(10));
            if (begun.has_error()) return {begun.error().text};
            for (int round = 0; round < 20; ++round) {
                if (!collective.poll(clock_now()).empty()) return {"found room"};
                collective.wait(std::chrono::milliseconds(2));
            }
            held.clear();
            for (const auto& end : ends_of(collective, 1)) {
                const auto& averaged = std::get<Averaged>(end.result);
                lines.push_back(error_of(averaged, end.key, {1, 1}) < 1e-6 ? "right" : "wrong");
            }
            return lines;
        },
        2);
    CHECK(reports[0] == Lines{"right", "right", "right", "right"});
    CHECK(reports[1] == reports[0]);
}

TEST_CASE("shared memory: no room by the deadline breaks the group and says what fills it") {
    const std::string run = unique_run();
    const Reports reports = fork_members(
        [&](std::size_t i, const auto&) -> Lines {
            const auto backend = shared(run, 1U << 20U)();
            auto formed = backend->form(whole_group(1, 2), worker(i), std::chrono::seconds(10));
            if (formed.has_error()) return {formed.error().text};
            Collective& collective = **formed;
            Lines lines;
            const auto filled = collective.buffer(i == 1 ? 900'000 : 64);
            const CollectiveKey key = key_of(1, 1, 0);
            const auto begun = collective.begin(key, share_of(i, key, 50'000, 1),
                                                clock_now() + std::chrono::milliseconds(200));
            if (begun.has_error()) return {begun.error().text};
            for (const auto& end : ends_of(collective, 1)) {
                // Either may be first to say so; the one without room knows why.
                lines.push_back(std::get<Broken>(end.result).missing == std::vector{worker(1)}
                                    ? "worker:5"
                                    : text_of(end));
            }
            const auto too_large = collective.buffer(2U << 20U);
            lines.push_back(too_large.has_value() ? "given" : name_of(too_large.error().code));
            return lines;
        },
        2);
    CHECK(reports[0] == Lines{"worker:5", "over_limit"});
    CHECK(reports[1] == reports[0]);
}

TEST_CASE("shared memory: waiting for a slow member costs no processor time") {
    const std::string run = unique_run();
    const Reports reports = fork_members(
        [&](std::size_t i, const auto&) -> Lines {
            const auto backend = shared(run, 1U << 20U)();
            auto formed = backend->form(whole_group(1, 2), worker(i), std::chrono::seconds(10));
            if (formed.has_error()) return {formed.error().text};
            if (i == 1) {
                wait_until_broken(**formed);
                return {"told"};
            }
            const double before = cpu_ms();
            const auto begun = (*formed)->begin(key_of(1, 1, 0), cancelled_share(1),
                                                clock_now() + std::chrono::milliseconds(500));
            if (begun.has_error()) return {begun.error().text};
            ends_of(**formed, 1);
            const double spent = cpu_ms() - before;
            return {spent < 25 ? "idle" : "spent " + std::to_string(spent) + " ms of 500"};
        },
        2);
    CHECK(reports[0] == Lines{"idle"});
    CHECK(reports[1] == Lines{"told"});
}

TEST_CASE("shared memory: what a round brings has room while the means of the last are held") {
    const std::string run = unique_run();
    constexpr std::size_t kTasks = 3;
    constexpr std::size_t kElements = 65'536;
    const std::size_t arena = arena_for(kTasks * kElements * sizeof(float));
    const Reports reports = fork_members(
        [&](std::size_t i, const auto&) -> Lines {
            const auto backend = shared(run, arena)();
            auto formed = backend->form(whole_group(1, 2), worker(i), std::chrono::seconds(10));
            if (formed.has_error()) return {formed.error().text};
            std::vector<CollectiveEnd> held;
            for (std::uint64_t step = 1; step <= 2; ++step) {
                for (std::uint32_t task = 0; task < kTasks; ++task) {
                    const CollectiveKey key = key_of(1, step, task);
                    const auto begun = (*formed)->begin(key, share_of(i, key, kElements, 1),
                                                        clock_now() + std::chrono::seconds(8));
                    if (begun.has_error()) return {begun.error().text};
                }
                for (auto& end : ends_of(**formed, kTasks)) held.push_back(std::move(end));
            }
            std::size_t right = 0;
            for (const CollectiveEnd& end : held) {
                const auto* averaged = std::get_if<Averaged>(&end.result);
                if (averaged == nullptr) return {text_of(end)};
                if (error_of(*averaged, end.key, {1, 1}) < 1e-6) ++right;
            }
            return {std::to_string(right) + " right"};
        },
        2);
    CHECK(reports == Reports{{"6 right"}, {"6 right"}});
}

TEST_CASE(
    "shared memory: a round that takes more than the host has is refused with what it takes") {
    SharedMemoryOptions options;
    options.round_bytes = 1'000'000;
    CHECK(check_memory(whole_group(1, 3), options, 4'000'000).has_value());
    const auto refused = check_memory(whole_group(1, 3), options, 3'999'999);
    REQUIRE(refused.has_error());
    CHECK(refused.error().code == ErrorCode::not_supported);
    INFO(refused.error().text);
    CHECK(refused.error().text.find("up to 4000000 bytes") != std::string::npos);
    CHECK(refused.error().text.find("sync.layers") != std::string::npos);
    CHECK(memory_of_host() > 0);
    options.run = unique_run();
    options.round_bytes = memory_of_host();
    const auto formed =
        SharedMemoryBackend(options).form(whole_group(1, 2), worker(0), std::chrono::seconds(1));
    REQUIRE(formed.has_error());
    CHECK(formed.error().code == ErrorCode::not_supported);
}

TEST_CASE("arena: pieces do not overlap and what is given back is joined again") {
    Arena arena(1024);
    const auto a = arena.take(100);
    const auto b = arena.take(200);
    const auto c = arena.take(640);
    REQUIRE((a && b && c));
    CHECK(*a == 0);
    CHECK(*b == 128);
    CHECK(*c == 384);
    CHECK_FALSE(arena.take(1));
    arena.give_back(*b, 200);
    CHECK_FALSE(arena.take(300));
    arena.give_back(*a, 100);
    CHECK(arena.take(300) == std::size_t{0});
    arena.give_back(0, 300);
    arena.give_back(*c, 640);
    CHECK(arena.used_bytes() == 0);
    CHECK(arena.take(1024) == std::size_t{0});
}
