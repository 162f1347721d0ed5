// A TCP connection between a worker and a shard that is cut in the middle of a message: what was on
// it is sent again over the next one, and counts once.
#include <catch2/catch.hpp>
#include <map>
#include <set>
#include <sstream>

#include "tests/system/proxied_run.h"

namespace detente::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
namespace json = boost::json;

constexpr std::size_t kPortOfShard1 = 2;  // only workers connect there
// Each push to a shard and each answer is about 200 KB: so it is the sixth or so that is cut, and
// not at its end.
constexpr std::uint64_t kInTheMiddle = 1'100'003;

// What the shards' ledgers have.
struct Judged {
    std::map<std::string, std::uint64_t> updates;    // of blocks, by verdict
    std::map<std::uint64_t, std::uint64_t> applied;  // by block
};
// Besides, that no push has two verdicts, and that each update made the next version.
Judged judged_in(const TinyRun& run) {
    const TemporaryFolder folder;
    Launched ledger(folder, {"ledger", run.run_dir(), "--json"});
    REQUIRE(ledger.wait(seconds(20)) == 0);
    Judged judged;
    std::set<std::string> pushes;
    std::istringstream lines(ledger.output());
    for (std::string line; std::getline(lines, line);) {
        if (!line.starts_with("{")) continue;
        const json::object entry = json::parse(line).as_object();
        if (entry.at("kind").as_string() != "verdict") continue;
        std::string push(entry.at("node").as_string());
        for (const char* key : {"worker", "incarnation", "step", "part"}) {
            push += " " + std::to_string(count(entry, key));
        }
        CAPTURE(push);
        CHECK(pushes.insert(push).second);
        for (const json::value& value : entry.at("blocks").as_array()) {
            const json::object& block = value.as_object();
            const std::string verdict(block.at("verdict").as_string());
            ++judged.updates[verdict];
            if (verdict != "applied") continue;
            CHECK(count(block, "version") == ++judged.applied[count(block, "block")]);
        }
    }
    return judged;
}

TEST_CASE("connection: a push or its answer cut in the middle is sent again and applied once") {
    const bool answer = GENERATE(false, true);
    CAPTURE(answer);
    const Between between(milliseconds(0), CutOnce{kPortOfShard1, answer, kInTheMiddle});
    const TinyRun run("elements = 100000\nstep_ms = 10");
    // Nothing is too stale, however long the lost push is waited for.
    const auto ranks = join_by_hand(
        run, words(ports_and(between, "127.0.0.1", "127.0.0.2"),
                   {"--set", "staleness.policy=async", "--set", "blocks.bytes=65536"}));
    double sent_again = 0;
    CHECK(eventually(seconds(30), [&] {
        sent_again = run.value("worker:0", "sent_again") + run.value("worker:1", "sent_again");
        return sent_again > 0;
    }));
    for (const auto& rank : ranks) {
        CAPTURE(rank->output());
        CHECK(rank->wait(seconds(60)) == 0);
    }
    CHECK(between.proxy->cuts() == 1);

    const json::object summary = run.summary();
    check_books(summary);
    const json::object& updates = summary.at("updates").as_object();
    CHECK(count(updates, "lost") == 0);
    CHECK(count(updates, "rejected") == 0);
    CHECK(count(summary, "samples") == 2048);
    CHECK(count(summary, "processes_lost") == 0);
    const Judged judged = judged_in(run);
    CHECK(judged.updates ==
          std::map<std::string, std::uint64_t>{{"applied", count(updates, "applied")}});
    // Each of 256 batches once to each block: seven of the trunk, and two heads.
    CHECK(judged.applied.size() == 7 + 2);
    for (const auto& [block, times] : judged.applied) CHECK(times == 256);
}

}  // namespace
}  // namespace detente::test
