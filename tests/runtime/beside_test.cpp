// What runs beside the loop: computing, the disk, the ledger; and sleeping.
#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "tests/runtime/running_loop.h"

namespace detente::testing {
namespace {

Work work_of(std::uint64_t step) {
    GradientWork work;
    work.step = Step{step};
    return work;
}

class Folder {
  public:
    Folder() {
        std::string pattern =
            (std::filesystem::temp_directory_path() / "detente_runtime_XXXXXX").string();
        path_ = ::mkdtemp(pattern.data());
    }
    ~Folder() { std::filesystem::remove_all(path_); }
    std::string operator/(const char* name) const { return (path_ / name).string(); }

  private:
    std::filesystem::path path_;
};

// Stores one file and returns what became of it.
Result<void> store_result(const StoreOp& operation) {
    Result<void> result;
    RunningLoop loop(options_of(kShard0), [&](Event&& event, Time, Effects& effects) {
        if (std::holds_alternative<Started>(event)) effects.store(operation);
        if (auto* stored = std::get_if<Stored>(&event)) {
            result = std::move(stored->result);
            effects.finish({});
        }
        if (is_stop(event)) effects.finish({});
    });
    loop.start();
    REQUIRE(loop.ended_within(kTestDeadline));
    return result;
}

}  // namespace

TEST_CASE("zmq: what a store has written is given back while it still writes") {
    const Folder folder;
    std::vector<std::shared_ptr<AlignedBuffer>> buffers;
    for (int i = 0; i < 8; ++i) buffers.push_back(std::make_shared<AlignedBuffer>(1U << 20U));
    std::vector<std::size_t> free_at_return;  // before the end is known
    bool ended = false;
    const auto free_buffers = [&] {
        return static_cast<std::size_t>(
            std::count_if(buffers.begin(), buffers.end(),
                          [](const auto& buffer) { return buffer.use_count() == 1; }));
    };
    RunningLoop loop(options_of(kShard0), [&](Event&& event, Time, Effects& effects) {
        if (std::holds_alternative<Started>(event)) {
            StoreOp operation{folder / "large", {}};
            for (const auto& buffer : buffers) operation.pieces.push_back(payload_of(buffer));
            effects.store(std::move(operation));
        }
        if (std::holds_alternative<BuffersReturned>(event) && !ended) {
            free_at_return.push_back(free_buffers());
        }
        if (std::holds_alternative<Stored>(event)) {
            ended = true;
            effects.finish({});
        }
    });
    loop.start();
    REQUIRE(loop.ended_within(kTestDeadline));
    CHECK(free_at_return == std::vector<std::size_t>{1, 2, 3, 4, 5, 6, 7, 8});
    CHECK(std::filesystem::file_size(folder / "large") == 8U << 20U);
}

TEST_CASE(
    "zmq: a running computation is cancelled from the loop, and the queued one without "
    "being begun") {
    std::atomic<bool> running{false};
    std::atomic<int> begun{0};
    ScriptedComputer computer([&](const Work&, const auto& cancelled, const auto&) -> WorkResult {
        ++begun;
        running = true;
        running.notify_all();
        while (!cancelled.load()) std::this_thread::yield();
        return fail(ErrorCode::cancelled, "between two tasks");
    });
    std::vector<ErrorCode> ends;
    auto options = options_of(kWorker0);
    options.computer = &computer;
    std::vector<Ticket> tickets;
    RunningLoop worker(options, [&](Event&& event, Time, Effects& effects) {
        if (std::holds_alternative<Started>(event)) {
            tickets = {effects.compute(work_of(1)), effects.compute(work_of(2))};
        }
        if (std::holds_alternative<PeerUp>(event)) {
            for (const Ticket ticket : tickets) effects.cancel(ticket);
        }
        if (const auto* ended = std::get_if<ComputeEnded>(&event)) {
            ends.push_back(ended->result.error().code);
            if (ends.size() == 2) effects.finish({});
        }
        if (is_stop(event)) effects.finish({});
    });
    worker.start();
    running.wait(false);
    worker.loop().post(PeerUp{kShard0, Incarnation{1}});
    REQUIRE(worker.ended_within(kTestDeadline));
    CHECK(ends == std::vector{ErrorCode::cancelled, ErrorCode::cancelled});
    CHECK(begun == 1);
}

TEST_CASE("zmq: finishing while something is computed cancels it and ends") {
    std::atomic<bool> running{false};
    ScriptedComputer computer([&](const Work&, const auto& cancelled, const auto&) -> WorkResult {
        running = true;
        running.notify_all();
        while (!cancelled.load()) std::this_thread::yield();
        return fail(ErrorCode::cancelled, "between two tasks");
    });
    auto options = options_of(kWorker0);
    options.computer = &computer;
    RunningLoop worker(options, [&](Event&& event, Time, Effects& effects) {
        if (std::holds_alternative<Started>(event)) effects.compute(work_of(1));
        if (is_stop(event)) effects.finish({});
    });
    worker.start();
    running.wait(false);
    worker.stop();
    REQUIRE(worker.ended_within(kTestDeadline));
}

TEST_CASE("zmq: a computation that throws, and work without a computer, end with an error") {
    ScriptedComputer thrower([](const Work&, const auto&, const auto&) -> WorkResult {
        throw std::runtime_error("out of luck");
    });
    const bool with_computer = GENERATE(true, false);
    std::optional<Error> error;
    auto options = options_of(kWorker0);
    if (with_computer) options.computer = &thrower;
    RunningLoop worker(options, [&](Event&& event, Time, Effects& effects) {
        if (std::holds_alternative<Started>(event)) effects.compute(work_of(1));
        if (const auto* ended = std::get_if<ComputeEnded>(&event)) {
            error = ended->result.error();
            effects.finish({});
        }
        if (is_stop(event)) effects.finish({});
    });
    worker.start();
    REQUIRE(worker.ended_within(kTestDeadline));
    REQUIRE(error.has_value());
    CHECK(error->code == (with_computer ? ErrorCode::internal : ErrorCode::not_supported));
    if (with_computer) CHECK(error->text.find("out of luck") != std::string::npos);
}

TEST_CASE("zmq: a stored file holds its pieces one after the other, and no partial is left") {
    const Folder folder;
    const auto piece = [](std::string_view text) {
        return copy_of(std::as_bytes(std::span(text.data(), text.size())));
    };
    REQUIRE(store_result({folder / "file", {piece("one "), piece(""), piece("two")}}).has_value());
    std::ifstream file(folder / "file");
    CHECK(std::string(std::istreambuf_iterator<char>(file), {}) == "one two");
    CHECK_FALSE(std::filesystem::exists(folder / "file.partial"));
}

TEST_CASE("zmq: a full disk, and a folder that is not there, are io errors that name the file") {
    const Folder folder;
    const std::vector<std::byte> bytes(1U << 16U);
    // The partial file is a link to the device that is always full.
    std::filesystem::create_symlink("/dev/full", folder / "checkpoint.partial");
    const auto full = store_result({folder / "checkpoint", {copy_of(bytes)}});
    REQUIRE(full.has_error());
    CHECK(full.error().code == ErrorCode::io);
    CHECK(full.error().text.find("checkpoint.partial") != std::string::npos);
    CHECK(full.error().text.find("No space left") != std::string::npos);
    CHECK_FALSE(std::filesystem::exists(folder / "checkpoint"));
    const auto missing = store_result({folder / "nowhere/checkpoint", {copy_of(bytes)}});
    REQUIRE(missing.has_error());
    CHECK(missing.error().code == ErrorCode::io);
    CHECK(missing.error().text.find("nowhere/checkpoint") != std::string::npos);
}

TEST_CASE(
    "zmq: records reach the ledger after on(), and its failure reaches the node and the log") {
    class FailingLedger : public LedgerSink {
      public:
        Result<void> append(const LedgerEntry&) override {
            ++appended;
            if (appended == 2) return fail(ErrorCode::io, "ledger.bin: no space");
            return {};
        }
        Result<void> flush() override {
            ++flushed;
            return {};
        }
        int appended = 0;
        int flushed = 0;
    };
    FailingLedger ledger;
    int appended_during = 99;
    std::optional<Error> error;
    auto options = options_of(kShard0);
    options.ledger = &ledger;
    RunningLoop shard(options, [&](Event&& event, Time, Effects& effects) {
        if (std::holds_alternative<Started>(event)) {
            effects.record({Time{}, ControlRecord{"one"}});
            effects.record({Time{}, ControlRecord{"two"}});
            appended_during = ledger.appended;
        }
        if (const auto* stored = std::get_if<Stored>(&event)) {
            CHECK(stored->ticket == Ticket{0});
            error = stored->result.error();
            effects.finish({});
        }
        if (is_stop(event)) effects.finish({});
    });
    shard.start();
    REQUIRE(shard.ended_within(kTestDeadline));
    CHECK(appended_during == 0);
    CHECK(ledger.appended == 2);
    CHECK(ledger.flushed >= 1);
    REQUIRE(error.has_value());
    CHECK(error->code == ErrorCode::io);
    CHECK(shard.log.containing("no space") == 1);
}

TEST_CASE("zmq: an idle loop sleeps: it wakes for its timer and next to nothing else") {
    std::uint64_t wake_ups = 0;
    constexpr int kTimers = 5;
    int fired = 0;
    RunningLoop* self = nullptr;
    std::uint64_t wake_ups_at_start = 0;
    RunningLoop shard(options_of(kShard0), [&](Event&& event, Time, Effects& effects) {
        if (is_stop(event)) {
            effects.finish({});
            return;
        }
        if (std::holds_alternative<Started>(event)) {
            wake_ups_at_start = self->loop().counters().wake_ups;
        } else if (++fired == kTimers) {
            wake_ups = self->loop().counters().wake_ups - wake_ups_at_start;
            effects.finish({});
            return;
        }
        effects.after(std::chrono::milliseconds(100), {});
    });
    self = &shard;
    shard.start();
    REQUIRE(shard.ended_within(kTestDeadline));
    // 500 ms in five sleeps: one wake-up each, and one to spare for a clock that rounds down. What
    // that costs is a figure: bench/idle_bench.
    CHECK(wake_ups <= 2 * kTimers);
}

}  // namespace detente::testing
