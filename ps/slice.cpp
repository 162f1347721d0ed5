#include "ps/slice.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "common/invariant.h"
#include "ps/strict_json.h"

namespace detente {
namespace json = boost::json;
namespace {

constexpr const char* kFormat = "detente shard slice 4";
constexpr const char* kBeforeMemory = "detente shard slice 3";    // read, never written
constexpr const char* kBeforeVectors = "detente shard slice 2";   // read, never written
constexpr const char* kBeforePolicies = "detente shard slice 1";  // read, never written
constexpr std::string_view kExtraPrefix = "extra.";
constexpr std::uint64_t kMostArrays = 8;  // of one kind, of one block

std::string weights_name(BlockId block) { return fmt::format("block.{}.weights", block.value); }
std::string slot_name(BlockId block, std::size_t slot) {
    return fmt::format("block.{}.slot{}", block.value, slot);
}

std::string vector_name(BlockId block, std::size_t vector) {
    return fmt::format("block.{}.vector{}", block.value, vector);
}
std::string vector_name(BlockId block, WorkerId worker, std::size_t vector) {
    return fmt::format("block.{}.worker{}.vector{}", block.value, worker.value, vector);
}

std::string mean_name(BlockId block, TaskId task) {
    return fmt::format("block.{}.task{}.mean", block.value, task.value);
}

TensorEntry floats(std::string name, const Payload& payload) {
    invariant(payload.size() % sizeof(float) == 0, "blocks are whole floats");
    return {std::move(name), Dtype::f32, {payload.size() / sizeof(float)}};
}

// {"3": "1"}: worker 3 has one vector.
json::object workers_of(const SavedVectors& vectors) {
    json::object workers;
    for (const auto& [worker, payloads] : vectors.workers) {
        workers[std::to_string(worker.value)] = std::to_string(payloads.size());
    }
    return workers;
}

json::array bits_of(const std::vector<double>& values) {
    json::array bits;
    for (const double value : values) {
        bits.emplace_back(std::to_string(std::bit_cast<std::uint64_t>(value)));
    }
    return bits;
}

std::vector<double> doubles_in(const json::object& object, const char* name) {
    std::vector<double> values;
    for (const json::value& bits : array_in(object, name)) {
        values.push_back(std::bit_cast<double>(integer_of(bits, name)));
    }
    return values;
}

json::array tasks_of(const SavedMemory& memory) {
    json::array tasks;
    for (const SavedMemory::Task& one : memory.tasks) {
        tasks.push_back(json::object{{"task", std::to_string(one.task.value)},
                                     {"version", std::to_string(one.version.value)}});
    }
    return tasks;
}

SavedMemory memory_in(const json::object& object) {
    SavedMemory memory;
    for (const json::value& value : array_in(object, "memory")) {
        const json::object& one = object_of(value, "memory");
        const TaskId task{small_integer_in(one, "task")};
        const bool ascends = memory.tasks.empty() || memory.tasks.back().task < task;
        if (task.value >= kMaxTasks || !ascends) {
            throw BadJson{fmt::format("what is remembered of task {} is out of place", task.value)};
        }
        memory.tasks.push_back({task, Version{integer_in(one, "version")}, {}});
    }
    memory.gramian = doubles_in(object, "memory_gramian");
    if (memory.gramian.size() != memory.tasks.size() * memory.tasks.size()) {
        throw BadJson{fmt::format("a Gramian of {} entries for {} tasks", memory.gramian.size(),
                                  memory.tasks.size())};
    }
    return memory;
}

std::size_t count_in(const json::object& object, const char* name) {
    const std::uint64_t count = integer_in(object, name);
    if (count > kMostArrays) throw BadJson{fmt::format("{} {} of one block", count, name)};
    return count;
}

void parse_vectors(const json::object& object, BlockSlice& block) {
    block.vectors.block.resize(count_in(object, "vectors"));
    const json::value* workers = object.if_contains("worker_vectors");
    if (workers == nullptr) throw BadJson{"'worker_vectors' is missing"};
    for (const auto& [worker, count] : object_of(*workers, "worker_vectors")) {
        const json::object one{{"worker", worker}, {"vectors", count}};
        block.vectors.workers[WorkerId{small_integer_in(one, "worker")}].resize(
            count_in(one, "vectors"));
    }
}

// Of all that is saved of a block besides its weights, in the order of arrays_of().
std::vector<std::string> state_names(const BlockSlice& block) {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < block.slots.size(); ++i) {
        names.push_back(slot_name(block.block, i));
    }
    for (std::size_t i = 0; i < block.vectors.block.size(); ++i) {
        names.push_back(vector_name(block.block, i));
    }
    for (const auto& [worker, vectors] : block.vectors.workers) {
        for (std::size_t i = 0; i < vectors.size(); ++i) {
            names.push_back(vector_name(block.block, worker, i));
        }
    }
    for (const SavedMemory::Task& one : block.memory.tasks) {
        names.push_back(mean_name(block.block, one.task));
    }
    return names;
}

std::vector<Payload*> arrays_of(BlockSlice& block) {
    std::vector<Payload*> arrays;
    for (Payload& slot : block.slots) arrays.push_back(&slot);
    for (Payload& vector : block.vectors.block) arrays.push_back(&vector);
    for (auto& [worker, vectors] : block.vectors.workers) {
        for (Payload& vector : vectors) arrays.push_back(&vector);
    }
    for (SavedMemory::Task& one : block.memory.tasks) arrays.push_back(&one.mean);
    return arrays;
}

const SafetensorsFile::Tensor& floats_in(const SafetensorsFile& file, const std::string& name) {
    const SafetensorsFile::Tensor* tensor = file.find(name);
    if (tensor == nullptr) throw BadJson{fmt::format("tensor '{}' is missing", name)};
    if (tensor->entry.dtype != Dtype::f32 || tensor->entry.shape.size() != 1) {
        throw BadJson{fmt::format("tensor '{}' is no list of F32", name)};
    }
    return *tensor;
}

}  // namespace

