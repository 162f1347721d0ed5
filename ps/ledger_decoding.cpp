#include <bit>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "ps/ledger_bits.h"
#include "ps/ledger_encoding.h"

namespace detente {
namespace {
using namespace ledger_bits;

// Thrown and caught in this file only.
struct Undecodable {
    const char* why;
};

class Source {
  public:
    explicit Source(std::span<const std::byte> bytes) : bytes_(bytes) {}
    std::uint8_t octet() {
        if (bytes_.empty()) throw Undecodable{"it ends early"};
        const auto value = static_cast<std::uint8_t>(bytes_[0]);
        bytes_ = bytes_.subspan(1);
        return value;
    }
    std::uint64_t number() {
        std::uint64_t value = 0;
        for (unsigned shift = 0; shift < 64; shift += 7) {
            const std::uint8_t next = octet();
            if (shift == 63 && next > 1) break;
            value |= static_cast<std::uint64_t>(next & 0x7FU) << shift;
            if (next < 0x80) return value;
        }
        throw Undecodable{"a number is longer than 64 bits"};
    }
    std::uint64_t word() {
        std::uint64_t value = 0;
        for (unsigned shift = 0; shift < 64; shift += 8) {
            value |= static_cast<std::uint64_t>(octet()) << shift;
        }
        return value;
    }
    std::vector<float> floats(std::size_t count) {
        if (count > bytes_.size() / sizeof(float)) throw Undecodable{"it ends early"};
        std::vector<float> values;
        values.reserve(count);
        for (std::size_t i = 0; i < count; ++i) {
            std::uint32_t bits = 0;
            for (unsigned shift = 0; shift < 32; shift += 8) {
                bits |= static_cast<std::uint32_t>(octet()) << shift;
            }
            values.push_back(std::bit_cast<float>(bits));
        }
        return values;
    }
    std::uint32_t small() {
        const std::uint64_t value = number();
        if (value > std::numeric_limits<std::uint32_t>::max()) {
            throw Undecodable{"a number is longer than 32 bits"};
        }
        return static_cast<std::uint32_t>(value);
    }
    std::uint64_t difference(std::uint64_t before) {
        const std::uint64_t coded = number();
        return before + ((coded >> 1U) ^ (0 - (coded & 1U)));
    }
    // Of things that take a byte or more each, so that a lying count reserves nothing.
    std::size_t count() {
        const std::uint64_t value = number();
        if (value > bytes_.size()) throw Undecodable{"a count exceeds what follows"};
        return value;
    }
    std::string text() {
        const std::size_t size = count();
        std::string value(size, '\0');
        if (size > 0) std::memcpy(value.data(), bytes_.data(), size);
        bytes_ = bytes_.subspan(size);
        return value;
    }
    std::span<const std::byte> rest() const { return bytes_; }

