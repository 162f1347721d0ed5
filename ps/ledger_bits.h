// What the flags of ledger entries mean; for the two sides of the encoding only.
#pragma once

#include <cstdint>

#include "common/messages.h"

namespace detente::ledger_bits {

enum Kind : std::uint8_t {
    kPull = 0,
    kVerdict = 1,
    kClosed = 2,
    kLease = 3,
    kControl = 4,
    kLost = 5,
    kResolved = 6,
    kNames = 7  // or of a round of averages: kShare, kAveraged
};
inline constexpr std::uint8_t kKindBits = 0x07;
inline constexpr std::uint8_t kSameBlocks = 0x08;  // the list of blocks is the last one
// closed: lost; lease: granted; lost: same text; verdict: under a decision of the lead; resolved:
// with weights of an earlier step
inline constexpr std::uint8_t kFlag = 0x10;
inline constexpr std::uint8_t kHasHash = 0x20;   // verdict: other than the step's last part said
inline constexpr std::uint8_t kHasRates = 0x40;  // verdict: some rate is not the block's last
// Kinds beyond the eight that three bits can name.
inline constexpr std::uint8_t kShare = kNames | kFlag;
inline constexpr std::uint8_t kAveraged = kNames | kHasHash;

// verdict, lease, resolved, share: the batches are of other tasks than the last ones were
inline constexpr std::uint8_t kHasBatchTasks = 0x80;

// Of a decision: what follows its number.
enum Decided : std::uint8_t { kHasEpoch = 1, kHasWeight = 2, kHasDenominator = 4 };

enum Rate : std::uint8_t { kBlocksLast = 0, kRowsLast = 1, kWrittenOut = 2 };

inline constexpr std::uint8_t kVerdictBits = 0x03;
inline constexpr std::uint8_t kHasScale = 0x04;
inline constexpr std::uint8_t kHasTasks = 0x08;   // others than the block's last
inline constexpr std::uint8_t kHasReason = 0x10;  // other than internal, which stands for none
inline constexpr std::uint8_t kHasBase = 0x20;    // other than staleness and version say
inline constexpr unsigned kStalenessShift = 6;    // 0, 1, 2, or 3: a number follows

// The version an applied block was at before is one less; others stay.
inline std::uint64_t expected_base(std::uint64_t version, std::uint64_t staleness,
                                   Verdict verdict) {
    return version - staleness - (verdict == Verdict::applied ? 1 : 0);
}

}  // namespace detente::ledger_bits
