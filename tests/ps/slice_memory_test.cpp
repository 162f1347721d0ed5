// What a server remembers of tasks' gradients ([across]), in slices of this format and of the one
// before, which had the Gramian in its header.
#include <bit>
#include <catch2/catch.hpp>
#include <limits>

#include "common/runtime/disk.h"
#include "ps/slice.h"
#include "tests/temporary_folder.h"

namespace detente {
namespace {

Payload floats(const std::vector<float>& values) {
    return copy_of(std::as_bytes(std::span(values)));
}

// One block that `tasks` tasks share, one float of each.
BlockSlice block_of(std::uint64_t id, std::uint32_t tasks) {
    BlockSlice block;
    block.block = BlockId{id};
    block.epoch = Epoch{1};
    block.weights = floats({static_cast<float>(id)});
    for (std::uint32_t task = 0; task < tasks; ++task) {
        block.memory.tasks.push_back(
            {TaskId{task}, Version{id + task}, floats({static_cast<float>(task) + 0.5F})});
        for (std::uint32_t other = 0; other < tasks; ++other) {
            block.memory.gramian.push_back(1.0 / 3 * (task + other) - static_cast<double>(id));
        }
    }
    return block;
}

void store(const std::string& path, const std::vector<Payload>& pieces) {
    REQUIRE(write_whole_file({path, pieces}).has_value());
}

// As format 4 was written: the Gramian's bits in the header.
void store_format_4(const std::string& path, const std::vector<double>& gramian) {
    std::string bits;
    for (const double entry : gramian) {
        bits += (bits.empty() ? "\"" : ",\"") +
                std::to_string(std::bit_cast<std::uint64_t>(entry)) + "\"";
    }
    const std::string blocks =
        R"([{"id":"3","epoch":"1","version":"9","updates":"2","samples_applied":"64","policy":"",)"
        R"("policy_state":[],"slots":"0","vectors":"0","worker_vectors":{},)"
        R"("memory":[{"task":"0","version":"4"},{"task":"2","version":"7"}],"memory_gramian":[)" +
        bits + "]}]";
    const auto header = safetensors_header(
        {{"block.3.weights", Dtype::f32, {2}},
         {"block.3.task0.mean", Dtype::f32, {2}},
         {"block.3.task2.mean", Dtype::f32, {2}}},
        {{"format", "detente shard slice 4"}, {"shard", "0"}, {"blocks", blocks}});
    REQUIRE(header.has_value());
    store(path, {*header, floats({1, 2}), floats({3, 4}), floats({5, 6})});
}

TEST_CASE("slice: what is remembered of 64 tasks in a thousand blocks fits the header of a file") {
    const TemporaryFolder folder;
    ShardSlice slice;
    for (std::uint64_t id = 0; id < 1000; ++id) slice.blocks.push_back(block_of(id, 64));
    const auto pieces = to_pieces(slice);
    INFO((pieces ? "" : pieces.error().text));
    REQUIRE(pieces.has_value());
    CHECK(pieces->front().size() < kMostSafetensorsHeader / 4);
    store(folder / "slice", *pieces);
    const auto file = SliceFile::open(folder / "slice");
    INFO((file ? "" : file.error().text));
    REQUIRE(file.has_value());
    for (const std::uint64_t id : {0U, 7U, 999U}) {
        const auto read = file->read(BlockId{id});
        REQUIRE(read.has_value());
        CHECK(read->memory == slice.blocks[id].memory);
    }
}

TEST_CASE("slice: the memory in a slice of the format before is read as it was") {
    const TemporaryFolder folder;
    store_format_4(folder / "slice", {25, -39.5, -39.5, 61});
    const auto slice = read_slice(folder / "slice");
    INFO((slice ? "" : slice.error().text));
    REQUIRE(slice.has_value());
    const SavedMemory& memory = slice->blocks.at(0).memory;
    REQUIRE(memory.tasks.size() == 2);
    CHECK(memory.tasks[1].task == TaskId{2});
    CHECK(memory.tasks[1].version == Version{7});
    CHECK(memory.gramian == std::vector<double>{25, -39.5, -39.5, 61});
    // Written anew it is of this format, and the same.
    const auto pieces = to_pieces(*slice);
    REQUIRE(pieces.has_value());
    store(folder / "anew", *pieces);
    const auto anew = read_slice(folder / "anew");
    REQUIRE(anew.has_value());
    CHECK(anew->blocks.at(0).memory == memory);
}

TEST_CASE("slice: a Gramian with NaN or Inf is one error that names file and block and tasks") {
    const TemporaryFolder folder;
    for (const double wrong :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
        ShardSlice slice;
        slice.blocks.push_back(block_of(3, 3));
        slice.blocks[0].memory.gramian[2] = wrong;
        const auto pieces = to_pieces(slice);
        REQUIRE(pieces.has_value());
        store(folder / "new", *pieces);
        store_format_4(folder / "old", {25, wrong, 1, 61});
        for (const char* name : {"new", "old"}) {
            const auto read = read_slice(folder / name);
            REQUIRE(read.has_error());
            CHECK(read.error().code == ErrorCode::bad_checkpoint);
            CHECK_THAT(read.error().text, Catch::Contains(std::string("/") + name + ": block 3") &&
                                              Catch::Contains("of tasks 0 and 2") &&
                                              Catch::Contains("use another checkpoint"));
        }
    }
}

TEST_CASE("slice: a Gramian that is missing or of other tasks is refused when it is opened") {
    const TemporaryFolder folder;
    ShardSlice slice;
    slice.blocks.push_back(block_of(3, 2));
    const auto pieces = to_pieces(slice);
    REQUIRE(pieces.has_value());
    const Payload& header = pieces->front();
    const std::string text(reinterpret_cast<const char*>(header.bytes.data()), header.size());
    for (const auto& [from, to] : {std::pair("3.gramian", "3.gramiam"), std::pair("[2,2]", "[4,1]"),
                                   std::pair("F64", "I64")}) {
        std::string altered = text;
        altered.replace(altered.find(from), std::string(from).size(), to);
        std::vector<Payload> other = *pieces;
        other.front() = copy_of(std::as_bytes(std::span(altered)));
        store(folder / "x", other);
        const auto opened = SliceFile::open(folder / "x");
        REQUIRE(opened.has_error());
        CHECK(opened.error().code == ErrorCode::bad_checkpoint);
        CHECK_THAT(opened.error().text, Catch::Contains("block.3.gramian"));
    }
}

TEST_CASE("slice: one that no reader would take is refused when it is made") {
    ShardSlice slice;
    slice.shard = ShardId{4};
    slice.blocks.push_back(block_of(0, 1));
    slice.blocks[0].policy =
        std::string(kMostSafetensorsHeader, 'x');  // in place of a million arrays
    const auto pieces = to_pieces(slice);
    REQUIRE(pieces.has_error());
    CHECK(pieces.error().code == ErrorCode::over_limit);
    CHECK_THAT(pieces.error().text, Catch::Contains("the slice of shard 4") &&
                                        Catch::Contains("expected at most 100000000") &&
                                        Catch::Contains("use larger blocks (blocks.bytes)"));
}

}  // namespace
}  // namespace detente
