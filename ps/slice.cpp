#include "ps/slice.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "common/invariant.h"
#include "ps/strict_json.h"

namespace detente {
namespace json = boost::json;
namespace {

// The last one is written, all are read. What each brought:
enum Format { kBlocks = 1, kPolicies, kVectors, kMemory, kGramianAsBytes };
constexpr Format kNewest = kGramianAsBytes;
constexpr std::string_view kFormat = "detente shard slice ";
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

std::string gramian_name(BlockId block) { return fmt::format("block.{}.gramian", block.value); }

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

// Format 4 has the Gramian here, as text; 64 tasks and a thousand blocks made a header too long to
// be read.
SavedMemory memory_in(const json::object& object, Format format) {
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
    if (format >= kGramianAsBytes) return memory;
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

// Of a const block or one to be filled.
template <class Slice>
auto arrays_of(Slice& block) {
    std::vector<decltype(&block.weights)> arrays;
    for (auto& slot : block.slots) arrays.push_back(&slot);
    for (auto& vector : block.vectors.block) arrays.push_back(&vector);
    for (auto& [worker, vectors] : block.vectors.workers) {
        for (auto& vector : vectors) arrays.push_back(&vector);
    }
    for (auto& one : block.memory.tasks) arrays.push_back(&one.mean);
    return arrays;
}

const SafetensorsFile::Tensor& tensor_in(const SafetensorsFile& file, const std::string& name) {
    const SafetensorsFile::Tensor* tensor = file.find(name);
    if (tensor == nullptr) throw BadJson{fmt::format("tensor '{}' is missing", name)};
    return *tensor;
}

const SafetensorsFile::Tensor& floats_in(const SafetensorsFile& file, const std::string& name) {
    const SafetensorsFile::Tensor& tensor = tensor_in(file, name);
    if (tensor.entry.dtype != Dtype::f32 || tensor.entry.shape.size() != 1) {
        throw BadJson{fmt::format("tensor '{}' is no list of F32", name)};
    }
    return tensor;
}

void check_gramian(const SafetensorsFile& file, const BlockSlice& block) {
    const std::uint64_t tasks = block.memory.tasks.size();
    if (tasks == 0) return;
    const std::string name = gramian_name(block.block);
    const SafetensorsFile::Tensor& tensor = tensor_in(file, name);
    if (tensor.entry.dtype != Dtype::f64 ||
        tensor.entry.shape != std::vector<std::uint64_t>{tasks, tasks}) {
        throw BadJson{fmt::format("'{}' is no matrix of {} × {} F64", name, tasks, tasks)};
    }
}

Format format_in(const json::object& metadata) {
    const std::string text = text_in(metadata, "format");
    for (int format = kBlocks; format <= kNewest; ++format) {
        if (text == fmt::format("{}{}", kFormat, format)) return static_cast<Format>(format);
    }
    throw BadJson{fmt::format("expected format '{}{}', found '{}'", kFormat, int{kNewest}, text)};
}

json::object header_of(const BlockSlice& block) {
    return {{"id", std::to_string(block.block.value)},
            {"epoch", std::to_string(block.epoch.value)},
            {"version", std::to_string(block.version.value)},
            {"updates", std::to_string(block.updates)},
            {"samples_applied", std::to_string(block.samples_applied)},
            {"policy", block.policy},
            {"policy_state", bits_of(block.policy_state.values)},
            {"slots", std::to_string(block.slots.size())},
            {"vectors", std::to_string(block.vectors.block.size())},
            {"worker_vectors", workers_of(block.vectors)},
            {"memory", tasks_of(block.memory)}};
}

}  // namespace

std::string slice_file_name(ShardId shard) {
    return fmt::format("shard-{}.safetensors", shard.value);
}

Result<std::vector<Payload>> to_pieces(const ShardSlice& slice) {
    std::vector<TensorEntry> tensors;
    std::vector<Payload> pieces(1);  // the header's place
    json::array blocks;
    for (const BlockSlice& block : slice.blocks) {
        blocks.push_back(header_of(block));
        tensors.push_back(floats(weights_name(block.block), block.weights));
        pieces.push_back(block.weights);
        const std::vector<std::string> names = state_names(block);
        const std::vector<const Payload*> arrays = arrays_of(block);
        for (std::size_t i = 0; i < names.size(); ++i) {
            const Payload& values = *arrays[i];
            invariant(values.size() == block.weights.size(), "state is as long as the weights");
            tensors.push_back(floats(names[i], values));
            pieces.push_back(values);
        }
        const std::uint64_t tasks = block.memory.tasks.size();
        if (tasks == 0) continue;
        invariant(block.memory.gramian.size() == tasks * tasks, "a Gramian has a row per task");
        tensors.push_back({gramian_name(block.block), Dtype::f64, {tasks, tasks}});
        pieces.push_back(copy_of(std::as_bytes(std::span(block.memory.gramian))));
    }
    for (const auto& [key, bytes] : slice.extras) {
        tensors.push_back({std::string(kExtraPrefix) + key, Dtype::u8, {bytes.size()}});
        pieces.push_back(copy_of(std::as_bytes(std::span(bytes))));
    }
    Result<Payload> header =
        safetensors_header(tensors, {{"format", fmt::format("{}{}", kFormat, int{kNewest})},
                                     {"shard", std::to_string(slice.shard.value)},
                                     {"blocks", json::serialize(blocks)}});
    if (header.has_error()) {
        return fail(header.error().code,
                    fmt::format("the slice of shard {} would have {}; use larger blocks "
                                "(blocks.bytes) or more shards, so that a shard has fewer blocks",
                                slice.shard.value, header.error().text));
    }
    pieces[0] = std::move(*header);
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
    const Format format = format_in(metadata);
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
        if (format >= kPolicies) {
            block.policy = text_in(object, "policy");
            block.policy_state.values = doubles_in(object, "policy_state");
        }
        block.slots.resize(count_in(object, "slots"));
        if (format >= kVectors) parse_vectors(object, block);
        if (format >= kMemory) block.memory = memory_in(object, format);
        if (format >= kGramianAsBytes) check_gramian(file_, block);
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
    if (auto read = read_gramian(slice); read.has_error()) return read.error();
    return slice;
}

Result<void> SliceFile::read_gramian(BlockSlice& block) const {
    std::vector<double>& gramian = block.memory.gramian;
    const SafetensorsFile::Tensor* tensor = file_.find(gramian_name(block.block));
    if (tensor != nullptr && !block.memory.tasks.empty()) {
        gramian.resize(block.memory.tasks.size() * block.memory.tasks.size());
        const auto read = file_.read(*tensor, 0, std::as_writable_bytes(std::span(gramian)));
        if (read.has_error()) return read.error();
    }
    const auto wrong = std::find_if_not(gramian.begin(), gramian.end(),
                                        [](double entry) { return std::isfinite(entry); });
    if (wrong == gramian.end()) return {};
    const std::size_t at = static_cast<std::size_t>(wrong - gramian.begin());
    const std::vector<SavedMemory::Task>& tasks = block.memory.tasks;
    return fail(ErrorCode::bad_checkpoint,
                fmt::format("{}: block {}: the product of what is remembered of tasks {} and {}: "
                            "expected a finite number, found {}; use another checkpoint",
                            path(), block.block.value, tasks[at / tasks.size()].task.value,
                            tasks[at % tasks.size()].task.value, *wrong));
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