std::string slice_file_name(ShardId shard) {
    return fmt::format("shard-{}.safetensors", shard.value);
}

std::vector<Payload> to_pieces(const ShardSlice& slice) {
    std::vector<TensorEntry> tensors;
    std::vector<Payload> pieces(1);  // the header's place
    json::array blocks;
    for (const BlockSlice& block : slice.blocks) {
        blocks.push_back(json::object{{"id", std::to_string(block.block.value)},
                                      {"epoch", std::to_string(block.epoch.value)},
                                      {"version", std::to_string(block.version.value)},
                                      {"updates", std::to_string(block.updates)},
                                      {"samples_applied", std::to_string(block.samples_applied)},
                                      {"policy", block.policy},
                                      {"policy_state", bits_of(block.policy_state.values)},
                                      {"slots", std::to_string(block.slots.size())},
                                      {"vectors", std::to_string(block.vectors.block.size())},
                                      {"worker_vectors", workers_of(block.vectors)},
                                      {"memory", tasks_of(block.memory)},
                                      {"memory_gramian", bits_of(block.memory.gramian)}});
        tensors.push_back(floats(weights_name(block.block), block.weights));
        pieces.push_back(block.weights);
        BlockSlice shared = block;
        const std::vector<std::string> names = state_names(block);
        const std::vector<Payload*> arrays = arrays_of(shared);
        for (std::size_t i = 0; i < names.size(); ++i) {
            const Payload& values = *arrays[i];
            invariant(values.size() == block.weights.size(), "state is as long as the weights");
            tensors.push_back(floats(names[i], values));
            pieces.push_back(values);
        }
    }
    for (const auto& [key, bytes] : slice.extras) {
        tensors.push_back({std::string(kExtraPrefix) + key, Dtype::u8, {bytes.size()}});
        pieces.push_back(copy_of(std::as_bytes(std::span(bytes))));
    }
    pieces[0] = safetensors_header(tensors, {{"format", kFormat},
                                             {"shard", std::to_string(slice.shard.value)},
                                             {"blocks", json::serialize(blocks)}});
    return pieces;
}

Result<SliceFile> SliceFile::open(const std::string& path) {
    Result<SafetensorsFile> file = SafetensorsFile::open(path);
    if (file.has_error()) return file.error();
    SliceFile slice(std::move(*file));
    try {
        slice.parse();
    } catch (const BadJson& refused) {
        return fail(ErrorCode::bad_checkpoint,
                    fmt::format("{} is no slice of a checkpoint: {}; use another checkpoint", path,
                                refused.text));
    }
    const auto read = slice.read_extras();
    if (read.has_error()) return read.error();
    return slice;
}

