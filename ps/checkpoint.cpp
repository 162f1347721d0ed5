#include "ps/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <unordered_map>

#include "common/invariant.h"
#include "common/partition/stored_order.h"
#include "common/runtime/disk.h"
#include "common/worker_file.h"

namespace detente {
namespace {

constexpr const char* kModelFile = "model.safetensors";
constexpr const char* kJobFile = "job.toml";

Error bad(std::string text) { return fail(ErrorCode::bad_checkpoint, std::move(text)); }

std::vector<TensorCut> cut_of(const Plan& plan, const ModelDescription& model) {
    std::vector<TensorCut> cuts;
    for (const TensorDescription& tensor : model.tensors) {
        cuts.push_back({tensor.name, tensor.shape, {}, {}});
    }
    for (const Block& block : plan.blocks) {
        cuts[block.tensor].block_elements.push_back(block.elements);
        cuts[block.tensor].block_strides.push_back(block.stride);
    }
    return cuts;
}

// Every slice of the plan, each with exactly the blocks that live there.
Result<std::vector<SliceFile>> open_slices(const std::string& directory, const Plan& plan,
                                           const ModelDescription& model) {
    std::vector<SliceFile> slices;
    for (std::uint32_t shard = 0; shard < plan.by_shard.size(); ++shard) {
        const std::string path = directory + "/" + slice_file_name(ShardId{shard});
        Result<SliceFile> slice = SliceFile::open(path);
        if (slice.has_error()) return slice.error();
        if (slice->shard() != ShardId{shard}) {
            return bad(fmt::format("{}: expected the slice of shard {}, found that of shard {}",
                                   path, shard, slice->shard().value));
        }
        for (const BlockId id : plan.by_shard[shard]) {
            const Block& block = plan.block(id);
            const std::string& tensor = model.tensors[block.tensor].name;
            if (slice->find(id) == nullptr) {
                return bad(
                    fmt::format("{}: block {} of tensor '{}' is missing", path, id.value, tensor));
            }
            if (slice->elements(id) != block.elements) {
                return bad(
                    fmt::format("{}: block {} of tensor '{}': expected {} elements, found "
                                "{}",
                                path, id.value, tensor, block.elements, slice->elements(id)));
            }
        }
        if (slice->blocks().size() != plan.by_shard[shard].size()) {
            return bad(fmt::format("{}: expected {} blocks, found {}", path,
                                   plan.by_shard[shard].size(), slice->blocks().size()));
        }
        slices.push_back(std::move(*slice));
    }
    return slices;
}

// Blocks are numbered in (tensor, offset) order, which is the order of the file, but for tensors
// that are stored otherwise than they lie: those are put together first.
Result<FileDigest> stream_model(const std::string& path, const Plan& plan,
                                const ModelDescription& model, const std::vector<SliceFile>& slices,
                                Generation generation) {
    std::vector<TensorEntry> tensors;
    for (const TensorDescription& tensor : model.tensors) {
        tensors.push_back({tensor.name, Dtype::f32, {tensor.shape.begin(), tensor.shape.end()}});
    }
    auto writer = SafetensorsWriter::create(path, tensors,
                                            {{"format", "pt"},
                                             {"model", model.model},
                                             {"generation", std::to_string(generation.value)}});
    if (writer.has_error()) return writer.error();
    const StoredOrder order(plan);
    std::vector<float> stored;
    std::vector<float> own;
    for (const Block& block : plan.blocks) {
        const Result<Payload> weights = slices[block.home.value].read_weights(block.id);
        if (weights.has_error()) return weights.error();
        std::span<const std::byte> bytes = weights->bytes;
        if (order.moves(block.tensor)) {
            stored.resize(model.tensors[block.tensor].elements());
            std::memcpy(stored.data() + block.offset, bytes.data(), bytes.size());
            if (block.offset + block.elements < stored.size()) continue;
            own.resize(stored.size());
            order.restore(block.tensor, stored, own.data());
            bytes = std::as_bytes(std::span<const float>(own));
        }
        const auto appended = writer->append(bytes);
        if (appended.has_error()) return appended.error();
    }
    const auto finished = writer->finish();
    if (finished.has_error()) return finished.error();
    return writer->digest();
}

Result<void> write_text(const std::string& path, const std::string& text) {
    return write_whole_file({path, {copy_of(std::as_bytes(std::span(text)))}});
}

Result<CheckpointFile> listed(const std::string& directory, const std::string& name) {
    const Result<FileDigest> digest = digest_of(directory + "/" + name);
    if (digest.has_error()) return digest.error();
    return CheckpointFile{name, digest->bytes, digest->checksum};
}

void summarize(const std::vector<SliceFile>& slices, Manifest& manifest) {
    bool first = true;
    for (const SliceFile& slice : slices) {
        for (const BlockSlice& block : slice.blocks()) {
            manifest.lowest_version =
                first ? block.version : std::min(manifest.lowest_version, block.version);
            manifest.highest_version = std::max(manifest.highest_version, block.version);
            manifest.samples_applied = std::max(manifest.samples_applied, block.samples_applied);
            first = false;
        }
        const auto newest = slice.extras().find("incarnation");
        std::uint32_t incarnation = 0;
        if (newest != slice.extras().end()) {
            const std::string& digits = newest->second;
            std::from_chars(digits.data(), digits.data() + digits.size(), incarnation);
        }
        manifest.newest_incarnation =
            std::max(manifest.newest_incarnation, Incarnation{incarnation});
    }
}

// The file a worker wrote for this checkpoint, or else its last word; empty: it has none.
Result<std::string> take_in(const std::string& directory, WorkerId worker, bool wrote_one) {
    namespace fs = std::filesystem;
    const std::string name = worker_file_name(worker);
    const fs::path here = fs::path(directory) / name;
    const fs::path last_word = fs::path(directory).parent_path() / name;
    std::error_code error;
    if (fs::exists(here, error)) return name;
    if (!wrote_one) return std::string();
    if (!fs::exists(last_word, error)) {
        return bad(
            fmt::format("expected {}, which {} said it has written, or its last word {}, "
                        "found neither; check that every host sees this run directory and "
                        "that nobody removed it: what the worker keeps would be lost",
                        here.string(), to_string(node_of(worker)), last_word.string()));
    }
    fs::create_hard_link(last_word, here, error);  // each is replaced whole, never written to
    if (!error) return name;
    auto copied = copy_whole_file(last_word.string(), here.string());  // another file system
    if (copied.has_error()) return copied.error();
    return name;
}

}  // namespace

Result<Manifest> merge_checkpoint(const std::string& directory, const Plan& plan,
                                  const ModelDescription& model, const CheckpointOrigin& origin) {
    const Result<std::vector<SliceFile>> slices = open_slices(directory, plan, model);
    if (slices.has_error()) return slices.error();
    Manifest manifest;
    manifest.number = origin.number;
    manifest.generation = origin.generation;
    manifest.methods = origin.methods;
    manifest.shards = static_cast<std::uint32_t>(slices->size());
    manifest.model = model.model;
    manifest.tensors = cut_of(plan, model);
    summarize(*slices, manifest);
    for (std::uint32_t shard = 0; shard < manifest.shards; ++shard) {
        Result<CheckpointFile> file = listed(directory, slice_file_name(ShardId{shard}));
        if (file.has_error()) return file.error();
        manifest.files.push_back(std::move(*file));
    }
    for (std::uint32_t worker = 0; worker < origin.workers; ++worker) {
        const Result<std::string> name =
            take_in(directory, WorkerId{worker}, origin.worker_files.contains(WorkerId{worker}));
        if (name.has_error()) return name.error();
        if (name->empty()) continue;
        Result<CheckpointFile> file = listed(directory, *name);
        if (file.has_error()) return file.error();
        manifest.files.push_back(std::move(*file));
    }
    const std::string model_path = directory + "/" + kModelFile;
    const Result<FileDigest> digest =
        stream_model(model_path, plan, model, *slices, origin.generation);
    if (digest.has_error()) return digest.error();
    manifest.files.push_back({kModelFile, digest->bytes, digest->checksum});
    auto written = write_text(directory + "/" + kJobFile, origin.job_text);
    if (written.has_error()) return written.error();
    Result<CheckpointFile> job = listed(directory, kJobFile);
    if (job.has_error()) return job.error();
    manifest.files.push_back(std::move(*job));
    written = write_text(directory + "/manifest.json", to_json(manifest));
    if (written.has_error()) return written.error();
    return manifest;
}

Result<void> verify_file(const std::string& directory, const CheckpointFile& file) {
    const std::string path = directory + "/" + file.name;
    const Result<FileDigest> found = digest_of(path);
    if (found.has_error()) return found.error();
    if (found->bytes == file.bytes && found->checksum == file.checksum) return {};
    return bad(
        fmt::format("{}: expected {} bytes with checksum {:016x}, found {} bytes with "
                    "{:016x}: the file was altered after the checkpoint was made; use "
                    "another checkpoint",
                    path, file.bytes, file.checksum, found->bytes, found->checksum));
}

Result<Checkpoint> Checkpoint::open(const std::string& directory) {
    Result<Manifest> manifest = read_manifest(directory);
    if (manifest.has_error()) return manifest.error();
    Checkpoint checkpoint;
    checkpoint.directory_ = directory;
    checkpoint.manifest_ = std::move(*manifest);
    for (const CheckpointFile& file : checkpoint.manifest_.files) {
        std::error_code error;
        const auto bytes = std::filesystem::file_size(directory + "/" + file.name, error);
        if (error || bytes != file.bytes) {
            return bad(fmt::format("{}/{}: expected {} bytes, found {}; use another checkpoint",
                                   directory, file.name, file.bytes,
                                   error ? error.message() : std::to_string(bytes)));
        }
    }
    for (std::uint32_t shard = 0; shard < checkpoint.manifest_.shards; ++shard) {
        Result<SliceFile> slice =
            SliceFile::open(directory + "/" + slice_file_name(ShardId{shard}));
        if (slice.has_error()) return slice.error();
        for (const BlockSlice& block : slice->blocks()) {
            if (!checkpoint.slice_of_.emplace(block.block, shard).second) {
                return bad(fmt::format("{}: block {} is in two slices; use another checkpoint",
                                       directory, block.block.value));
            }
        }
        checkpoint.slices_.push_back(std::move(*slice));
    }
    return checkpoint;
}

Result<void> Checkpoint::matches(const Plan& plan, const ModelDescription& model) const {
    const auto differs = [this](const std::string& text) {
        return bad(fmt::format("checkpoint {} (of model '{}') does not fit this job: {}",
                               directory_, manifest_.model, text));
    };
    const auto shape_text = [](const std::vector<std::int64_t>& shape) {
        return fmt::format("[{}]", fmt::join(shape, ", "));
    };
    std::unordered_map<std::string, const TensorCut*> saved;
    for (const TensorCut& tensor : manifest_.tensors) saved.emplace(tensor.name, &tensor);
    const std::vector<TensorCut> wanted = cut_of(plan, model);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        const TensorCut& tensor = wanted[i];
        const auto found = saved.find(tensor.name);
        if (found == saved.end()) {
            return differs(fmt::format("it has no tensor '{}'", tensor.name));
        }
        if (found->second->shape != tensor.shape) {
            return differs(fmt::format("tensor '{}': expected shape {}, found {}", tensor.name,
                                       shape_text(tensor.shape), shape_text(found->second->shape)));
        }
        if (found->second->block_elements != tensor.block_elements) {
            return differs(fmt::format(
                "tensor '{}' is cut into other blocks ({} there, {} here); "
                "resume with the blocks.bytes and [[mask]] entries it was made with",
                tensor.name, found->second->block_elements.size(), tensor.block_elements.size()));
        }
        if (found->second->block_strides != tensor.block_strides) {
            return differs(fmt::format(
                "tensor '{}' is dealt out otherwise among its tasks; resume with the [[mask]] "
                "entries it was made with",
                tensor.name));
        }
        if (manifest_.tensors[i].name != tensor.name) {
            return differs(fmt::format("expected tensor '{}' at place {}, found '{}'", tensor.name,
                                       i, manifest_.tensors[i].name));
        }
        saved.erase(found);
    }
    if (!saved.empty()) {
        return differs(fmt::format("the model has no tensor '{}'", saved.begin()->first));
    }
    for (const Block& block : plan.blocks) {
        const auto home = slice_of_.find(block.id);
        if (home == slice_of_.end() || slices_[home->second].elements(block.id) != block.elements) {
            return differs(fmt::format("block {} of tensor '{}' is missing or of another size",
                                       block.id.value, model.tensors[block.tensor].name));
        }
    }
    return {};
}

