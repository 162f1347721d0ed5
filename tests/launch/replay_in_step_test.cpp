// Replays of runs whose workers keep layers in step ([sync]): what was averaged is averaged again.
#include <filesystem>

#include "common/ledger_controls.h"
#include "launch/replay/arrivals.h"
#include "tests/launch/left_behind.h"

namespace detente::test {
namespace {

// Four workers of two virtual nodes, and losses on the way.
std::vector<std::string> in_step(const std::vector<std::string>& more = {},
                                 const std::string& layers = "[\"*\"]") {
    std::vector<std::string> all = {"sync.layers=" + layers,
                                    "workers=4",
                                    "launch.nodes=2",
                                    "conflict.method=pcgrad",
                                    "model.options.samples=1600",
                                    "rule.name=adam",
                                    "rule.learning_rate=0.01",
                                    "worker.clip_norm=0.5",
                                    "simulate.network.drop=0.02",
                                    "simulate.network.jitter_s=0.004",
                                    "simulate.collective.latency_s=0.001"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
}

// As require_replays(), but members that were lost or cancelled may have left a share without a
// hash.
std::size_t rounds_that_replay(const LeftBehind& left) {
    const Recording recording = left.recording();
    const auto replay = replay_of(recording, left);
    const auto figures = replay->run();
    INFO((figures ? "" : figures.error().text));
    REQUIRE(figures.has_value());
    CHECK(figures->rounds == recording.rounds.size());
    CHECK(figures->gradients == recording.steps.size());
    CHECK(figures->applied == left.books().applied);
    CHECK(replay->digest() == left.digest());
    require_same_as_checkpoint(left, *replay);
    return recording.rounds.size();
}

void require_replays_in_step(const LeftBehind& left) { REQUIRE(rounds_that_replay(left) > 0); }

void require_replays_in_step(const std::vector<std::string>& more,
                             const std::string& layers = "[\"*\"]",
                             const std::string& faults = "") {
    require_replays_in_step(LeftBehind(in_step(more, layers), faults));
}

std::string fault(const std::string& kind, const std::string& node, const std::string& at_s,
                  const std::string& lasts_s = "") {
    return "\n[[simulate.fault]]\nkind = \"" + kind + "\"\nnode = \"" + node +
           "\"\nat_s = " + at_s + "\n" + (lasts_s.empty() ? "" : "lasts_s = " + lasts_s + "\n");
}

}  // namespace

TEST_CASE("replay: a run with every layer in step comes out again bit for bit") {
    for (const char* method : {"mean", "pcgrad", "upgrad"}) {
        for (const char* nodes : {"launch.nodes=1", "launch.nodes=2"}) {
            INFO(method << ", " << nodes);
            const LeftBehind left(in_step({std::string("conflict.method=") + method, nodes}));
            require_replays_in_step(left);
            require_replays(left);  // each gradient's own hash included
        }
    }
}

TEST_CASE("replay: so does one whose members push the other layers by themselves") {
    require_replays_in_step({}, "[\"w0\", \"w2\"]");
    require_replays_in_step({"sync.every=3"}, "[\"w1\"]");
    require_replays_in_step({"worker.pull_ahead=1", "worker.push_pull=false"}, "[\"w0\", \"w2\"]");
}

TEST_CASE("replay: in step methods and policies that remember go on from what they remembered") {
    require_replays_in_step({"conflict.method=famo", "conflict.w_lr=0.5"});
    require_replays_in_step({"conflict.method=famo", "conflict.w_lr=0.5"}, "[\"w0\"]");
    require_replays_in_step({"conflict.method=moco"}, "[\"w0\", \"w2\"]");
    require_replays_in_step({"staleness.policy=dc_asgd"}, "[\"w0\", \"w2\"]");
    require_replays_in_step({"staleness.policy=gap_aware"});
}

TEST_CASE("replay: in step a rejection has all members compute again here too") {
    require_replays_in_step({"staleness.policy=bounded_reject", "staleness.tau_max=0",
                             "worker.on_rejection=recompute", "worker.most_recomputes=50"});
    require_replays_in_step(
        {"staleness.policy=bounded_reject", "staleness.tau_max=1", "worker.on_rejection=recompute"},
        "[\"w0\", \"w2\"]");
}

TEST_CASE("replay: in step members are lost and join and drain and stand still here too") {
    for (const std::string& layers : {std::string("[\"*\"]"), std::string("[\"w0\", \"w2\"]")}) {
        std::size_t rounds = 0;  // whom its node lost as it began may never have averaged with it
        for (const std::string& faults :
             {fault("crash", "worker:1", "0.2"), fault("crash", "worker:0", "0.21"),
              fault("restart", "worker:0", "0.2", "0.1"),
              fault("drain", "worker:2", "0.15") + fault("join", "worker:2", "0.3"),
              fault("pause", "worker:3", "0.2", "1")}) {
            INFO(layers << faults);
            const LeftBehind left(
                in_step({"launch.nodes=1", "sync.deadline_s=0.3", "data.epochs=2"}, layers),
                faults);
            rounds += rounds_that_replay(left);
        }
        CHECK(rounds > 0);
    }
}

TEST_CASE("replay: a worker's ledger that says what it brought to its node is asked for") {
    for (const std::uint32_t gone : {0U, 1U}) {
        const LeftBehind left(in_step());
        std::filesystem::remove(left.run().ledger_dir() + "/" +
                                ledger_file_name(node_of(WorkerId{gone}), Incarnation{1}));
        const Recording recording = left.recording();
        const auto figures = replay_of(recording, left)->run();
        REQUIRE(figures.has_error());
        INFO(figures.error().text);
        CHECK(figures.error().code == ErrorCode::bad_message);
        CHECK_THAT(figures.error().text, Catch::Contains("on another host"));
    }
}

TEST_CASE("replay: averages that a library summed in an order of its own are refused by its name") {
    const LeftBehind left(in_step());
    LedgerOrigin origin;
    origin.node = node_of(WorkerId{7});
    const auto ledger = LedgerWriter::create(
        left.run().ledger_dir() + "/" + ledger_file_name(origin.node, origin.incarnation), origin);
    REQUIRE(ledger.has_value());
    REQUIRE((*ledger)->append({Time{}, summed_by("mpi")}).has_value());
    REQUIRE((*ledger)->flush().has_value());
    const auto recording = read_recording(left.run().path, {});
    REQUIRE(recording.has_error());
    CHECK(recording.error().code == ErrorCode::not_supported);
    CHECK_THAT(recording.error().text, Catch::Contains("summed by mpi"));
    CHECK_FALSE(summed_elsewhere({"started"}));
}

TEST_CASE("replay: shares that no group can have brought are refused before anything is computed") {
    const LeftBehind left(in_step());
    const LedgerOrigin origin{node_of(WorkerId{7}), Incarnation{1}, {}, "", "", ""};
    const std::string path =
        left.run().ledger_dir() + "/" + ledger_file_name(origin.node, origin.incarnation);
    const auto with = [&](const std::vector<ShareRecord>& shares) {
        std::filesystem::remove(path);
        const auto ledger = LedgerWriter::create(path, origin);
        REQUIRE(ledger.has_value());
        for (const ShareRecord& share : shares) {
            REQUIRE((*ledger)->append({Time{}, share}).has_value());
            const AveragedRecord averaged{share.worker, share.step, share.group, share.round, 16};
            REQUIRE((*ledger)->append({Time{}, averaged}).has_value());
        }
        REQUIRE((*ledger)->flush().has_value());
        return read_recording(left.run().path, {});
    };
    ShareRecord share;
    share.worker = WorkerId{7};
    share.step = Step{1};
    share.group = GroupEpoch{900};
    share.round = Step{2};
    share.batch = {0, 0, 1};
    share.samples = 16;
    share.tasks.insert(TaskId{0});
    SECTION("rounds that go backwards") {
        ShareRecord earlier = share;
        earlier.step = Step{2};
        earlier.round = Step{1};
        const auto recording = with({share, earlier});
        REQUIRE(recording.has_error());
        CHECK(recording.error().code == ErrorCode::bad_message);
        CHECK_THAT(recording.error().text, Catch::Contains("begins it too late"));
    }
    SECTION("one worker twice") {
        const auto recording = with({share, share});
        REQUIRE(recording.has_error());
        CHECK_THAT(recording.error().text, Catch::Contains("than a group has members"));
    }
    SECTION("a block or a task that there is not") {
        ShareRecord other = share;
        other.tasks.insert(TaskId{40});
        if (GENERATE(true, false)) {
            other = share;
            other.blocks.push_back(BlockId{1'000'000});
            other.versions.push_back(Version{1});
        }
        const auto recording = with({other});
        REQUIRE(recording.has_value());
        const auto replay =
            Replay::create(*recording, left.plan(), engines_for(recording->job), {});
        REQUIRE(replay.has_error());
        CHECK(replay.error().code == ErrorCode::bad_message);
        CHECK_THAT(replay.error().text, Catch::Contains("brought its node"));
    }
}

TEST_CASE("replay: gaps of layers in step are refused with the reason") {
    const LeftBehind left(in_step());
    const Recording recording = left.recording();
    ReplayOptions options;
    options.gaps = true;
    const auto replay =
        Replay::create(recording, left.plan(), engines_for(recording.job), std::move(options));
    REQUIRE(replay.has_error());
    CHECK(replay.error().code == ErrorCode::not_supported);
    CHECK_THAT(replay.error().text, Catch::Contains("a node's averages"));
}

TEST_CASE("replay: arrivals of a run in step are judged again under another policy") {
    for (const std::string& layers : {std::string("[\"*\"]"), std::string("[\"w0\", \"w2\"]")}) {
        INFO(layers);
        const LeftBehind left(in_step({"simulate.network.drop=0"}, layers));
        const auto times = arrival_times(left.recording());
        REQUIRE(times.has_value());
        // Of members that pushed nothing themselves, too.
        for (const char* worker : {"\n0 ", "\n1 ", "\n2 ", "\n3 "}) {
            CHECK_THAT(*times, Catch::Contains(worker));
        }
        const TemporaryFolder folder;
        write_file(folder / "times.txt", *times);
        const Job job = job_of(to_toml(job_of_arrivals(left.job(), folder / "times.txt")),
                               {"staleness.policy=bounded_reject", "staleness.tau_max=0"});
        const SimulatedRun again = simulate(job);
        require_whole(again);
        CHECK(again.summary.staleness.max == 0);
        CHECK(again.figures.virtual_s ==
              Approx(simulate(left.job()).figures.virtual_s).epsilon(0.2));
    }
}

}  // namespace detente::test
