#include "ps/ledger.h"

#include <sys/resource.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <limits>
#include <random>

#include "tests/ps/any_entry.h"
#include "tests/temporary_folder.h"

namespace detente {
namespace {

LedgerOrigin origin() {
    return {node_of(ShardId{1}), Incarnation{2}, Generation{9},
            "multifashion",      "abc123",       "AVX2, LibTorch 2.13.0, 1 thread"};
}

Time at(std::int64_t nanoseconds) { return Time(Nanos(nanoseconds)); }

// One step of a job like MultiFashion at one of two shards: five blocks, one pull, one verdict.
std::vector<LedgerEntry> step_of(std::uint64_t number, std::uint64_t staleness = 2,
                                 double rate = 0.01) {
    const WorkerId worker{static_cast<std::uint32_t>(number % 3)};
    const Step step{1 + number / 3};
    const auto time = static_cast<std::int64_t>(13'000'000 * number + 7919 * (number % 97));
    PullRecord pull{worker, Incarnation{1}, step, {}, Epoch{1}, {}};
    VerdictRecord verdict;
    verdict.worker = worker;
    verdict.incarnation = Incarnation{1};
    verdict.step = step;
    verdict.epoch = Epoch{1};
    verdict.batch = {static_cast<std::uint32_t>(number / 938),
                     static_cast<std::uint32_t>(number % 938), 1};
    verdict.samples = 64;
    verdict.gradient_hash = number * 0x9E3779B97F4A7C15ULL;
    verdict.arrived = at(time + 12'345'678);
    for (const std::uint64_t block : {0U, 2U, 3U, 6U, 9U}) {
        pull.blocks.push_back(BlockId{block});
        pull.versions.push_back(Version{number});
        VerdictRecord::Row row;
        row.block = BlockId{block};
        row.tasks.bits = block < 6 ? 3 : 1;
        row.version = Version{number + staleness + 1};
        row.base = Version{number};
        row.staleness = staleness;
        row.scheduled_rate = rate;
        verdict.rows.push_back(row);
    }
    return {{at(time), pull}, {at(time + 12'345'678), verdict}};
}

// JSON lines hold every field (the rate times the scale), so equal lines are equal entries.
std::vector<std::string> lines_of(const std::vector<LedgerEntry>& entries) {
    std::vector<std::string> lines;
    for (const LedgerEntry& entry : entries) lines.push_back(ledger_to_json_line(entry));
    return lines;
}

std::unique_ptr<LedgerWriter> writer_to(const std::string& path) {
    auto writer = LedgerWriter::create(path, origin());
    INFO((writer.has_error() ? writer.error().text : ""));
    REQUIRE(writer.has_value());
    return std::move(*writer);
}

struct ReadBack {
    std::vector<LedgerEntry> entries;
    bool torn = false;
    std::optional<Error> error;
};
ReadBack read_back(const std::string& path) {
    ReadBack read;
    auto reader = LedgerReader::open(path);
    if (reader.has_error()) {
        read.error = reader.error();
        return read;
    }
    LedgerEntry entry;
    while (true) {
        const Result<bool> there = reader->next(entry);
        if (there.has_error()) {
            read.error = there.error();
            return read;
        }
        if (!*there) break;
        read.entries.push_back(entry);
    }
    read.torn = reader->torn_tail().has_value();
    return read;
}

// A small ledger of several chunks; the file's size after each is noted.
struct Sample {
    std::vector<LedgerEntry> entries;
    std::vector<std::uint64_t> ends;           // of header and each chunk
    std::vector<std::size_t> entries_by_then;  // complete at each end
    std::string bytes;
};
Sample small_ledger(const std::string& path) {
    Sample sample;
    const auto writer = writer_to(path);
    sample.ends.push_back(writer->file_bytes());
    sample.entries_by_then.push_back(0);
    Anything anything(7);
    for (int chunk = 0; chunk < 5; ++chunk) {
        for (int i = 0; i <= chunk; ++i) {
            sample.entries.push_back(anything.entry());
            REQUIRE(writer->append(sample.entries.back()).has_value());
        }
        REQUIRE(writer->flush().has_value());
        sample.ends.push_back(writer->file_bytes());
        sample.entries_by_then.push_back(sample.entries.size());
    }
    sample.bytes = bytes_of_file(path);
    REQUIRE(sample.bytes.size() == sample.ends.back());
    return sample;
}

TEST_CASE("ledger: entries of every kind with any values come back as they were appended") {
    const TemporaryFolder folder;
    for (const unsigned seed : {1U, 2U, 3U}) {
        const std::string path = folder / std::to_string(seed);
        Anything anything(seed);
        std::vector<LedgerEntry> entries;
        {
            const auto writer = writer_to(path);
            for (int i = 0; i < 20000; ++i) {
                entries.push_back(anything.entry());
                REQUIRE(writer->append(entries.back()).has_value());
            }
        }
        const ReadBack read = read_back(path);
        CHECK_FALSE(read.error.has_value());
        CHECK_FALSE(read.torn);
        CHECK((lines_of(read.entries) == lines_of(entries)));
    }
}

TEST_CASE("ledger: says whose it is") {
    const TemporaryFolder folder;
    writer_to(folder / "l");
    const auto reader = LedgerReader::open(folder / "l");
    REQUIRE(reader.has_value());
    CHECK(reader->origin().node == node_of(ShardId{1}));
    CHECK(reader->origin().incarnation == Incarnation{2});
    CHECK(reader->origin().generation == Generation{9});
    CHECK(reader->origin().job == "multifashion");
    CHECK(reader->origin().build == "abc123");
    CHECK(reader->origin().machine == "AVX2, LibTorch 2.13.0, 1 thread");
    CHECK(ledger_file_name(node_of(ShardId{1}), Incarnation{2}) == "shard-1.2.ledger");
}

// Bytes per step over both shards of `rate_of(step)`.
template <class Rate>
double bytes_per_step(const std::string& path, Rate rate_of) {
    constexpr std::uint64_t kSteps = 2814;  // 3 data epochs of 938 batches
    const auto writer = writer_to(path);
    for (std::uint64_t number = 0; number < kSteps; ++number) {
        for (const LedgerEntry& entry : step_of(number, 2, rate_of(number))) {
            REQUIRE(writer->append(entry).has_value());
        }
        if (number % 10 == 9) REQUIRE(writer->flush().has_value());  // as every 100 ms does
    }
    REQUIRE(writer->flush().has_value());
    CHECK(read_back(path).entries.size() == 2 * kSteps);
    return 2 * static_cast<double>(writer->file_bytes()) / static_cast<double>(kSteps);
}

TEST_CASE("ledger: a MultiFashion step takes at most 120 bytes over both shards, hash included") {
    const TemporaryFolder folder;
    const double constant = bytes_per_step(folder / "constant", [](auto) { return 0.01; });
    const double moving = bytes_per_step(folder / "moving", [](std::uint64_t step) {
        return 0.01 * std::cos(static_cast<double>(step) / 3000);
    });
    std::printf(
        "ledger: %.1f bytes per step over two shards of five blocks, %.1f if the rate moves\n",
        constant, moving);
    CHECK(constant <= 120);
    CHECK(moving <= 150);
}

TEST_CASE("ledger: decided by the lead a verdict takes at most 8 bytes more, arrival included") {
    const TemporaryFolder folder;
    std::uint64_t bytes[2] = {};
    for (const bool averaged : {false, true}) {
        const auto writer = writer_to(folder / std::to_string(averaged));
        std::vector<LedgerEntry> entries;
        for (std::uint64_t number = 0; number < 900; ++number) {
            for (LedgerEntry& entry : step_of(number)) {
                auto* verdict = std::get_if<VerdictRecord>(&entry.record);
                if (averaged && verdict != nullptr) {
                    verdict->decision = {Epoch{1}, 1 + number / 3};
                    verdict->denominator = 3;
                    verdict->arrived -= std::chrono::microseconds(2000 + number);
                }
                entries.push_back(entry);
                REQUIRE(writer->append(entry).has_value());
            }
        }
        REQUIRE(writer->flush().has_value());
        bytes[averaged] = writer->file_bytes();
        CHECK(lines_of(read_back(folder / std::to_string(averaged)).entries) == lines_of(entries));
    }
    CHECK(static_cast<double>(bytes[1] - bytes[0]) / 900 <= 8);
}

TEST_CASE("ledger: the rate of every apply comes back to the bit, also where rows differ") {
    const TemporaryFolder folder;
    std::vector<double> written;
    {
        const auto writer = writer_to(folder / "l");
        for (std::uint64_t number = 0; number < 500; ++number) {
            auto entries = step_of(number);
            auto& record = std::get<VerdictRecord>(entries[1].record);
            for (std::size_t i = 0; i < record.rows.size(); ++i) {
                VerdictRecord::Row& row = record.rows[i];
                row.step_scale = 1.0F / static_cast<float>(1 + number % 3);
                if ((number + i) % 7 == 0) row.verdict = Verdict::rejected;
                const bool applied = row.verdict == Verdict::applied;
                row.scheduled_rate =
                    applied ? 1.0 / static_cast<double>(3 + number / 5 + i / 2) : 0;
                written.push_back(row.learning_rate());
            }
            for (const LedgerEntry& entry : entries) REQUIRE(writer->append(entry).has_value());
        }
    }
    std::vector<double> read;
    for (const LedgerEntry& entry : read_back(folder / "l").entries) {
        const auto* record = std::get_if<VerdictRecord>(&entry.record);
        if (record == nullptr) continue;
        for (const auto& row : record->rows) read.push_back(row.learning_rate());
    }
    CHECK((read == written));
}

TEST_CASE("ledger: cut off at any byte, every whole chunk is read and the rest is named torn") {
    const TemporaryFolder folder;
    const Sample sample = small_ledger(folder / "whole");
    for (std::size_t length = 0; length < sample.bytes.size(); ++length) {
        write_file(folder / "cut", sample.bytes.substr(0, length));
        const ReadBack read = read_back(folder / "cut");
        INFO(length);
        if (length < sample.ends[0]) {
            REQUIRE(read.error.has_value());
            CHECK(read.error->code == ErrorCode::bad_message);
            continue;
        }
        REQUIRE_FALSE(read.error.has_value());
        std::size_t chunk = 0;
        while (sample.ends[chunk + 1] <= length) ++chunk;
        REQUIRE(read.entries.size() == sample.entries_by_then[chunk]);
        CHECK(read.torn == (length != sample.ends[chunk]));
        const std::vector<LedgerEntry> wanted(
            sample.entries.begin(),
            sample.entries.begin() + static_cast<std::ptrdiff_t>(read.entries.size()));
        CHECK((lines_of(read.entries) == lines_of(wanted)));
    }
}

TEST_CASE("ledger: the torn tail is located in bytes") {
    const TemporaryFolder folder;
    const Sample sample = small_ledger(folder / "whole");
    write_file(folder / "cut", sample.bytes.substr(0, sample.ends[3] + 5));
    auto reader = LedgerReader::open(folder / "cut");
    REQUIRE(reader.has_value());
    LedgerEntry entry;
    while (*reader->next(entry)) {
    }
    REQUIRE(reader->torn_tail().has_value());
    CHECK(reader->torn_tail()->offset_bytes == sample.ends[3]);
    CHECK(reader->torn_tail()->bytes == 5);
    CHECK(reader->entries() == sample.entries_by_then[3]);
    CHECK_FALSE(*reader->next(entry));
}

TEST_CASE("ledger: with any byte altered, no altered entry is ever read") {
    const TemporaryFolder folder;
    const Sample sample = small_ledger(folder / "whole");
    const std::vector<std::string> wanted = lines_of(sample.entries);
    for (std::size_t at = 0; at < sample.bytes.size(); ++at) {
        std::string altered = sample.bytes;
        altered[at] = static_cast<char>(altered[at] ^ 0x40);
        write_file(folder / "altered", altered);
        const ReadBack read = read_back(folder / "altered");
        INFO(at);
        CHECK((read.error.has_value() || read.torn));
        REQUIRE(read.entries.size() < wanted.size());
        std::size_t chunk = 0;  // all that ended before the altered byte is there
        while (chunk + 1 < sample.ends.size() && sample.ends[chunk + 1] <= at) ++chunk;
        if (at >= sample.ends[0]) CHECK(read.entries.size() == sample.entries_by_then[chunk]);
        const std::vector<std::string> found = lines_of(read.entries);
        CHECK(std::equal(found.begin(), found.end(), wanted.begin()));
    }
}

TEST_CASE("ledger: an altered chunk in the middle is an error that counts what is whole") {
    const TemporaryFolder folder;
    const Sample sample = small_ledger(folder / "whole");
    std::string altered = sample.bytes;
    altered[sample.ends[2] + 20] = static_cast<char>(altered[sample.ends[2] + 20] ^ 1);
    write_file(folder / "altered", altered);
    const ReadBack read = read_back(folder / "altered");
    REQUIRE(read.error.has_value());
    CHECK(read.error->code == ErrorCode::bad_checksum);
    CHECK_THAT(read.error->text, Catch::Contains("3 entries before it are whole"));
    CHECK(read.entries.size() == 3);
}

TEST_CASE("ledger: zeros a file system left at the end after a crash are a torn tail") {
    const TemporaryFolder folder;
    const Sample sample = small_ledger(folder / "whole");
    write_file(folder / "zeros", sample.bytes + std::string(5000, '\0'));
    const ReadBack read = read_back(folder / "zeros");
    CHECK_FALSE(read.error.has_value());
    CHECK(read.torn);
    CHECK(read.entries.size() == sample.entries.size());
}

TEST_CASE("ledger: garbage, an empty file and a missing one are refused by name") {
    const TemporaryFolder folder;
    for (const std::string& bytes :
         {std::string(), std::string("DTNT"), std::string(3000, 'x'), std::string(3000, '\0')}) {
        write_file(folder / "x.ledger", bytes);
        const auto reader = LedgerReader::open(folder / "x.ledger");
        REQUIRE(reader.has_error());
        CHECK(reader.error().code == ErrorCode::bad_message);
        CHECK_THAT(reader.error().text, Catch::Contains("x.ledger is no ledger"));
    }
    const auto missing = LedgerReader::open(folder / "missing");
    REQUIRE(missing.has_error());
    CHECK(missing.error().code == ErrorCode::io);
}

TEST_CASE(
    "ledger: decoding arbitrary bytes gives entries or an error, never more than it was fed") {
    std::mt19937_64 random(5);
    for (int trial = 0; trial < 20000; ++trial) {
        std::vector<std::byte> bytes(random() % 64);
        for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
        std::span<const std::byte> rest(bytes);
        LedgerDeltas deltas;
        while (!rest.empty()) {
            const std::size_t before = rest.size();
            if (decode_entry(rest, deltas).has_error()) break;
            REQUIRE(rest.size() < before);
        }
    }
}

TEST_CASE("ledger: what was flushed can be read while the writer goes on") {
    const TemporaryFolder folder;
    const auto writer = writer_to(folder / "l");
    REQUIRE(writer->append({at(1), ControlRecord{"started"}}).has_value());
    CHECK(read_back(folder / "l").entries.empty());
    REQUIRE(writer->flush().has_value());
    REQUIRE(writer->flush().has_value());  // nothing new: writes nothing
    REQUIRE(writer->append({at(2), ControlRecord{"stopped"}}).has_value());
    const ReadBack read = read_back(folder / "l");
    REQUIRE(read.entries.size() == 1);
    CHECK_FALSE(read.torn);
    CHECK(std::get<ControlRecord>(read.entries[0].record).what == "started");
}

TEST_CASE("ledger: a path that belongs to another ledger, alive or finished, is refused") {
    const TemporaryFolder folder;
    {
        const auto writer = writer_to(folder / "l");
        const auto second = LedgerWriter::create(folder / "l", origin());
        REQUIRE(second.has_error());
        CHECK_THAT(second.error().text, Catch::Contains("being written"));
    }
    const auto later = LedgerWriter::create(folder / "l", origin());
    REQUIRE(later.has_error());
    CHECK(later.error().code == ErrorCode::io);
    CHECK(LedgerReader::open(folder / "l").has_value());
    CHECK(LedgerWriter::create(folder / "no/l", origin()).error().code == ErrorCode::io);
}

TEST_CASE("ledger: a disk that is full from the start is an io error that says to free space") {
    const auto writer = LedgerWriter::create("/dev/full", origin());
    REQUIRE(writer.has_error());
    CHECK(writer.error().code == ErrorCode::io);
    CHECK_THAT(writer.error().text, Catch::Contains("free some space"));
}

// No file of this process grows beyond `bytes` while this lives; writing then fails as on a full
// disk (EFBIG), after a short write.
class FileSizeLimit {
  public:
    explicit FileSizeLimit(std::uint64_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
        getrlimit(RLIMIT_FSIZE, &before_);
        rlimit limit = before_;
        limit.rlim_cur = bytes;
        setrlimit(RLIMIT_FSIZE, &limit);
    }
    ~FileSizeLimit() {
        setrlimit(RLIMIT_FSIZE, &before_);
        std::signal(SIGXFSZ, handler_);
    }
    FileSizeLimit(const FileSizeLimit&) = delete;
    FileSizeLimit& operator=(const FileSizeLimit&) = delete;

