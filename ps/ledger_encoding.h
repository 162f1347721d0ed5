// Ledger entries as few bytes: integers of variable length (7 bits a byte, low bits first; signed
// ones zig-zag), most of them as differences from what the same chunk said before (a block's last
// version, a worker's last step, the last list of blocks). A chunk is encoded from a fresh state,
// so it can be read without those before it.
//
//   entry    kind | flags, time −, then by kind:
//   pull     worker, incarnation, step −, epoch, blocks, a version − for each
//   verdict  worker, incarnation, step −, part, epoch, batch (data epoch, first −, count, and
//            tasks if flagged as others than the last batch's), samples, hash if flagged (8
//            bytes), if flagged the lead's decision (flags, number −, and what the flags announce:
//            lead epoch, weight, denominator other than the last; how long before the entry it
//            arrived), blocks, then
//            per row: flags, version −, and what the flags announce (staleness above 2, base,
//            tasks, step scale, reason); then, if flagged, per applied row its scheduled rate: as
//            the block's last, as the row before, or 8 bytes
//   closed   worker, incarnation, step −, blocks, lost, text
//   lease    worker, incarnation, granted, range (as a batch)
//   control  text
//   resolved worker, step −, batch, tasks, Gramians, lists of weights (numbers of
//            them), then all losses, Gramians and weights, 4 bytes each
//   names    method, tasks, layers: texts, the lists with their numbers
//   share    worker, step −, group, round −, batch, samples, tasks, hash (8 bytes), blocks, a
//            version − for each
//   averaged worker, step −, group, round −, samples
//   lost     worker, incarnation, step −, part, epoch, blocks, a version − for each, text unless
//            flagged as the last lost entry's
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/ledger_entry.h"
#include "common/result.h"

namespace detente {

// Grows with every change of the above.
inline constexpr std::uint32_t kLedgerEncoding = 8;

// What both sides remember within a chunk.
struct LedgerDeltas {
    struct OfBlock {
        std::uint64_t version = 0;
        std::uint64_t tasks = 0;
        std::uint64_t rate = 0;  // its bits
    };
    struct OfStep {
        std::uint64_t step = 0;
        std::uint64_t hash = 0;
    };
    std::uint64_t time = 0;
    std::uint64_t batch = 0;
    std::uint64_t batch_tasks = 0;
    std::uint64_t decision = 0;
    std::uint64_t round = 0;
    double denominator = 1;
    std::vector<BlockId> list;
    std::string reason;                                        // of the last lost entry
    std::unordered_map<std::uint32_t, std::uint64_t> step_of;  // by worker
    std::unordered_map<std::uint64_t, OfBlock> of_block;
    std::unordered_map<std::uint32_t, OfStep> hash_of;  // by worker

    // The hash that needs no writing: what the step's last part in this chunk had, else none.
    std::uint64_t expected_hash(std::uint32_t worker, std::uint64_t step) const {
        const auto last = hash_of.find(worker);
        return last != hash_of.end() && last->second.step == step ? last->second.hash : 0;
    }
};

// Requires: a pull names a version per block.
void encode_entry(const LedgerEntry& entry, LedgerDeltas& deltas, std::vector<std::byte>& into);
// Takes one entry off the front of `bytes`. bad_message: not what encode_entry wrote.
Result<LedgerEntry> decode_entry(std::span<const std::byte>& bytes, LedgerDeltas& deltas);

}  // namespace detente
