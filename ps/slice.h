// What one shard contributes to a checkpoint: its blocks at a version boundary and the rest of its
// state. On disk a slice is one safetensors file: weights as `block.<id>.weights`, optimizer state
// as `block.<id>.slot0`, `.slot1`, vectors of the staleness policy as `block.<id>.vector0` and
// `block.<id>.worker<w>.vector0`, averages of tasks' gradients as `block.<id>.task<t>.mean` and
// their Gramian (T×T doubles) as `block.<id>.gramian`, every extra as bytes `extra.<key>`;
// versions, counts and the staleness policy's state as JSON in the metadata, 64-bit integers (and
// the bits of doubles) as strings.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/ids.h"
#include "common/payload.h"
#include "common/result.h"
#include "common/safetensors.h"
#include "common/staleness/policy.h"
#include "ps/policy_vectors.h"
#include "ps/task_memory.h"

namespace detente {

// Everything one block needs to be as it was.
struct BlockSlice {
    BlockId block;
    Epoch epoch;
    Version version;
    std::uint64_t updates = 0;  // Adam's t: optimizer state
    std::uint64_t samples_applied = 0;
    std::string policy;  // whose state this is; empty = not saved
    PolicyState policy_state;
    Payload weights;
    std::vector<Payload> slots;  // each as long as the weights
    SavedVectors vectors;        // of the policy; the same
    SavedMemory memory;          // of tasks' gradients; the same
};

struct ShardSlice {
    ShardId shard;
    std::vector<BlockSlice> blocks;
    // The rest of the state under a name: "leases", "duplicates", "incarnation" (the newest of its
    // workers), "rules", "policy" (of the lead's, ps/policy_saved.h). Any bytes.
    std::map<std::string, std::string> extras;
};

std::string slice_file_name(ShardId shard);  // "shard-0.safetensors"

// The file as pieces for a store operation. Blocks' bytes are shared, not copied, and not looked
// at: cheap enough for the shard's loop. over_limit: more arrays than a file's header has room for.
// Requires: distinct blocks; weights and slots of whole floats.
Result<std::vector<Payload>> to_pieces(const ShardSlice& slice);

// A slice opened for reading blocks one at a time.
class SliceFile {
  public:
    // io; bad_checkpoint: no whole slice, naming what is missing or contradicts.
    static Result<SliceFile> open(const std::string& path);

    ShardId shard() const { return shard_; }
    const std::string& path() const { return file_.path(); }
    std::uint64_t file_bytes() const { return file_.file_bytes(); }
    // As BlockSlice, with empty payloads and Gramians; ascending ids.
    const std::vector<BlockSlice>& blocks() const { return blocks_; }
    const BlockSlice* find(BlockId block) const;  // null: not in this slice
    std::uint64_t elements(BlockId block) const;  // Requires: in this slice
    const std::map<std::string, std::string>& extras() const { return extras_; }

    // With weights and state, 64-byte aligned. bad_checkpoint: a Gramian with NaN or Inf.
    // Requires: in this slice.
    Result<BlockSlice> read(BlockId block) const;
    // Weights only. Requires: in this slice.
    Result<Payload> read_weights(BlockId block) const;

  private:
    explicit SliceFile(SafetensorsFile file) : file_(std::move(file)) {}
    void parse();  // throws BadJson
    Result<void> read_extras();
    Result<void> read_gramian(BlockSlice& block) const;

    SafetensorsFile file_;
    ShardId shard_;
    std::vector<BlockSlice> blocks_;
    std::map<BlockId, std::size_t> index_of_;
    std::map<std::string, std::string> extras_;
};

// Everything in memory.
Result<ShardSlice> read_slice(const std::string& path);

}  // namespace detente