  private:
    void (*handler_)(int);
    rlimit before_{};
};

TEST_CASE(
    "ledger: a disk that fills is reported once, and all that was written before stays whole") {
    const TemporaryFolder folder;
    const auto writer = writer_to(folder / "l");
    std::uint64_t appended = 0;
    std::uint64_t reports = 0;
    std::string text;
    {
        const FileSizeLimit limit(writer->file_bytes() + 700);
        for (std::uint64_t number = 0; number < 200; ++number) {
            for (const LedgerEntry& entry : step_of(number)) {
                reports += writer->append(entry).has_error() ? 1 : 0;
                ++appended;
            }
            const auto flushed = writer->flush();
            if (flushed.has_error()) {
                ++reports;
                text = flushed.error().text;
            }
        }
    }
    CHECK(reports == 1);
    CHECK_THAT(text, Catch::Contains("the ledger ends here, after"));
    REQUIRE(writer->flush().has_value());
    const ReadBack read = read_back(folder / "l");
    CHECK_FALSE(read.error.has_value());
    CHECK_FALSE(read.torn);
    CHECK(read.entries.size() > 0);
    CHECK(read.entries.size() + writer->discarded() == appended);
}

TEST_CASE("ledger: JSON lines and text say what happened") {
    const std::vector<LedgerEntry> step = step_of(4);
    CHECK(ledger_to_json_line(step[0]) ==
          R"({"at_ns":52031676,"kind":"pull","worker":1,"incarnation":1,"step":2,"epoch":1,)"
          R"("blocks":[{"block":0,"version":4},{"block":2,"version":4},{"block":3,"version":4},)"
          R"({"block":6,"version":4},{"block":9,"version":4}]})");
    CHECK_THAT(ledger_to_json_line(step[1]),
               Catch::Contains(R"({"block":6,"verdict":"applied","tasks":[0],"base":4,"version":7,)"
                               R"("staleness":2,"step_scale":1E0,"learning_rate":1E-2})"));
    CHECK_THAT(ledger_to_json_line(step[1]),
               Catch::Contains(R"("gradient_hash":"78dde6e5fd29f054")"));
    CHECK(ledger_to_text(step[0]) ==
          "    0.052032 s  pull     worker:1 step 2, epoch 1, versions 0:4 2:4 3:4 6:4 9:4");
    CHECK_THAT(ledger_to_text(step[1]),
               Catch::Contains("batch 0.4, 64 samples, hash 78dde6e5fd29f054: 0 applied 4>7 "
                               "stale 2 tasks 0+1 rate 0.01; ") &&
                   Catch::Contains("; 6 applied 4>7 stale 2 tasks 0 rate 0.01; "));
    VerdictRecord late;
    VerdictRecord::Row row;
    row.verdict = Verdict::rejected;
    row.reason = ErrorCode::over_limit;
    row.staleness = 9;
    late.rows = {row};
    CHECK_THAT(ledger_to_text({at(0), late}), Catch::Contains("rejected 0>0 stale 9 (over_limit)"));
    CHECK_THAT(ledger_to_json_line({at(0), late}), Catch::Contains(R"("reason":"over_limit")"));
    const LedgerEntry lost{
        at(5), ClosedRecord{WorkerId{2}, Incarnation{3}, Step{7}, 5, true, "worker gone"}};
    CHECK_THAT(ledger_to_text(lost),
               Catch::Contains("worker:2 (incarnation 3) step 7, 5 blocks: worker gone"));
    CHECK_THAT(ledger_to_json_line(lost), Catch::Contains(R"("as":"lost")"));
    const LostRecord loss{WorkerId{2}, Incarnation{1}, Step{7},      Part{0},
                          Epoch{1},    {BlockId{3}},   {Version{9}}, "applied after checkpoint 1"};
    const LedgerEntry taken{at(5), loss};
    CHECK_THAT(ledger_to_text(taken),
               Catch::Contains("lost     worker:2 step 7 part 0, epoch 1, versions 3:9: applied"));
    CHECK_THAT(ledger_to_json_line(taken), Catch::Contains(R"("kind":"lost")") &&
                                               Catch::Contains(R"({"block":3,"version":9})"));
    CHECK_THAT(ledger_to_json_line(origin()), Catch::Contains(R"("node":"shard:1")") &&
                                                  Catch::Contains(R"("kind":"origin")") &&
                                                  Catch::Contains("1 thread"));
    const LedgerEntry lease{at(5), LeaseRecord{WorkerId{2}, Incarnation{1}, true, {0, 8, 8}}};
    CHECK_THAT(ledger_to_text(lease), Catch::Contains("worker:2 takes batches 0.8-15"));
    ShareRecord share{WorkerId{2}, Step{7}, GroupEpoch{3}, Step{4}, {0, 8, 1}};
    share.samples = 64;
    share.tasks.insert(TaskId{1});
    share.blocks = {BlockId{3}};
    share.versions = {Version{9}};
    CHECK_THAT(ledger_to_text({at(5), share}),
               Catch::Contains("share    worker:2 step 7 to round 4 of group 3, batch 0.8, 64 "
                               "samples, tasks 1, versions 3:9"));
    CHECK_THAT(ledger_to_json_line({at(5), share}),
               Catch::Contains(R"("group":3,"round":4,"samples":64)") &&
                   Catch::Contains(R"("tasks":[1])"));
    const AveragedRecord averaged{WorkerId{2}, Step{7}, GroupEpoch{3}, Step{4}, 128};
    CHECK_THAT(ledger_to_text({at(5), averaged}),
               Catch::Contains("averaged worker:2 step 7 in round 4 of group 3, 128 samples"));
    CHECK_THAT(ledger_to_json_line({at(5), averaged}), Catch::Contains(R"("kind":"averaged")"));
}

}  // namespace
}  // namespace detente