  private:
    std::span<const std::byte> bytes_;
};

template <class Record>
void take_worker_step(Source& source, LedgerDeltas& deltas, Record& record) {
    record.worker = WorkerId{source.small()};
    record.incarnation = Incarnation{source.small()};
    std::uint64_t& last = deltas.step_of[record.worker.value];
    last = source.difference(last);
    record.step = Step{last};
}

void take_blocks(Source& source, LedgerDeltas& deltas, bool same) {
    if (same) {
        if (deltas.list.size() > source.rest().size()) throw Undecodable{"it ends early"};
        return;
    }
    deltas.list.resize(source.count());
    std::uint64_t expected = 0;
    for (BlockId& block : deltas.list) {
        block.value = source.difference(expected);
        expected = block.value + 1;
    }
}

VerdictRecord::Row take_row(Source& source, LedgerDeltas& deltas, BlockId block) {
    LedgerDeltas::OfBlock& known = deltas.of_block[block.value];
    const std::uint8_t flags = source.octet();
    VerdictRecord::Row row;
    row.block = block;
    row.verdict = static_cast<Verdict>(flags & kVerdictBits);
    row.version = Version{source.difference(known.version)};
    row.staleness = flags >> kStalenessShift;
    if (row.staleness == 3) row.staleness = source.number();
    if ((flags & kHasScale) != 0) row.step_scale = std::bit_cast<float>(source.small());
    row.tasks.bits = (flags & kHasTasks) != 0 ? source.number() : known.tasks;
    if ((flags & kHasReason) != 0) {
        const std::uint64_t reason = source.number();
        if (reason > static_cast<std::uint64_t>(ErrorCode::internal)) {
            throw Undecodable{"a reason this build does not know"};
        }
        row.reason = static_cast<ErrorCode>(reason);
    }
    const std::uint64_t base = expected_base(row.version.value, row.staleness, row.verdict);
    row.base = Version{(flags & kHasBase) != 0 ? source.difference(base) : base};
    known.version = row.version.value;
    known.tasks = row.tasks.bits;
    return row;
}

BatchRange take_range(Source& source, LedgerDeltas& deltas, std::uint8_t kind) {
    BatchRange range;
    range.data_epoch = source.small();
    deltas.batch = source.difference(deltas.batch);
    if (deltas.batch > std::numeric_limits<std::uint32_t>::max()) {
        throw Undecodable{"a batch number is longer than 32 bits"};
    }
    range.first = static_cast<std::uint32_t>(deltas.batch);
    range.count = source.small();
    if ((kind & kHasBatchTasks) != 0) deltas.batch_tasks = source.number();
    range.tasks.bits = deltas.batch_tasks;
    return range;
}

std::vector<Version> take_versions(Source& source, LedgerDeltas& deltas) {
    std::vector<Version> versions;
    for (const BlockId block : deltas.list) {
        std::uint64_t& last = deltas.of_block[block.value].version;
        last = source.difference(last);
        versions.push_back(Version{last});
    }
    return versions;
}

PullRecord take_pull(Source& source, LedgerDeltas& deltas, bool same) {
    PullRecord record;
    take_worker_step(source, deltas, record);
    record.epoch = Epoch{source.small()};
    take_blocks(source, deltas, same);
    record.blocks = deltas.list;
    record.versions = take_versions(source, deltas);
    return record;
}

// An applied row that needs no word has its block's last rate; others have none.
void take_rates(Source& source, LedgerDeltas& deltas, bool written, VerdictRecord& record) {
    std::uint64_t rows_last = 0;
    for (VerdictRecord::Row& row : record.rows) {
        if (row.verdict != Verdict::applied) continue;
        std::uint64_t& blocks_last = deltas.of_block[row.block.value].rate;
        const std::uint8_t how = written ? source.octet() : std::uint8_t{kBlocksLast};
        if (how > kWrittenOut) throw Undecodable{"a rate of a kind this build does not know"};
        if (how == kRowsLast) blocks_last = rows_last;
        if (how == kWrittenOut) blocks_last = source.word();
        rows_last = blocks_last;
        row.scheduled_rate = std::bit_cast<double>(blocks_last);
    }
}

void take_decision(Source& source, LedgerDeltas& deltas, VerdictRecord& record) {
    const std::uint8_t flags = source.octet();
    if (flags > (kHasEpoch | kHasWeight | kHasDenominator)) {
        throw Undecodable{"a decision with flags this build does not know"};
    }
    deltas.decision = source.difference(deltas.decision);
    record.decision = {record.epoch, deltas.decision};
    if ((flags & kHasEpoch) != 0) record.decision.lead_epoch = Epoch{source.small()};
    if ((flags & kHasWeight) != 0) record.gradient_weight = std::bit_cast<float>(source.small());
    if ((flags & kHasDenominator) != 0) deltas.denominator = std::bit_cast<double>(source.word());
    record.denominator = deltas.denominator;
    record.arrived = Time(Nanos(static_cast<std::int64_t>(deltas.time - source.difference(0))));
}

VerdictRecord take_verdict(Source& source, LedgerDeltas& deltas, std::uint8_t kind) {
    VerdictRecord record;
    take_worker_step(source, deltas, record);
    record.part = Part{source.small()};
    record.epoch = Epoch{source.small()};
    record.batch = take_range(source, deltas, kind);
    record.samples = source.small();
    record.gradient_hash = (kind & kHasHash) != 0
                               ? source.word()
                               : deltas.expected_hash(record.worker.value, record.step.value);
    deltas.hash_of[record.worker.value] = {record.step.value, record.gradient_hash};
    record.arrived = Time(Nanos(static_cast<std::int64_t>(deltas.time)));
    if ((kind & kFlag) != 0) take_decision(source, deltas, record);
    take_blocks(source, deltas, (kind & kSameBlocks) != 0);
    for (const BlockId block : deltas.list) record.rows.push_back(take_row(source, deltas, block));
    take_rates(source, deltas, (kind & kHasRates) != 0, record);
    return record;
}

LostRecord take_lost(Source& source, LedgerDeltas& deltas, std::uint8_t kind) {
    LostRecord record;
    take_worker_step(source, deltas, record);
    record.part = Part{source.small()};
    record.epoch = Epoch{source.small()};
    take_blocks(source, deltas, (kind & kSameBlocks) != 0);
    record.blocks = deltas.list;
    record.versions = take_versions(source, deltas);
    if ((kind & kFlag) == 0) deltas.reason = source.text();
    record.reason = deltas.reason;
    return record;
}

ResolvedRecord take_resolved(Source& source, LedgerDeltas& deltas, std::uint8_t kind) {
    ResolvedRecord record;
    record.worker = WorkerId{source.small()};
    std::uint64_t& last = deltas.step_of[record.worker.value];
    last = source.difference(last);
    record.step = Step{last};
    record.batch = take_range(source, deltas, kind);
    const std::uint64_t tasks = source.number();
    if (tasks > kMaxTasks) throw Undecodable{"it is of more tasks than there can be"};
    const std::size_t gramians = source.count();
    const std::size_t weights = source.count();
    record.losses = source.floats(tasks);
    // A list without entries takes no byte: a count could be anything.
    for (std::size_t i = 0; i < gramians && tasks > 0; ++i) {
        record.gramians.push_back(source.floats(tasks * (tasks + 1) / 2));
    }
    for (std::size_t i = 0; i < weights && tasks > 0; ++i) {
        record.weights.push_back(source.floats(tasks));
    }
    const std::uint64_t has_result = source.number();
    if (has_result > 1) throw Undecodable{"its result is neither there nor left out"};
    if (has_result == 1) record.result = source.floats(tasks + 1);
    record.reused = (kind & kFlag) != 0;
    return record;
}

NamesRecord take_names(Source& source) {
    NamesRecord record;
    record.method = source.text();
    for (auto* names : {&record.tasks, &record.layers}) {
        names->resize(source.count());
        for (std::string& name : *names) name = source.text();
    }
    return record;
}

template <class Record>
void take_round(Source& source, LedgerDeltas& deltas, Record& record) {
    record.worker = WorkerId{source.small()};
    std::uint64_t& last = deltas.step_of[record.worker.value];
    last = source.difference(last);
    record.step = Step{last};
    record.group = GroupEpoch{source.number()};
    deltas.round = source.difference(deltas.round);
    record.round = Step{deltas.round};
}

ShareRecord take_share(Source& source, LedgerDeltas& deltas, std::uint8_t kind) {
    ShareRecord record;
    take_round(source, deltas, record);
    record.batch = take_range(source, deltas, kind);
    record.samples = source.small();
    record.tasks.bits = source.number();
    record.gradient_hash = source.word();
    take_blocks(source, deltas, (kind & kSameBlocks) != 0);
    record.blocks = deltas.list;
    record.versions = take_versions(source, deltas);
    return record;
}

AveragedRecord take_averaged(Source& source, LedgerDeltas& deltas) {
    AveragedRecord record;
    take_round(source, deltas, record);
    record.samples = source.small();
    return record;
}

// The last of the kinds that three bits name stands for three.
decltype(LedgerEntry::record) take_names_or_round(Source& source, LedgerDeltas& deltas,
                                                  std::uint8_t kind) {
    const unsigned further = kind & ~(kSameBlocks | kHasBatchTasks);
    if (further == kShare) return take_share(source, deltas, kind);
    if (kind == kAveraged) return take_averaged(source, deltas);
    if (kind == kNames) return take_names(source);
    throw Undecodable{"a flag that its kind of entry does not have"};
}

std::uint8_t flags_of(std::uint8_t kind) {
    switch (kind) {
        case kPull:
            return kSameBlocks;
        case kLost:
            return kSameBlocks | kFlag;
        case kVerdict:
            return kSameBlocks | kHasHash | kHasRates | kFlag | kHasBatchTasks;
        case kLease:
        case kResolved:
            return kFlag | kHasBatchTasks;
        case kClosed:
            return kFlag;
        case kNames:
            return kSameBlocks | kFlag | kHasHash | kHasBatchTasks;
        default:
            return 0;
    }
}

LedgerEntry take_entry(Source& source, LedgerDeltas& deltas) {
    LedgerEntry entry;
    const std::uint8_t kind = source.octet();
    if ((kind & ~kKindBits & ~flags_of(kind & kKindBits)) != 0) {
        throw Undecodable{"a flag that its kind of entry does not have"};
    }
    deltas.time = source.difference(deltas.time);
    entry.at = Time(Nanos(static_cast<std::int64_t>(deltas.time)));
    switch (kind & kKindBits) {
        case kPull:
            entry.record = take_pull(source, deltas, (kind & kSameBlocks) != 0);
            return entry;
        case kVerdict:
            entry.record = take_verdict(source, deltas, kind);
            return entry;
        case kClosed: {
            ClosedRecord record;
            take_worker_step(source, deltas, record);
            record.blocks = source.small();
            record.lost = (kind & kFlag) != 0;
            record.reason = source.text();
            entry.record = std::move(record);
            return entry;
        }
        case kLease: {
            LeaseRecord record;
            record.worker = WorkerId{source.small()};
            record.incarnation = Incarnation{source.small()};
            record.granted = (kind & kFlag) != 0;
            record.range = take_range(source, deltas, kind);
            entry.record = record;
            return entry;
        }
        case kControl:
            entry.record = ControlRecord{source.text()};
            return entry;
        case kLost:
            entry.record = take_lost(source, deltas, kind);
            return entry;
        case kNames:
            entry.record = take_names_or_round(source, deltas, kind);
            return entry;
        case kResolved:
            entry.record = take_resolved(source, deltas, kind);
            return entry;
        default:
            throw Undecodable{"a kind of entry this build does not know"};
    }
}

}  // namespace

Result<LedgerEntry> decode_entry(std::span<const std::byte>& bytes, LedgerDeltas& deltas) {
    try {
        Source source(bytes);
        LedgerEntry entry = take_entry(source, deltas);
        bytes = source.rest();
        return entry;
    } catch (const Undecodable& undecodable) {
        return fail(ErrorCode::bad_message, std::string("a ledger entry is no such: ") +
                                                undecodable.why +
                                                "; read it with the build that wrote it");
    }
}

}  // namespace detente
