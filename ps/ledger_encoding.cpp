#include "ps/ledger_encoding.h"

#include <bit>
#include <string>
#include <utility>

#include "common/invariant.h"
#include "ps/ledger_bits.h"

namespace detente {
namespace {
using namespace ledger_bits;

class Sink {
  public:
    explicit Sink(std::vector<std::byte>& bytes) : bytes_(bytes) {}
    void octet(std::uint8_t value) { bytes_.push_back(static_cast<std::byte>(value)); }
    void number(std::uint64_t value) {
        while (value >= 0x80) {
            octet(static_cast<std::uint8_t>(value | 0x80U));
            value >>= 7U;
        }
        octet(static_cast<std::uint8_t>(value));
    }
    // value − before, modulo 2^64, small either way.
    void difference(std::uint64_t value, std::uint64_t before) {
        const std::uint64_t delta = value - before;
        number((delta << 1U) ^ (0 - (delta >> 63U)));
    }
    void text(const std::string& value) {
        number(value.size());
        const auto bytes = std::as_bytes(std::span(value));
        bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    }

  private:
    std::vector<std::byte>& bytes_;
};

std::vector<BlockId> blocks_of(const VerdictRecord& record) {
    std::vector<BlockId> blocks;
    blocks.reserve(record.rows.size());
    for (const VerdictRecord::Row& row : record.rows) blocks.push_back(row.block);
    return blocks;
}

void put_worker_step(Sink& sink, LedgerDeltas& deltas, WorkerId worker, Incarnation incarnation,
                     Step step) {
    sink.number(worker.value);
    sink.number(incarnation.value);
    std::uint64_t& last = deltas.step_of[worker.value];
    sink.difference(step.value, last);
    last = step.value;
}

// Unless the list is the last one again, which the entry's flags then say.
void put_blocks(Sink& sink, LedgerDeltas& deltas, bool same, std::vector<BlockId> blocks) {
    if (same) return;
    sink.number(blocks.size());
    std::uint64_t expected = 0;
    for (const BlockId block : blocks) {
        sink.difference(block.value, expected);
        expected = block.value + 1;
    }
    deltas.list = std::move(blocks);
}

void put_row(Sink& sink, LedgerDeltas& deltas, const VerdictRecord::Row& row) {
    LedgerDeltas::OfBlock& known = deltas.of_block[row.block.value];
    const std::uint64_t base = expected_base(row.version.value, row.staleness, row.verdict);
    const auto short_staleness = static_cast<unsigned>(row.staleness < 3 ? row.staleness : 3);
    unsigned flags = static_cast<unsigned>(row.verdict) | (short_staleness << kStalenessShift);
    if (std::bit_cast<std::uint32_t>(row.step_scale) != std::bit_cast<std::uint32_t>(1.0F)) {
        flags |= kHasScale;
    }
    if (row.tasks.bits != known.tasks) flags |= kHasTasks;
    if (row.reason != ErrorCode::internal) flags |= kHasReason;
    if (row.base.value != base) flags |= kHasBase;
    sink.octet(static_cast<std::uint8_t>(flags));
    sink.difference(row.version.value, known.version);
    if (short_staleness == 3) sink.number(row.staleness);
    if ((flags & kHasScale) != 0) sink.number(std::bit_cast<std::uint32_t>(row.step_scale));
    if ((flags & kHasTasks) != 0) sink.number(row.tasks.bits);
    if ((flags & kHasReason) != 0) sink.number(static_cast<std::uint64_t>(row.reason));
    if ((flags & kHasBase) != 0) sink.difference(row.base.value, base);
    known = {row.version.value, row.tasks.bits};
}

void put_range(Sink& sink, LedgerDeltas& deltas, const BatchRange& range) {
    sink.number(range.data_epoch);
    sink.difference(range.first, deltas.batch);
    sink.number(range.count);
    deltas.batch = range.first;
}

void put_time(Sink& sink, LedgerDeltas& deltas, std::uint8_t kind, Time at) {
    sink.octet(kind);
    const auto time = static_cast<std::uint64_t>(at.time_since_epoch().count());
    sink.difference(time, deltas.time);
    deltas.time = time;
}

struct Encoder {
    Time at;
    LedgerDeltas& deltas;
    Sink sink;

    void operator()(const PullRecord& record) {
        invariant(record.blocks.size() == record.versions.size(), "a pull has a version per block");
        const bool same = record.blocks == deltas.list;
        put_time(sink, deltas, kPull | (same ? kSameBlocks : 0), at);
        put_worker_step(sink, deltas, record.worker, record.incarnation, record.step);
        sink.number(record.epoch.value);
        put_blocks(sink, deltas, same, record.blocks);
        for (std::size_t i = 0; i < record.blocks.size(); ++i) {
            std::uint64_t& last = deltas.of_block[record.blocks[i].value].version;
            sink.difference(record.versions[i].value, last);
            last = record.versions[i].value;
        }
    }
    void operator()(const VerdictRecord& record) {
        std::vector<BlockId> blocks = blocks_of(record);
        const bool same = blocks == deltas.list;
        put_time(sink, deltas, kVerdict | (same ? kSameBlocks : 0), at);
        put_worker_step(sink, deltas, record.worker, record.incarnation, record.step);
        sink.number(record.part.value);
        sink.number(record.epoch.value);
        put_range(sink, deltas, record.batch);
        sink.number(record.samples);
        put_blocks(sink, deltas, same, std::move(blocks));
        for (const VerdictRecord::Row& row : record.rows) put_row(sink, deltas, row);
    }
    void operator()(const ClosedRecord& record) {
        put_time(sink, deltas, kClosed | (record.lost ? kFlag : 0), at);
        put_worker_step(sink, deltas, record.worker, record.incarnation, record.step);
        sink.number(record.blocks);
        sink.text(record.reason);
    }
    void operator()(const LeaseRecord& record) {
        put_time(sink, deltas, kLease | (record.granted ? kFlag : 0), at);
        sink.number(record.worker.value);
        sink.number(record.incarnation.value);
        put_range(sink, deltas, record.range);
    }
    void operator()(const ControlRecord& record) {
        put_time(sink, deltas, kControl, at);
        sink.text(record.what);
    }
};

}  // namespace

void encode_entry(const LedgerEntry& entry, LedgerDeltas& deltas, std::vector<std::byte>& into) {
    std::visit(Encoder{entry.at, deltas, Sink(into)}, entry.record);
}

}  // namespace detente