Result<void> Checkpoint::verify(std::size_t slice) {
    if (verified_.contains(slice)) return {};
    const std::string name = slice_file_name(ShardId{static_cast<std::uint32_t>(slice)});
    for (const CheckpointFile& file : manifest_.files) {
        if (file.name != name) continue;
        auto verified = verify_file(directory_, file);
        if (verified.has_error()) return verified;
        verified_.insert(slice);
        return {};
    }
    return bad(fmt::format("{}: manifest.json does not list {}; use another checkpoint", directory_,
                           name));
}

Result<std::vector<BlockSlice>> Checkpoint::read(std::span<const BlockId> blocks) {
    std::vector<BlockSlice> read;
    for (const BlockId id : blocks) {
        const auto home = slice_of_.find(id);
        if (home == slice_of_.end()) {
            return fail(ErrorCode::unknown_block,
                        fmt::format("{}: there is no block {}", directory_, id.value));
        }
        const auto verified = verify(home->second);
        if (verified.has_error()) return verified.error();
        Result<BlockSlice> block = slices_[home->second].read(id);
        if (block.has_error()) return block.error();
        read.push_back(std::move(*block));
    }
    return read;
}

Result<std::vector<ShardSlice>> Checkpoint::read_all() {
    std::vector<ShardSlice> read;
    for (std::size_t i = 0; i < slices_.size(); ++i) {
        const auto verified = verify(i);
        if (verified.has_error()) return verified.error();
        Result<ShardSlice> slice = read_slice(slices_[i].path());
        if (slice.has_error()) return slice.error();
        read.push_back(std::move(*slice));
    }
    return read;
}

Result<const std::map<std::string, std::string>*> Checkpoint::extras(ShardId shard) {
    if (shard.value >= slices_.size()) return nullptr;
    const auto verified = verify(shard.value);
    if (verified.has_error()) return verified.error();
    return &slices_[shard.value].extras();
}

std::map<BlockId, std::pair<Epoch, Version>> Checkpoint::versions(ShardId shard) const {
    std::map<BlockId, std::pair<Epoch, Version>> versions;
    for (const BlockSlice& block : slices_[shard.value].blocks()) {
        versions[block.block] = {block.epoch, block.version};
    }
    return versions;
}

Result<std::vector<ShardSlice>> read_checkpoint(const std::string& directory) {
    Result<Checkpoint> checkpoint = Checkpoint::open(directory);
    if (checkpoint.has_error()) return checkpoint.error();
    return checkpoint->read_all();
}

Result<void> verify_files(const std::string& directory, const Manifest& manifest) {
    for (const CheckpointFile& file : manifest.files) {
        auto verified = verify_file(directory, file);
        if (verified.has_error()) return verified;
    }
    return {};
}

}  // namespace detente
