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

constexpr const char* kFormat = "detente shard slice 2";
constexpr const char* kBeforePolicies = "detente shard slice 1";  // read, never written
constexpr std::string_view kExtraPrefix = "extra.";
constexpr std::uint64_t kMostSlots = 8;

std::string weights_name(BlockId block) { return fmt::format("block.{}.weights", block.value); }
std::string slot_name(BlockId block, std::size_t slot) {
    return fmt::format("block.{}.slot{}", block.value, slot);
}

TensorEntry floats(std::string name, const Payload& payload) {
    invariant(payload.size() % sizeof(float) == 0, "blocks are whole floats");
    return {std::move(name), Dtype::f32, {payload.size() / sizeof(float)}};
}

json::array bits_of(const PolicyState& state) {
    json::array bits;
    for (const double value : state.values) {
        bits.emplace_back(std::to_string(std::bit_cast<std::uint64_t>(value)));
    }
    return bits;
}

PolicyState policy_state_in(const json::object& object) {
    PolicyState state;
    for (const json::value& bits : array_in(object, "policy_state")) {
        state.values.push_back(std::bit_cast<double>(integer_of(bits, "policy_state")));
    }
    return state;
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
                                      {"policy_state", bits_of(block.policy_state)},
                                      {"slots", std::to_string(block.slots.size())}});
        tensors.push_back(floats(weights_name(block.block), block.weights));
        pieces.push_back(block.weights);
        for (std::size_t slot = 0; slot < block.slots.size(); ++slot) {
            invariant(block.slots[slot].size() == block.weights.size(),
                      "optimizer state is as long as the weights");
            tensors.push_back(floats(slot_name(block.block, slot), block.slots[slot]));
            pieces.push_back(block.slots[slot]);
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
    if (format != kFormat && format != kBeforePolicies) {
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
        if (format == kFormat) {
            block.policy = text_in(object, "policy");
            block.policy_state = policy_state_in(object);
        }
        const std::uint64_t slots = integer_in(object, "slots");
        if (slots > kMostSlots) throw BadJson{fmt::format("{} arrays of optimizer state", slots)};
        block.slots.resize(slots);
        const auto& weights = floats_in(file_, weights_name(block.block));
        for (std::size_t slot = 0; slot < slots; ++slot) {
            const auto& state = floats_in(file_, slot_name(block.block, slot));
            if (state.entry.shape != weights.entry.shape) {
                throw BadJson{fmt::format("'{}' is not as long as the weights", state.entry.name)};
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
    for (std::size_t i = 0; i < slice.slots.size(); ++i) {
        Result<Payload> slot = file_.read(*file_.find(slot_name(block, i)));
        if (slot.has_error()) return slot.error();
        slice.slots[i] = std::move(*slot);
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
