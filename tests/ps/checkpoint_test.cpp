#include "ps/checkpoint.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <numeric>

#include "common/runtime/disk.h"
#include "ps/checkpoint_folder.h"
#include "tests/temporary_folder.h"

namespace detente {
namespace {

ModelDescription model_of_three() {
    ModelDescription model;
    model.model = "three";
    model.tasks = {"a", "b"};
    model.tensors = {{"trunk.weight", {100, 50}, TaskSet{3}},
                     {"trunk.bias", {50}, TaskSet{3}},
                     {"heads.a.weight", {3, 1024}, TaskSet{1}}};
    return model;
}

Plan plan_of(std::uint32_t shards, std::uint64_t block_bytes = 2 * 4096,
             const ModelDescription& model = model_of_three()) {
    Job job;
    job.servers = shards;
    job.block_bytes = block_bytes;
    const Result<Plan> plan = make_plan(model, job);
    REQUIRE(plan.has_value());
    return *plan;
}

// Element e of block b holds something that tells both, in each array.
Payload floats_of(const Block& block, float first) {
    auto buffer = std::make_shared<AlignedBuffer>(block.bytes());
    std::iota(buffer->floats().begin(), buffer->floats().end(),
              first + static_cast<float>(block.id.value * 10000));
    return payload_of(std::move(buffer));
}

ShardSlice slice_of(const Plan& plan, ShardId shard) {
    ShardSlice slice;
    slice.shard = shard;
    for (const BlockId id : plan.by_shard[shard.value]) {
        BlockSlice block;
        block.block = id;
        block.epoch = Epoch{2};
        block.version = Version{(std::uint64_t{1} << 60U) + 10 + id.value};
        block.updates = 7 + id.value;
        block.samples_applied = 64 * block.updates;
        block.policy = "inverse";
        block.policy_state.values = {0.1, static_cast<double>(id.value)};
        block.weights = floats_of(plan.block(id), 0);
        block.slots = {floats_of(plan.block(id), 0.25F), floats_of(plan.block(id), 0.5F)};
        slice.blocks.push_back(std::move(block));
    }
    slice.extras = {
        {"leases", "7 8 9\n"}, {"duplicates", std::string("\0\xff\x80 x", 5)}, {"policy", ""}};
    return slice;
}

bool same_bytes(const Payload& a, const Payload& b) {
    return a.size() == b.size() && std::memcmp(a.bytes.data(), b.bytes.data(), a.size()) == 0;
}

void check_same(const BlockSlice& found, const BlockSlice& wanted) {
    CHECK(found.block == wanted.block);
    CHECK(found.epoch == wanted.epoch);
    CHECK(found.version == wanted.version);
    CHECK(found.updates == wanted.updates);
    CHECK(found.samples_applied == wanted.samples_applied);
    CHECK(found.policy == wanted.policy);
    CHECK(found.policy_state.values == wanted.policy_state.values);
    CHECK(same_bytes(found.weights, wanted.weights));
    REQUIRE(found.slots.size() == wanted.slots.size());
    for (std::size_t i = 0; i < found.slots.size(); ++i) {
        CHECK(same_bytes(found.slots[i], wanted.slots[i]));
    }
}

void store_slices(const std::string& directory, const Plan& plan) {
    std::filesystem::create_directories(directory);
    for (std::uint32_t shard = 0; shard < plan.by_shard.size(); ++shard) {
        const ShardSlice slice = slice_of(plan, ShardId{shard});
        REQUIRE(
            write_whole_file({directory + "/" + slice_file_name(ShardId{shard}), *to_pieces(slice)})
                .has_value());
    }
}

Manifest make_checkpoint(const std::string& directory, const Plan& plan, std::uint64_t number = 3) {
    store_slices(directory, plan);
    const auto merged = merge_checkpoint(directory, plan, model_of_three(),
                                         {number, Generation{5}, "name = \"three\"\n"});
    INFO((merged.has_error() ? merged.error().text : ""));
    REQUIRE(merged.has_value());
    return *merged;
}

template <class T>
void require_bad(const Result<T>& result, const std::string& named) {
    REQUIRE(result.has_error());
    INFO(result.error().text);
    CHECK(result.error().code == ErrorCode::bad_checkpoint);
    CHECK_THAT(result.error().text, Catch::Contains(named));
}

TEST_CASE("slice: a shard's blocks, state, versions and extras of any bytes come back as stored") {
    const TemporaryFolder folder;
    const Plan plan = plan_of(2);
    store_slices(folder.path(), plan);
    for (const ShardId shard : {ShardId{0}, ShardId{1}}) {
        const ShardSlice wanted = slice_of(plan, shard);
        const auto found = read_slice(folder / slice_file_name(shard));
        REQUIRE(found.has_value());
        CHECK(found->shard == shard);
        CHECK(found->extras == wanted.extras);
        REQUIRE(found->blocks.size() == wanted.blocks.size());
        for (std::size_t i = 0; i < wanted.blocks.size(); ++i) {
            check_same(found->blocks[i], wanted.blocks[i]);
        }
    }
}

TEST_CASE("slice: its pieces share the blocks' bytes, nothing is copied") {
    const Plan plan = plan_of(1);
    const ShardSlice slice = slice_of(plan, ShardId{0});
    const std::vector<Payload> pieces = *to_pieces(slice);
    CHECK(pieces[1].bytes.data() == slice.blocks[0].weights.bytes.data());
    CHECK(pieces[2].bytes.data() == slice.blocks[0].slots[0].bytes.data());
    CHECK(slice.blocks[0].weights.owner.use_count() == 2);
}

TEST_CASE("slice: a shard with no blocks and no extras stores and reads") {
    const TemporaryFolder folder;
    REQUIRE(write_whole_file({folder / "empty", *to_pieces({})}).has_value());
    const auto found = read_slice(folder / "empty");
    REQUIRE(found.has_value());
    CHECK(found->blocks.empty());
    CHECK(found->extras.empty());
}

TEST_CASE("slice: cut off at any byte, it is refused") {
    const TemporaryFolder folder;
    const Plan plan = plan_of(1, 4096);
    store_slices(folder.path(), plan);
    const std::string whole = bytes_of_file(folder / "shard-0.safetensors");
    const std::size_t stride = 997;
    for (std::size_t length = 0; length < whole.size(); length += length < 4096 ? 1 : stride) {
        write_file(folder / "cut", whole.substr(0, length));
        require_bad(SliceFile::open(folder / "cut"), "cut");
    }
}

TEST_CASE("slice: another program's safetensors file is refused as no slice") {
    const TemporaryFolder folder;
    REQUIRE(write_whole_file({folder / "x", {*safetensors_header({}, {{"format", "pt"}})}})
                .has_value());
    require_bad(SliceFile::open(folder / "x"), "found 'pt'");
}

TEST_CASE("checkpoint: the merged model holds whole tensors under the model's names") {
    const TemporaryFolder folder;
    const Plan plan = plan_of(3);
    make_checkpoint(folder.path(), plan);
    const auto file = SafetensorsFile::open(folder / "model.safetensors");
    REQUIRE(file.has_value());
    const ModelDescription model = model_of_three();
    REQUIRE(file->tensors().size() == model.tensors.size());
    for (const Block& block : plan.blocks) {
        const auto* tensor = file->find(model.tensors[block.tensor].name);
        REQUIRE(tensor != nullptr);
        CHECK(tensor->entry.bytes() == model.tensors[block.tensor].elements() * sizeof(float));
        AlignedBuffer found(block.bytes());
        REQUIRE(file->read(*tensor, block.offset * sizeof(float), {found.data(), found.size()})
                    .has_value());
        const Payload wanted = floats_of(block, 0);
        CHECK(std::memcmp(found.data(), wanted.bytes.data(), found.size()) == 0);
    }
}

TEST_CASE("checkpoint: elements that a strided mask dealt out lie in the model where they belong") {
    const TemporaryFolder folder;
    const ModelDescription model = model_of_three();
    Job job;
    job.servers = 3;
    job.block_bytes = 2 * 4096;
    job.masks = {{"trunk.*", 0.2, ExclusiveParts::strided}};
    const auto plan = make_plan(model, job);
    REQUIRE(plan.has_value());
    make_checkpoint(folder.path(), *plan);
    const auto file = SafetensorsFile::open(folder / "model.safetensors");
    REQUIRE(file.has_value());
    for (const Block& block : plan->blocks) {
        const auto* tensor = file->find(model.tensors[block.tensor].name);
        REQUIRE(tensor != nullptr);
        const auto found = file->read(*tensor);
        REQUIRE(found.has_value());
        const auto* values = reinterpret_cast<const float*>(found->bytes.data());
        const auto first = static_cast<float>(block.id.value * 10000);
        for (std::uint64_t k = 0; k < block.elements; ++k) {
            REQUIRE(values[block.first + k * block.stride] == first + static_cast<float>(k));
        }
    }
    SECTION("it restores on any number of shards under the same mask and under no other") {
        auto checkpoint = Checkpoint::open(folder.path());
        REQUIRE(checkpoint.has_value());
        job.servers = 2;
        CHECK(checkpoint->matches(*make_plan(model, job), model).has_value());
        // The bias: as many blocks of the same sizes, of other elements.
        job.masks = {{"trunk.weight", 0.2, ExclusiveParts::strided}, {"trunk.bias", 0.2}};
        require_bad(checkpoint->matches(*make_plan(model, job), model),
                    "tensor 'trunk.bias' is dealt out otherwise");
        job.masks.clear();
        require_bad(checkpoint->matches(*make_plan(model, job), model), "[[mask]]");
    }
}

TEST_CASE("checkpoint: a worker's file is listed and a last word is taken in") {
    const TemporaryFolder folder;
    const Plan plan = plan_of(2);
    const std::string directory = folder / "7";
    store_slices(directory, plan);
    const auto write = [](const std::string& path, const std::string& text) {
        REQUIRE(write_whole_file({path, {copy_of(std::as_bytes(std::span(text)))}}).has_value());
    };
    write(directory + "/worker-0.safetensors", "for this checkpoint");
    write(folder / "worker-0.safetensors", "an earlier word");
    write(folder / "worker-2.safetensors", "the last word");
    write(folder / "worker-1.safetensors", "of one that had the place before, and was killed");
    write(folder / "worker-3.safetensors", "of a worker that the job does not have");
    const std::set<WorkerId> wrote{{0}, {2}};
    const auto merged =
        merge_checkpoint(directory, plan, model_of_three(), {7, Generation{5}, "", {}, 3, wrote});
    INFO((merged.has_error() ? merged.error().text : ""));
    REQUIRE(merged.has_value());
    CHECK(bytes_of_file(directory + "/worker-0.safetensors") == "for this checkpoint");
    CHECK(bytes_of_file(directory + "/worker-2.safetensors") == "the last word");
    CHECK_FALSE(std::filesystem::exists(directory + "/worker-1.safetensors"));
    CHECK_FALSE(std::filesystem::exists(directory + "/worker-3.safetensors"));
    std::vector<std::string> listed;
    for (const CheckpointFile& file : merged->files) listed.push_back(file.name);
    CHECK(listed == std::vector<std::string>{"shard-0.safetensors", "shard-1.safetensors",
                                             "worker-0.safetensors", "worker-2.safetensors",
                                             "model.safetensors", "job.toml"});
    // A later word does not change what a checkpoint has.
    write(folder / "worker-2.safetensors", "a later word");
    CHECK(verify_files(directory, *merged).has_value());
    std::filesystem::remove(directory + "/worker-2.safetensors");
    require_bad(Checkpoint::open(directory), "worker-2.safetensors");
}

TEST_CASE("checkpoint: a worker's file that was written and is gone is missed and named") {
    const TemporaryFolder folder;
    const Plan plan = plan_of(1);
    const std::string directory = folder / "7";
    store_slices(directory, plan);
    const auto merged = merge_checkpoint(directory, plan, model_of_three(),
                                         {7, Generation{5}, "", {}, 3, {WorkerId{2}}});
    require_bad(merged, "expected " + directory + "/worker-2.safetensors, which worker:2 said");
    CHECK_THAT(merged.error().text, Catch::Contains(folder / "worker-2.safetensors") &&
                                        Catch::Contains("found neither") &&
                                        Catch::Contains("check that every host"));
    CHECK_FALSE(std::filesystem::exists(directory + "/manifest.json"));
    // A job whose workers kept nothing is whole without.
    CHECK(merge_checkpoint(directory, plan, model_of_three(), {7, Generation{5}, "", {}, 3})
              .has_value());
}

TEST_CASE("checkpoint: a last word on another file system is copied and leaves nothing beside it") {
    namespace fs = std::filesystem;
    const TemporaryFolder folder;
    std::string other = "/dev/shm/detente-test-XXXXXX";
    if (::mkdtemp(other.data()) == nullptr) {
        WARN("skipped: /dev/shm cannot be written");
        return;
    }
    const Plan plan = plan_of(1);
    const std::string directory = folder / "7";
    fs::create_directory_symlink(other, directory);
    write_file(folder / "worker-0.safetensors", "the last word");
    std::error_code links;
    fs::create_hard_link(folder / "worker-0.safetensors", directory + "/linked", links);
    if (links) {
        store_slices(directory, plan);
        const auto merged = merge_checkpoint(directory, plan, model_of_three(),
                                             {7, Generation{5}, "", {}, 1, {WorkerId{0}}});
        INFO((merged.has_error() ? merged.error().text : ""));
        CHECK(merged.has_value());
        CHECK(bytes_of_file(directory + "/worker-0.safetensors") == "the last word");
        CHECK_FALSE(fs::exists(directory + "/worker-0.safetensors.partial"));
    } else {
        WARN("skipped: /dev/shm is the file system of temporary folders");
    }
    fs::remove_all(other);
}

TEST_CASE("checkpoint: the manifest says what is there, and survives being written and read") {
    const TemporaryFolder folder;
    const Manifest made = make_checkpoint(folder.path(), plan_of(2));
    const auto read = read_manifest(folder.path());
    REQUIRE(read.has_value());
    CHECK(to_json(*read) == to_json(made));
    CHECK(read->number == 3);
    CHECK(read->generation == Generation{5});
    CHECK(read->shards == 2);
    CHECK(read->lowest_version == Version{(std::uint64_t{1} << 60U) + 10});
    CHECK(read->highest_version.value == (std::uint64_t{1} << 60U) + 10 + 5);
    CHECK(read->samples_applied == 64 * (7 + 5));
    CHECK(read->files.size() == 4);
    CHECK(read->tensors.size() == 3);
    CHECK(verify_files(folder.path(), *read).has_value());
    CHECK(bytes_of_file(folder / "job.toml") == "name = \"three\"\n");
}

TEST_CASE("manifest: holds what workers' conflict methods remember and reads one without") {
    const TemporaryFolder folder;
    Manifest made = make_checkpoint(folder.path(), plan_of(1));
    CHECK(made.methods.empty());
    made.newest_incarnation = Incarnation{4};
    made.methods = {{WorkerId{3}, {"moco", 1, {0.1, -0.0, 1e-310}}}};
    const auto read = manifest_from_json(to_json(made));
    REQUIRE(read.has_value());
    CHECK(to_json(*read) == to_json(made));
    CHECK(read->newest_incarnation == Incarnation{4});
    REQUIRE(read->methods.size() == 1);
    CHECK(read->methods[0].worker == WorkerId{3});
    CHECK(read->methods[0].state == made.methods[0].state);
    std::string older = to_json(made);
    const auto cut = [&](const std::string& from, const std::string& to) {
        const std::size_t at = older.find(from);
        older.erase(at, older.find(to, at) - at);
    };
    older.replace(older.find("detente checkpoint 3"), 20, "detente checkpoint 1");
    cut("\"newest_incarnation\"", "\"files\"");
    const auto without = manifest_from_json(older);
    REQUIRE(without.has_value());
    CHECK(without->newest_incarnation == Incarnation{0});
    CHECK(without->methods.empty());
}

TEST_CASE("checkpoint: written by some shards, it restores on any other number") {
    const TemporaryFolder folder;
    make_checkpoint(folder.path(), plan_of(3));
    for (const std::uint32_t shards : {1U, 2U, 3U, 5U, 9U}) {
        const Plan plan = plan_of(shards);
        auto checkpoint = Checkpoint::open(folder.path());
        REQUIRE(checkpoint.has_value());
        REQUIRE(checkpoint->matches(plan, model_of_three()).has_value());
        std::size_t restored = 0;
        for (std::uint32_t shard = 0; shard < shards; ++shard) {
            const auto blocks = checkpoint->read(plan.by_shard[shard]);
            REQUIRE(blocks.has_value());
            const ShardSlice wanted = slice_of(plan, ShardId{shard});
            REQUIRE(blocks->size() == wanted.blocks.size());
            for (std::size_t i = 0; i < blocks->size(); ++i) {
                check_same((*blocks)[i], wanted.blocks[i]);
            }
            restored += blocks->size();
        }
        CHECK(restored == plan.blocks.size());
        const auto extras = checkpoint->extras(kLeadShard);
        REQUIRE(extras.has_value());
        CHECK((*extras)->at("leases") == "7 8 9\n");
    }
}

TEST_CASE("checkpoint: all slices can be read at once, and unknown blocks are refused") {
    const TemporaryFolder folder;
    const Plan plan = plan_of(2);
    make_checkpoint(folder.path(), plan);
    const auto slices = read_checkpoint(folder.path());
    REQUIRE(slices.has_value());
    REQUIRE(slices->size() == 2);
    CHECK((*slices)[0].blocks.size() + (*slices)[1].blocks.size() == plan.blocks.size());
    auto checkpoint = Checkpoint::open(folder.path());
    const std::vector<BlockId> unknown = {BlockId{99}};
    CHECK(checkpoint->read(unknown).error().code == ErrorCode::unknown_block);
}

TEST_CASE("checkpoint: without its manifest it is incomplete and refused by name") {
    const TemporaryFolder folder;
    store_slices(folder / "4", plan_of(2));
    require_bad(Checkpoint::open(folder / "4"), "/4 is incomplete");
    require_bad(Checkpoint::open(folder / "5"), "there is no checkpoint");
}

TEST_CASE("checkpoint: a merge refuses a missing slice, a missing block and another's slice") {
    const TemporaryFolder folder;
    const Plan plan = plan_of(2);
    const ModelDescription model = model_of_three();
    store_slices(folder.path(), plan);
    std::filesystem::remove(folder / "shard-1.safetensors");
    const auto missing = merge_checkpoint(folder.path(), plan, model, {});
    REQUIRE(missing.has_error());
    CHECK_THAT(missing.error().text, Catch::Contains("shard-1.safetensors"));
    std::filesystem::copy_file(folder / "shard-0.safetensors", folder / "shard-1.safetensors");
    require_bad(merge_checkpoint(folder.path(), plan, model, {}), "found that of shard 0");
    ShardSlice slice = slice_of(plan, ShardId{1});
    slice.blocks.pop_back();
    REQUIRE(write_whole_file({folder / "shard-1.safetensors", *to_pieces(slice)}).has_value());
    require_bad(merge_checkpoint(folder.path(), plan, model, {}), "of tensor '");
    CHECK_FALSE(std::filesystem::exists(folder / "manifest.json"));
}

TEST_CASE("checkpoint: another model or another cut is refused by tensor") {
    const TemporaryFolder folder;
    make_checkpoint(folder.path(), plan_of(2));
    const auto checkpoint = Checkpoint::open(folder.path());
    REQUIRE(checkpoint.has_value());
    ModelDescription other = model_of_three();
    other.tensors[1].name = "trunk.bais";
    require_bad(checkpoint->matches(plan_of(2, 8192, other), other), "no tensor 'trunk.bais'");
    other = model_of_three();
    other.tensors[1].shape = {51};
    require_bad(checkpoint->matches(plan_of(2, 8192, other), other),
                "'trunk.bias': expected shape [51], found [50]");
    other = model_of_three();
    other.tensors.pop_back();
    require_bad(checkpoint->matches(plan_of(2, 8192, other), other),
                "the model has no tensor 'heads.a.weight'");
    other = model_of_three();
    std::swap(other.tensors[0], other.tensors[1]);
    require_bad(checkpoint->matches(plan_of(2, 8192, other), other), "at place 0");
    require_bad(checkpoint->matches(plan_of(2, 4096), model_of_three()),
                "'trunk.weight' is cut into other blocks");
}

TEST_CASE("checkpoint: an altered byte anywhere in any of its files is found") {
    const TemporaryFolder folder;
    const Manifest manifest = make_checkpoint(folder.path(), plan_of(2, 4096));
    for (const CheckpointFile& file : manifest.files) {
        const std::string path = folder / file.name;
        const std::string whole = bytes_of_file(path);
        for (std::size_t at = 0; at < whole.size(); at += 1 + whole.size() / 23) {
            std::string altered = whole;
            altered[at] = static_cast<char>(altered[at] ^ 1);
            write_file(path, altered);
            require_bad(verify_files(folder.path(), manifest), file.name);
            if (file.name.starts_with("shard")) {
                require_bad(read_checkpoint(folder.path()), file.name);
            }
        }
        write_file(path, whole);
    }
    CHECK(read_checkpoint(folder.path()).has_value());
}

TEST_CASE("checkpoint: a truncated or missing file is found at once, without reading it") {
    const TemporaryFolder folder;
    make_checkpoint(folder.path(), plan_of(2));
    const std::string path = folder / "model.safetensors";
    write_file(path, bytes_of_file(path).substr(1));
    require_bad(Checkpoint::open(folder.path()), "model.safetensors: expected");
    std::filesystem::remove(path);
    require_bad(Checkpoint::open(folder.path()), "model.safetensors: expected");
}

TEST_CASE("manifest: cut off anywhere, or garbage, it is refused") {
    const TemporaryFolder folder;
    const std::string whole = to_json(make_checkpoint(folder.path(), plan_of(2)));
    for (std::size_t length = 0; length + 2 < whole.size(); ++length) {
        require_bad(manifest_from_json(whole.substr(0, length)), "no manifest");
    }
    require_bad(manifest_from_json("{}"), "'format' is missing");
    std::string outside = whole;
    outside.replace(outside.find("job.toml"), 8, "../x.yz1");
    require_bad(manifest_from_json(outside), "no file of a checkpoint");
    std::string number = whole;
    number.replace(number.find("\"number\": \"3\""), 13, "\"number\": 3");
    require_bad(manifest_from_json(number), "in quotes");
}

void make_number(const std::string& run, std::uint64_t number, bool complete) {
    const std::string directory = checkpoint_directory(run, number);
    std::filesystem::create_directories(directory);
    write_file(directory + "/shard-0.safetensors", "x");
    if (complete) write_file(directory + "/manifest.json", "{}");
}

TEST_CASE("checkpoint folder: the latest is the complete one with the largest number") {
    const TemporaryFolder run;
    require_bad(latest_checkpoint(run.path()), "found none");
    make_number(run.path(), 2, false);
    require_bad(latest_checkpoint(run.path()), "incomplete ones without a manifest.json (2)");
    for (const std::uint64_t number : {9, 10, 1}) make_number(run.path(), number, true);
    make_number(run.path(), 11, false);
    CHECK(*latest_checkpoint(run.path()) == checkpoint_directory(run.path(), 10));
}

TEST_CASE("checkpoint folder: pruning keeps the last K, the best, and what is in the making") {
    const TemporaryFolder run;
    for (const std::uint64_t number : {1, 2, 4, 5, 6}) make_number(run.path(), number, true);
    make_number(run.path(), 3, false);
    make_number(run.path(), 7, false);
    CHECK_FALSE(best_checkpoint(run.path()).has_value());
    REQUIRE(mark_best(run.path(), 1).has_value());
    REQUIRE(mark_best(run.path(), 2).has_value());
    CHECK(best_checkpoint(run.path()) == std::uint64_t{2});
    const auto removed = prune_checkpoints(run.path(), 2);
    REQUIRE(removed.has_value());
    CHECK(*removed == std::vector<std::uint64_t>{1, 3, 4});
    const auto left = list_checkpoints(run.path());
    CHECK(left->complete == std::vector<std::uint64_t>{2, 5, 6});
    CHECK(left->incomplete == std::vector<std::uint64_t>{7});
    CHECK(std::filesystem::exists(run / "checkpoints/best/manifest.json"));
    CHECK(prune_checkpoints(run.path(), 2)->empty());
}

}  // namespace
}  // namespace detente