void SliceFile::parse() {
    json::object metadata;
    for (const auto& [key, value] : file_.metadata()) metadata[key] = value;
    const std::string format = text_in(metadata, "format");
    const auto formats = {kFormat, kBeforeMemory, kBeforeVectors, kBeforePolicies};
    if (std::find(formats.begin(), formats.end(), format) == formats.end()) {
        throw BadJson{fmt::format("expected format '{}', found '{}'", kFormat, format)};
    }
    shard_ = ShardId{small_integer_in(metadata, "shard")};
    boost::system::error_code error;
    const json::value parsed = json::parse(text_in(metadata, "blocks"), error);
    if (error || !parsed.is_array()) throw BadJson{"'blocks' is no list"};
    for (const json::value& value : parsed.get_array()) {
        const json::object& object = object_of(value, "a block");
        BlockSlice block;
        block.block = BlockId{integer_in(object, "id")};
        block.epoch = Epoch{small_integer_in(object, "epoch")};
        block.version = Version{integer_in(object, "version")};
        block.updates = integer_in(object, "updates");
        block.samples_applied = integer_in(object, "samples_applied");
        if (format != kBeforePolicies) {
            block.policy = text_in(object, "policy");
            block.policy_state.values = doubles_in(object, "policy_state");
        }
        block.slots.resize(count_in(object, "slots"));
        if (format == kFormat || format == kBeforeMemory) parse_vectors(object, block);
        if (format == kFormat) block.memory = memory_in(object);
        const auto& shape = floats_in(file_, weights_name(block.block)).entry.shape;
        for (const std::string& name : state_names(block)) {
            if (floats_in(file_, name).entry.shape != shape) {
                throw BadJson{fmt::format("'{}' is not as long as the weights", name)};
            }
        }
        blocks_.push_back(std::move(block));
    }
    std::sort(blocks_.begin(), blocks_.end(),
              [](const BlockSlice& a, const BlockSlice& b) { return a.block < b.block; });
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
        if (!index_of_.emplace(blocks_[i].block, i).second) {
            throw BadJson{fmt::format("block {} is there twice", blocks_[i].block.value)};
        }
    }
}

Result<void> SliceFile::read_extras() {
    for (const SafetensorsFile::Tensor& tensor : file_.tensors()) {
        if (!tensor.entry.name.starts_with(kExtraPrefix)) continue;
        std::string bytes(tensor.entry.bytes(), '\0');
        const auto read = file_.read(tensor, 0, std::as_writable_bytes(std::span(bytes)));
        if (read.has_error()) return read.error();
        extras_.emplace(tensor.entry.name.substr(kExtraPrefix.size()), std::move(bytes));
    }
    return {};
}

const BlockSlice* SliceFile::find(BlockId block) const {
    const auto at = index_of_.find(block);
    return at == index_of_.end() ? nullptr : &blocks_[at->second];
}

std::uint64_t SliceFile::elements(BlockId block) const {
    const SafetensorsFile::Tensor* tensor = file_.find(weights_name(block));
    invariant(tensor != nullptr, "a block is asked only of the slice that has it");
    return tensor->entry.shape[0];
}

Result<Payload> SliceFile::read_weights(BlockId block) const {
    const SafetensorsFile::Tensor* tensor = file_.find(weights_name(block));
    invariant(tensor != nullptr, "a block is asked only of the slice that has it");
    return file_.read(*tensor);
}

Result<BlockSlice> SliceFile::read(BlockId block) const {
    const BlockSlice* found = find(block);
    invariant(found != nullptr, "a block is asked only of the slice that has it");
    BlockSlice slice = *found;
    Result<Payload> weights = read_weights(block);
    if (weights.has_error()) return weights.error();
    slice.weights = std::move(*weights);
    const std::vector<std::string> names = state_names(slice);
    const std::vector<Payload*> arrays = arrays_of(slice);
    for (std::size_t i = 0; i < names.size(); ++i) {
        Result<Payload> values = file_.read(*file_.find(names[i]));
        if (values.has_error()) return values.error();
        *arrays[i] = std::move(*values);
    }
    return slice;
}

Result<ShardSlice> read_slice(const std::string& path) {
    const Result<SliceFile> file = SliceFile::open(path);
    if (file.has_error()) return file.error();
    ShardSlice slice;
    slice.shard = file->shard();
    slice.extras = file->extras();
    for (const BlockSlice& block : file->blocks()) {
        Result<BlockSlice> read = file->read(block.block);
        if (read.has_error()) return read.error();
        slice.blocks.push_back(std::move(*read));
    }
    return slice;
}

}  // namespace detente
