// A checkpoint on disk: RUN/checkpoints/<number>/ with
//   shard-<id>.safetensors   every shard's slice (ps/slice.h)
//   model.safetensors        whole tensors under the model's own names, for everybody else
//   worker-<id>.safetensors  vectors that a worker keeps (worker/kept_vectors.h), if it keeps any
//   job.toml                 the resolved job
//   manifest.json            written last, by rename: a directory without it is incomplete
// The manifest lists every file with its size and XXH3-64, and how tensors were cut into blocks;
// the cut is the same for any number of shards, so blocks are re-homed by the new plan at restore.
//
// All functions block on the disk: called by the launching process and at a server's start, never
// on a loop.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/ids.h"
#include "common/messages.h"
#include "common/model_description.h"
#include "common/partition/plan.h"
#include "common/result.h"
#include "ps/slice.h"

namespace detente {

struct CheckpointFile {
    std::string name;  // within the directory
    std::uint64_t bytes = 0;
    std::uint64_t checksum = 0;
};
struct TensorCut {
    std::string name;
    std::vector<std::int64_t> shape;
    std::vector<std::uint64_t> block_elements;  // in order of offset
    std::vector<std::uint64_t> block_strides;   // likewise (Block::stride)
};
struct Manifest {
    std::uint64_t number = 0;
    Generation generation;
    std::uint32_t shards = 0;
    std::string model;
    Version lowest_version;  // over all blocks
    Version highest_version;
    std::uint64_t samples_applied = 0;  // most over all blocks
    Incarnation newest_incarnation{0};  // of all its workers; 0 = not saved
    std::vector<WorkerMethod> methods;  // of workers whose conflict method remembers something
    std::vector<TensorCut> tensors;
    std::vector<CheckpointFile> files;
};

// What only the caller of a merge knows.
struct CheckpointOrigin {
    std::uint64_t number = 0;
    Generation generation;
    std::string job_text;  // the resolved job, TOML
    std::vector<WorkerMethod> methods{};
    std::uint32_t workers = 0;  // whose files are looked for
    // Of those, who said that it wrote one, for this checkpoint or as its last word: it must be
    // there.
    std::set<WorkerId> worker_files{};
};

// Makes a directory that holds every shard's slice a complete checkpoint. One block at a time is in
// memory, or one tensor, where a strided mask is on it. bad_checkpoint: a slice is missing, or
// lacks a block that lives there (named by tensor); a worker's file is missing. A last word of a
// worker that did not say so is another's, who had its place before, and is not taken.
Result<Manifest> merge_checkpoint(const std::string& directory, const Plan& plan,
                                  const ModelDescription& model, const CheckpointOrigin& origin);

// A complete checkpoint, opened to restore from.
class Checkpoint {
  public:
    // bad_checkpoint: incomplete (no manifest), altered, a file missing or of another size.
    static Result<Checkpoint> open(const std::string& directory);

    const Manifest& manifest() const { return manifest_; }
    const std::string& directory() const { return directory_; }
    // bad_checkpoint, naming the first tensor: another model, or other blocks than this plan's.
    Result<void> matches(const Plan& plan, const ModelDescription& model) const;
    // Weights and state of these blocks, from whichever slices hold them; a slice's checksum is
    // verified the first time it is read from. unknown_block: not in this checkpoint.
    Result<std::vector<BlockSlice>> read(std::span<const BlockId> blocks);
    // Every slice, verified.
    Result<std::vector<ShardSlice>> read_all();
    // What a shard saved besides blocks; null if the job had no such shard. Verified like blocks.
    Result<const std::map<std::string, std::string>*> extras(ShardId shard);
    // Where each block of a shard's slice stood. Requires: a shard of the checkpoint.
    std::map<BlockId, std::pair<Epoch, Version>> versions(ShardId shard) const;
    std::string model_file() const { return directory_ + "/model.safetensors"; }

  private:
    Result<void> verify(std::size_t slice);

    std::string directory_;
    Manifest manifest_;
    std::vector<SliceFile> slices_;
    std::set<std::size_t> verified_;
    std::map<BlockId, std::size_t> slice_of_;
};

// All slices of a checkpoint in memory, verified.
Result<std::vector<ShardSlice>> read_checkpoint(const std::string& directory);
// A file is there, with the size and checksum that the manifest says.
Result<void> verify_file(const std::string& directory, const CheckpointFile& file);
// Every file listed in the manifest is.
Result<void> verify_files(const std::string& directory, const Manifest& manifest);

// manifest.json of a directory; bad_checkpoint: incomplete, or no manifest of ours.
Result<Manifest> read_manifest(const std::string& directory);
std::string to_json(const Manifest& manifest);
Result<Manifest> manifest_from_json(std::string_view text);

}  // namespace detente
